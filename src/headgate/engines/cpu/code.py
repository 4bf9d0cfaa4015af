"""One pass over the units as instructions on slots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

ARITHMETIC = ("add", "sub", "mul", "div", "neg", "sigmoid", "tanh", "relu", "exp", "log")
MORE = ("log_sigmoid", "sqrt", "rsqrt", "abs", "maximum", "minimum")
CONDITIONS = ("greater", "greater_equal", "less", "less_equal", "equal", "where", "clip", "copy")
ROWWISE = ("standard", "expand")
FUSED = ("muladd", "submul", "sigmoid_slope", "tanh_slope")
OPS = (*ARITHMETIC, *MORE, *CONDITIONS, *ROWWISE, *FUSED)
"""In the order of ``Op`` in csrc/loop.hpp."""


FROM_ZERO, FROM_SLOT = -1, -2
MAX_SEGMENTS = 4
"""As in csrc/loop.hpp."""


@dataclass(frozen=True)
class Packing:
    """How a weight is packed: (panel, depth, block, unit) of some blocks of a family."""

    family: str
    part: int
    blocks: tuple[str, ...]
    transpose: bool
    unit_block: int


Slot = int | tuple[str, float]


Made = Mapping[Slot, tuple[str, list[Slot]]]
"""Operation and arguments by the slot, for slots with one use."""
Joined = tuple[str, list[Slot], list[Slot]] | None
"""Operation, arguments, slots no longer made."""
Rule = Callable[[str, list[Slot], Made], Joined]
ONE: Slot = ("constant", 1.0)


def _with_product(op: str, args: list[Slot], made: Made) -> Joined:
    """a b + c and c - a b."""
    for k in (1, 0) if op == "add" else (1,) if op == "sub" else ():
        inner, factors = made.get(args[k], ("", []))
        if inner == "mul":
            return ("muladd" if op == "add" else "submul"), [*factors, args[1 - k]], [args[k]]
    return None


def _slope(op: str, args: list[Slot], made: Made) -> Joined:
    """y (1 - y) d and (1 - y²) d, the steps back through sigmoid and tanh."""
    if op != "mul":
        return None
    for k in (1, 0):
        inner, of = made.get(args[k], ("", []))
        d = args[1 - k]
        if inner == "submul" and of[0] == of[1] and of[2] == ONE:
            return "tanh_slope", [d, of[0]], [args[k]]
        if inner == "mul":
            for y, rest in (of, of[::-1]):
                if made.get(rest) == ("sub", [ONE, y]):
                    return "sigmoid_slope", [d, y], [args[k], rest]
    return None


@dataclass
class Product:
    """Segments (operand's tensor, weight, depth), the slots, and what each slot starts from."""

    segments: list[tuple[int, int, int]]
    slots: list[int]
    starts: list[int]


@dataclass
class Code:
    """One pass in virtual slots, each written once (a product adds to its slot)."""

    width: int
    products: list[Product] = field(default_factory=list)
    masks: list[tuple[int, int, bool, float, float, float]] = field(default_factory=list)
    loads: list[tuple[int, int]] = field(default_factory=list)
    instructions: list[tuple[str, int, list[Slot], float, float, bool]] = field(
        default_factory=list
    )
    stores: list[tuple[Slot, int]] = field(default_factory=list)
    sums: list[tuple[Slot, int]] = field(default_factory=list)
    added: set[int] = field(default_factory=set)
    copied: set[int] = field(default_factory=set)
    slots: int = 0

    def join(self) -> None:
        """A product that goes on in the slots of the one before becomes part of it."""
        joined: list[Product] = []
        for product in self.products:
            last = joined[-1] if joined else None
            goes_on = last and last.slots == product.slots and set(product.starts) == {FROM_SLOT}
            if last and goes_on and len(last.segments) + len(product.segments) <= MAX_SEGMENTS:
                last.segments += product.segments
            else:
                joined.append(product)
        self.products = joined

    def fuse(self) -> None:
        """Fewer passes over the slots: a product that only a sum or a difference uses becomes part
        of it, and so do the steps to y (1 - y) d and (1 - y²) d."""
        self._join_uses(_with_product)
        self._join_uses(_slope)

    def _join_uses(self, rule: Rule) -> None:
        """Replaces an instruction by one that does also what makes its arguments, where nobody
        else uses them."""
        uses: dict[Slot, int] = {}
        for _, _, args, *_ in self.instructions:
            for arg in args:
                uses[arg] = uses.get(arg, 0) + 1
        for slot, _ in (*self.stores, *self.sums):
            uses[slot] = uses.get(slot, 0) + 2
        made: dict[bool, dict[Slot, tuple[str, list[Slot]]]] = {False: {}, True: {}}
        joined, gone = [], set[Slot]()
        for op, out, args, low, high, narrow in self.instructions:
            found = rule(op, args, made[narrow])
            if found is not None:
                op, args, without = found
                gone.update(without)
            if uses.get(out) == 1:
                made[narrow][out] = op, args
            joined.append((op, out, args, low, high, narrow))
        self.instructions = [i for i in joined if i[1] not in gone]

    def allocate(self, fixed: set[int]) -> None:
        """Virtual slots to few real ones: a slot is free again after its last use.

        What is loaded or stored has a slot of its own, which may be the tensor's memory. What is
        read from the tensors ``fixed`` is the same for every row and step, and stays in its slot.
        """
        end = len(self.instructions)
        last: dict[Slot, int] = {}
        for at, (_, out, args, *_) in enumerate(self.instructions):
            last[out] = at
            last.update(dict.fromkeys(args, at))
        kept = [slot for slot, _ in (*self.stores, *self.sums, *self.loads)]
        last.update(dict.fromkeys(kept, end))
        real: dict[Slot, int] = {}
        free: list[int] = []
        alone = set(kept)

        def take(slot: Slot) -> None:
            if slot in alone or not free:
                real[slot] = self.slots
                self.slots += 1
            else:
                real[slot] = free.pop()

        begun = [s for p in self.products for s in p.slots] + [s for s, *_ in self.masks]
        self.lasting = {s for s, tensor in self.loads if tensor in fixed}
        for slot in dict.fromkeys([*begun, *(s for s, _ in self.loads)]):
            if slot not in self.lasting:
                take(slot)
        ending: dict[int, list[Slot]] = {}
        for slot, at in last.items():
            ending.setdefault(at, []).append(slot)
        for at, (op, out, *_) in enumerate(self.instructions):
            if op == "expand":  # its slots are laid out differently
                take(out)
            free += [real[s] for s in ending.get(at, ()) if s in real and s not in (*alone, out)]
            if op != "expand":
                take(out)
            if last[out] == at and out not in alone:
                free.append(real[out])
        self.real = real

    def finish(self, fixed: Mapping[float, int], lasting: Mapping[int, int]) -> tuple[Any, ...]:
        tensors = {s: tensor for s, tensor in self.loads if s in self.lasting}

        def where(slot: Slot) -> int:
            if slot in tensors:
                return lasting[tensors[slot]]
            return fixed[slot[1]] if isinstance(slot, tuple) else self.real[slot]

        instructions = []
        for op, out, args, low, high, narrow in self.instructions:
            a, b, c = [*map(where, args), 0, 0, 0][:3]
            instructions.append((OPS.index(op), where(out), a, b, c, low, high, narrow))
        loaded, stored = {s for s, _ in self.loads}, {s for s, _ in self.stores}
        stores, taken = [], {s for s in stored if isinstance(s, tuple)} | (stored & loaded)
        for slot, tensor in self.stores:  # only one of several tensors can be the slot's memory
            add, copied = tensor in self.added, tensor in self.copied
            stores.append((where(slot), tensor, slot not in taken and not copied, add))
            if not copied:
                taken.add(slot)
        return (
            self.width,
            [(p.segments, [where(s) for s in p.slots], p.starts) for p in self.products],
            [(where(s), *rest) for s, *rest in self.masks],
            [(where(s), t, s not in {*stored, *tensors}, s in tensors) for s, t in self.loads],
            instructions,
            stores,
            [(where(s), t, False, False) for s, t in self.sums],
        )
