"""From one pass over the units to its instructions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headgate.engines.cpu.code import FROM_SLOT, FROM_ZERO, Code, Packing, Product, Slot
from headgate.program.program import SCALAR, Node
from headgate.program.schedule import Group

if TYPE_CHECKING:
    from headgate.engines.cpu.compile import Compiler, Name


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
        self.code = Code(self.size)
        self.slot: dict[int, Slot] = {}
        self.start: dict[int, int] = {}
        self.rest: dict[int, tuple[int, list[int]]] = {}
        self.inner: set[int] = set()
        self.repeated: dict[int, Slot] = {}

    def run(self) -> Code:
        self._gather()
        for group in self.made.groups:
            self._product(group)
        self.code.join()
        for index in self.made.values:
            if index not in self.inner:
                self._value(index)
        for index in self.made.sums:
            args = [self._wide(a) for a in self.source.nodes[index].args]
            total = args[0]
            for other in args[1:]:
                total = self._emit("add", [total, other])
            if len(args) == 1:  # its lanes past the width are cleared
                total = self._emit("copy", [total])
            panels = math.ceil(self.size / self.all.machine.lanes)
            self.code.sums.append((total, self.all.tensor(("sum", index), 1, panels)))
        for index, name in self.made.stores:
            width = 1 if self.source.widths[index] == SCALAR else self.size
            tensor = self.all.tensor(name, width)
            self.code.stores.append((self._value(index), tensor))
            if name[0] == "total":
                self.code.added.add(tensor)
            if name[0] in ("total", "carried"):  # these may take the place of what is read here
                self.code.copied.add(tensor)
        self.code.fuse()
        self.code.allocate(self.all.fixed_tensors())
        return self.code

    def _gather(self) -> None:
        """Sums that a product's tile forms by itself: of products, and of one value in memory."""
        group_of = {n: k for k, g in enumerate(self.made.groups) for n in g.nodes}
        inside = set(self.made.values)
        for root in self.made.values:
            if self.source.nodes[root].op != "add" or self._absorbed(root, inside):
                continue
            sums: list[int] = []
            terms = self._terms(root, inside, sums)
            products: list[int] = []
            for term in terms:
                groups = {group_of[p] for p in products}
                if term in group_of and self._once(term) and group_of[term] not in groups:
                    products.append(term)
            if not products:
                continue
            slot = self.all.registers.new()
            self.slot.update(dict.fromkeys(products, slot))
            self.inner.update(sums)
            outside = next((t for t in terms if self._in_memory(t)), None)
            if outside is not None:
                self.start[slot] = self._tensor_of(outside)
            gone = {*products, outside}
            rest = [t for t in terms if t not in gone] + terms_again(terms, outside)
            if rest:
                self.rest[root] = slot, rest
            else:
                self.slot[root] = slot

    def _once(self, index: int) -> bool:
        return len(self.all.uses.get(index, [])) == 1

    def _absorbed(self, index: int, inside: set[int]) -> bool:
        """Whether a sum is but a term of another sum in this pass."""
        users = self.all.uses.get(index, [])
        return (
            len(users) == 1
            and users[0] in inside
            and self.source.nodes[users[0]].op == "add"
            and self.source.widths[users[0]] == self.source.widths[index]
        )

    def _terms(self, root: int, inside: set[int], sums: list[int]) -> list[int]:
        """What a sum adds up, through the ``sums`` that are but its terms."""
        found: list[int] = []
        for arg in self.source.nodes[root].args:
            if arg in inside and self.source.nodes[arg].op == "add" and self._absorbed(arg, inside):
                sums.append(arg)
                found += self._terms(arg, inside, sums)
            else:
                found.append(arg)
        return found

    def _in_memory(self, index: int) -> bool:
        """A value of this width that is read from a tensor."""
        if self.source.widths[index] != self.made.width or self.source.nodes[index].op == "row_sum":
            return False
        leaf = self.source.leaves.get(index)
        if leaf is not None:
            return isinstance(leaf, tuple) and leaf[0] != "mask"
        return self._elsewhere(index)

    def _product(self, group: Group) -> None:
        slots, starts = [], []
        for node in group.nodes:
            slot = self.slot.get(node)
            if slot is None:
                slot = self.slot[node] = self.all.registers.new()
            assert isinstance(slot, int)
            slots.append(slot)
            starts.append(self.start.get(slot, FROM_ZERO))
            self.start[slot] = FROM_SLOT
        if group.transpose:
            uses = [((b,), o) for b, o in zip(group.blocks, group.operands, strict=True)]
        else:
            uses = [(group.blocks, group.operands[0])]
        for blocks, operand in uses:
            depth = self.source.sizes[self.source.widths[operand]]
            packing = Packing(
                group.family, group.part, blocks, group.transpose, self.all.machine.lanes
            )
            segment = (
                self.all.tensor(self._memory(operand), depth),
                self.all.weight(packing),
                depth,
            )
            self.code.products.append(Product([segment], slots, starts))
            starts = [FROM_SLOT] * len(slots)

    def _memory(self, index: int) -> Name:
        leaf = self.source.leaves.get(index)
        if isinstance(leaf, tuple):
            return leaf
        stored = self.all.stored(index)
        assert stored is not None
        return stored

    def _tensor_of(self, index: int) -> int:
        if self.source.nodes[index].op == "row_sum":
            return self.all.tensor(("sum", index), 1)
        scalar = self.source.widths[index] == SCALAR
        width = 1 if scalar else self.source.sizes[self.source.widths[index]]
        return self.all.tensor(self._memory(index), width)

    def _load(self, tensor: int) -> int:
        slot = self.all.registers.new()
        self.code.loads.append((slot, tensor))
        return slot

    def _mask(self, node: Node) -> int:
        slot = self.all.registers.new()
        number, stepped = self.all.mask(node["name"]), node["per"] == "step"
        mask = (slot, number, stepped, node["rate"], node["hit"], node["miss"])
        self.code.masks.append(mask)
        return slot

    def _emit(
        self, op: str, args: list[Slot], low: float = 0.0, high: float = 0.0, narrow: bool = False
    ) -> int:
        """An instruction; a ``narrow`` one is on one number a row."""
        out = self.all.registers.new()
        self.code.instructions.append((op, out, args, low, high, narrow))
        return out

    def _wide(self, index: int) -> Slot:
        """The slot of a value over all units, one number a row repeated."""
        slot = self._value(index)
        if isinstance(slot, tuple) or self.source.widths[index] != SCALAR:
            return slot
        if index not in self.repeated:
            self.repeated[index] = self._emit("expand", [slot])
        return self.repeated[index]

    def _value(self, index: int) -> Slot:
        """The slot of a value: made already, read from memory, or computed now."""
        if index in self.slot:
            return self.slot[index]
        node = self.source.nodes[index]
        leaf = self.source.leaves.get(index)
        if isinstance(leaf, float):
            slot: Slot = self.all.constant(leaf)
        elif isinstance(leaf, tuple) and leaf[0] == "mask":
            slot = self._mask(leaf[1])
        elif leaf is not None or node.op == "row_sum" or self._elsewhere(index):
            slot = self._load(self._tensor_of(index))
        elif index in self.rest:
            slot, terms = self.rest[index]
            for term in terms:
                slot = self._emit("add", [slot, self._wide(term)])
        elif node.op == "expand":
            slot = self._wide(node.args[0])
        else:
            narrow = self.source.widths[index] == SCALAR
            args = [(self._value if narrow else self._wide)(a) for a in node.args]
            low, high = (node["low"], node["high"]) if node.op == "clip" else (0.0, 0.0)
            slot = self._emit(node.op, args, low, high, narrow)
        self.slot[index] = slot
        return slot

    def _elsewhere(self, index: int) -> bool:
        home = self.all.home.get(index)
        return home is not None and home != self.number and index not in self.all.lazy


def terms_again(terms: Sequence[int], outside: int | None) -> list[int]:
    """What a sum has of ``outside`` beyond its start."""
    return [t for t in terms if t == outside][1:] if outside is not None else []
