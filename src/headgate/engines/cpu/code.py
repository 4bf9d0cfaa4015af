"""One pass over the units as instructions on slots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headgate.program.program import SCALAR
from headgate.program.schedule import Group

if TYPE_CHECKING:
    from headgate.engines.cpu.compile import Compiler, Name

ARITHMETIC = ("add", "sub", "mul", "div", "neg", "sigmoid", "tanh", "relu", "exp", "log")
MORE = ("log_sigmoid", "sqrt", "rsqrt", "abs", "maximum", "minimum")
CONDITIONS = ("greater", "greater_equal", "less", "less_equal", "equal", "where", "clip", "copy")
OPS = (*ARITHMETIC, *MORE, *CONDITIONS)
"""In the order of ``Op`` in csrc/loop.hpp."""


@dataclass(frozen=True)
class Packing:
    """How a weight is packed: (panel, depth, block, unit) of some blocks of a family."""

    family: str
    part: int
    blocks: tuple[str, ...]
    transpose: bool
    unit_block: int


Slot = int | tuple[str, float]


@dataclass
class Code:
    """One pass in virtual slots, each written once (a product adds to its slot)."""

    width: int
    vectors: int
    rows: int
    early: list[tuple[int, int]] = field(default_factory=list)
    zeroed: list[int] = field(default_factory=list)
    products: list[tuple[int, int, int, list[int]]] = field(default_factory=list)
    loads: list[tuple[int, int]] = field(default_factory=list)
    instructions: list[tuple[str, int, list[Slot], float, float]] = field(default_factory=list)
    stores: list[tuple[Slot, int]] = field(default_factory=list)
    sums: list[tuple[Slot, int]] = field(default_factory=list)
    slots: int = 0

    def allocate(self) -> None:
        """Virtual slots to few real ones: a slot is free again after its last use."""
        end = len(self.instructions)
        last: dict[Slot, int] = {}
        for at, (_, out, args, _, _) in enumerate(self.instructions):
            last[out] = at
            last.update(dict.fromkeys(args, at))
        last.update({slot: end for slot, _ in (*self.stores, *self.sums)})
        real: dict[Slot, int] = {}
        free: list[int] = []

        def take(slot: Slot) -> int:
            real[slot] = free.pop() if free else self.slots
            self.slots = max(self.slots, real[slot] + 1)
            return real[slot]

        begun = [s for s, _ in self.early] + self.zeroed + [s for s, _ in self.loads]
        for slot in begun:
            take(slot)
        ending: dict[int, list[Slot]] = {}
        for slot, at in last.items():
            ending.setdefault(at, []).append(slot)
        for at, (_, out, _, _, _) in enumerate(self.instructions):
            take(out)
            free += [real[s] for s in ending.get(at, ()) if s in real]
        self.real = real

    def finish(self, fixed: Mapping[float, int]) -> tuple[Any, ...]:
        def where(slot: Slot) -> int:
            return fixed[slot[1]] if isinstance(slot, tuple) else self.real[slot]

        instructions = []
        for op, out, args, low, high in self.instructions:
            a, b, c = [*map(where, args), 0, 0, 0][:3]
            instructions.append((OPS.index(op), where(out), a, b, c, low, high))
        return (
            self.width,
            self.vectors,
            self.rows,
            [(where(s), t) for s, t in self.early],
            [where(s) for s in self.zeroed],
            [(o, w, d, [where(s) for s in slots]) for o, w, d, slots in self.products],
            [(where(s), t) for s, t in self.loads],
            instructions,
            [(where(s), t) for s, t in self.stores],
            [(where(s), t) for s, t in self.sums],
        )


class Registers:
    def __init__(self) -> None:
        self.count = 0

    def new(self) -> int:
        self.count += 1
        return self.count


class PassCompiler:
    """Compiles one pass: products, then values in order, then what goes to memory."""

    def __init__(self, compiler: Compiler, number: int) -> None:
        self.all, self.number = compiler, number
        self.source = compiler.source
        self.made = compiler.passes[number]
        self.size = self.source.sizes[self.made.width]
        machine = compiler.machine
        blocks = max((len(g.nodes) for g in self.made.groups), default=0)
        spare = machine.max_vectors // blocks if blocks else 2
        vectors = max(1, min(spare, math.ceil(self.size / machine.lanes)))
        rows = machine.tile_rows(min(machine.max_vectors, max(1, blocks) * vectors))
        self.code = Code(self.size, vectors, rows)
        self.slot: dict[int, Slot] = {}

    def run(self) -> Code:
        for group in self.made.groups:
            self._product(group)
        for index in self.made.values:
            self._value(index)
        for index in self.made.sums:
            args = [self._value(a) for a in self.source.nodes[index].args]
            total = args[0]
            for other in args[1:]:
                total = self._emit("add", [total, other])
            block = self.code.vectors * self.all.machine.lanes
            panels = math.ceil(self.size / block)
            self.code.sums.append((total, self.all.tensor(("sum", index), 1, panels)))
        for index, name in self.made.stores:
            width = 1 if self.source.widths[index] == SCALAR else self.size
            self.code.stores.append((self._value(index), self.all.tensor(name, width)))
        self.code.allocate()
        return self.code

    def _product(self, group: Group) -> None:
        slots: list[int] = []
        for node in group.nodes:
            slots.append(self._accumulator(node, slots))
        unit_block = self.code.vectors * self.all.machine.lanes
        joined = self.source.joined.get(group.operands)
        if group.transpose and not joined:
            uses = [((b,), o) for b, o in zip(group.blocks, group.operands, strict=True)]
        else:
            uses = [(group.blocks, group.operands[0])]
        for blocks, operand in uses:
            depth = self._depth(group, blocks, operand)
            name = joined or self._memory(operand)
            packing = Packing(group.family, group.part, blocks, group.transpose, unit_block)
            tensor = self.all.tensor(name, depth)
            self.code.products.append((tensor, self.all.weight(packing), depth, slots))

    def _depth(self, group: Group, blocks: Sequence[str], operand: int) -> int:
        width = self.source.sizes[self.source.widths[operand]]
        return width * len(blocks) if group.transpose else width

    def _memory(self, index: int) -> Name:
        leaf = self.source.leaves.get(index)
        if isinstance(leaf, tuple):
            return leaf
        stored = self.all.stored(index)
        assert stored is not None
        return stored

    def _accumulator(self, node: int, taken: Sequence[int]) -> int:
        """The slot a product adds to: a fresh zero, or the other term of the sum it belongs to.

        The blocks of one product are written at once, so none may add to a slot ``taken`` by
        another.
        """
        slot = self.all.registers.new()
        self.slot[node] = slot
        total = self._sum_of(node)
        other = self._other_term(total, node) if total is not None else None
        if other is None or total is None or self.slot.get(other) in taken:
            self.code.zeroed.append(slot)
            return slot
        if other in self.slot:
            slot = self._integer(other)
            self.slot[node] = slot
        else:
            tensor = self._tensor_of(other)
            self.code.early.append((slot, tensor))
        self.slot[total] = slot
        return slot

    def _integer(self, node: int) -> int:
        slot = self.slot[node]
        assert isinstance(slot, int)
        return slot

    def _sum_of(self, node: int) -> int | None:
        """The sum that alone uses this product, where it is made in this pass."""
        users = self.all.uses.get(node, [])
        if len(users) != 1 or self.source.nodes[users[0]].op != "add":
            return None
        return users[0] if users[0] in self.made.values else None

    def _other_term(self, total: int, node: int) -> int | None:
        a, b = self.source.nodes[total].args
        other = b if a == node else a
        if a == b or self.source.widths[other] != self.made.width:
            return None
        if other in self.slot:
            alone = len(self.all.uses.get(other, [])) == 1
            return other if alone and isinstance(self.slot[other], int) else None
        outside = other in self.source.leaves or self.all.home.get(other) != self.number
        if other in self.all.lazy or not outside:
            return None
        return None if isinstance(self.source.leaves.get(other), float) else other

    def _tensor_of(self, index: int) -> int:
        if self.source.nodes[index].op == "row_sum":
            return self.all.tensor(("sum", index), 1)
        scalar = self.source.widths[index] == SCALAR
        width = 1 if scalar else self.source.sizes[self.source.widths[index]]
        return self.all.tensor(self._memory(index), width)

    def _load(self, name_or_tensor: int) -> int:
        slot = self.all.registers.new()
        self.code.loads.append((slot, name_or_tensor))
        return slot

    def _emit(self, op: str, args: list[Slot], low: float = 0.0, high: float = 0.0) -> int:
        out = self.all.registers.new()
        self.code.instructions.append((op, out, args, low, high))
        return out

    def _value(self, index: int) -> Slot:
        """The slot of a value: made already, read from memory, or computed now."""
        if index in self.slot:
            return self.slot[index]
        node = self.source.nodes[index]
        leaf = self.source.leaves.get(index)
        if isinstance(leaf, float):
            slot: Slot = self.all.constant(leaf)
        elif leaf is not None or node.op == "row_sum" or self._elsewhere(index):
            slot = self._load(self._tensor_of(index))
        elif node.op == "expand":
            slot = self._value(node.args[0])
        elif node.op == "clip":
            slot = self._emit("clip", [self._value(node.args[0])], node["low"], node["high"])
        else:
            slot = self._emit(node.op, [self._value(a) for a in node.args])
        self.slot[index] = slot
        return slot

    def _elsewhere(self, index: int) -> bool:
        home = self.all.home.get(index)
        return home is not None and home != self.number and index not in self.all.lazy
