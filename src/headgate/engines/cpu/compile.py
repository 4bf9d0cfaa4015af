"""From the phases of a Plan to the instructions of the compiled time loop.

A phase of the Plan becomes one pass over the units for each width in it. Inside a pass values live
in slots, a tile of rows and units each; a value that another pass needs goes through memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headgate.engines.cpu.code import Code, Packing
from headgate.engines.cpu.passes import PassCompiler, Registers
from headgate.program.program import SCALAR, Node
from headgate.program.schedule import Group, Phase

KINDS = ("step", "row", "vector", "state", "chunk", "partial", "chunk_partial")
LEAVES = ("input", "state", "parameter", "constant", "count", "mask", "kept", "cotangent")

BLOCK = 49
"""Vectors of a slot: eight tiles of six, and one lest slots fall on the same lines of a cache."""

Name = tuple[Any, ...]


@dataclass(frozen=True)
class Machine:
    """An instruction set: lanes of a vector, and the vectors a product's tile may span."""

    isa: str
    lanes: int
    max_vectors: int


@dataclass
class Pass:
    """One sweep over the units of one width."""

    width: str
    groups: list[Group] = field(default_factory=list)
    values: list[int] = field(default_factory=list)
    sums: list[int] = field(default_factory=list)
    stores: list[tuple[int, Name]] = field(default_factory=list)


@dataclass
class Source:
    """What is compiled: nodes in phases, where leaves lie, and what must reach memory.

    ``leaves`` names a leaf node's tensor, or gives a number. ``stores`` lists the tensors that a
    node is written to. Nodes in ``lazy`` are computed again wherever they are needed.
    """

    nodes: Sequence[Node]
    widths: Sequence[str]
    sizes: Mapping[str, int]
    before: Sequence[Phase]
    loop: Sequence[Phase]
    leaves: Mapping[int, Name | float]
    kinds: Mapping[Name, str]
    stores: Mapping[int, Sequence[Name]]
    lazy: frozenset[int]
    backward: bool = False


class Compiler:
    """Turns a Source into the arguments of the compiled Plan, tensors and weights by name."""

    def __init__(self, source: Source, machine: Machine) -> None:
        self.source, self.machine = source, machine
        self.tensors: dict[Name, tuple[str, int, int]] = {}
        self.weights: dict[Packing, int] = {}
        self.constants: dict[float, int] = {}
        self.masks: dict[str, int] = {}
        self.home: dict[int, int] = {}
        self.lazy = source.lazy | _scalars(source)
        self.uses = _count_uses(source)
        before = self._cut(source.before, 0)
        loop = self._cut(source.loop, len(before))
        self.passes = before + loop
        self._first_loop = len(before)
        self._place_stores()
        self.registers = Registers()
        self._compiled = [self._compile(number) for number in range(len(self.passes))]
        slots = max((p.slots for p in self._compiled), default=0)
        self._fixed = {value: slots + k for k, value in enumerate(self.constants)}
        slots += len(self.constants)
        lasting = sorted({t for p in self._compiled for s, t in p.loads if s in p.lasting})
        self._lasting = {tensor: slots + k for k, tensor in enumerate(lasting)}
        self.slots = slots + len(lasting)
        self.slot_size = machine.lanes * BLOCK

    def arguments(self) -> dict[str, Any]:
        """What ``_native.Plan`` takes."""
        compiled = [p.finish(self._fixed, self._lasting) for p in self._compiled]
        return {
            "tensors": [(KINDS.index(k), w, n) for k, w, n in self.tensors.values()],
            "before": compiled[: self._first_loop],
            "loop": compiled[self._first_loop :],
            "constants": [(slot, value) for value, slot in self._fixed.items()],
            "slots": self.slots,
            "slot_size": self.slot_size,
            "backward": self.source.backward,
        }

    def _cut(self, phases: Sequence[Phase], start: int) -> list[Pass]:
        """Phases cut by width; ``home`` learns in which pass each value is made."""
        source, passes = self.source, []
        for phase in phases:
            here: dict[str, Pass] = {}

            def at(width: str, here: dict[str, Pass] = here) -> Pass:
                if width not in here:
                    here[width] = Pass(width)
                return here[width]

            sums = [i for i in phase.values if source.nodes[i].op == "row_sum"]
            for index in sums:
                passes += self._add_sum(index, passes, start)
            for group in phase.products:
                at(source.widths[group.nodes[0]]).groups.append(group)
            for index in phase.values:
                node = source.nodes[index]
                if node.op not in (*LEAVES, "row_sum") and index not in self.lazy:
                    at(source.widths[index]).values.append(index)
            for made in here.values():
                number = start + len(passes)
                for index in (*made.values, *(n for g in made.groups for n in g.nodes)):
                    self.home[index] = number
                passes.append(made)
        return passes

    def _add_sum(self, index: int, passes: list[Pass], start: int) -> list[Pass]:
        """A row's sum is taken at the end of the pass that makes the last of its values, or in a
        new one."""
        args = self.source.nodes[index].args
        width = self.source.widths[args[0]]
        last = max(self.home.get(a, -1) for a in args)
        if last >= start and passes[last - start].width == width:
            passes[last - start].sums.append(index)
            self.home[index] = last
            return []
        new = Pass(width, sums=[index])
        self.home[index] = start + len(passes)
        return [new]

    def _place_stores(self) -> None:
        for index, names in self.source.stores.items():
            home = self._store_in(index)
            self.passes[home].stores += [(index, name) for name in names]
        for number, made in enumerate(self.passes):
            for index in self._read_by(made):
                home = self.home.get(index)
                if home is None or home == number or index in self.lazy:
                    continue
                if self.source.nodes[index].op != "row_sum" and not self.stored(index):
                    self.passes[home].stores.append((index, ("scratch", index)))
            for group in made.groups:
                for operand in group.operands:
                    if operand not in self.source.leaves and not self.stored(operand):
                        home = self.home.get(operand, number)
                        self.passes[home].stores.append((operand, ("scratch", operand)))

    def _store_in(self, index: int) -> int:
        """The pass that writes a value: the one that makes it, or the last one of its width."""
        home = self.home.get(index)
        width = self.source.widths[index]
        if home is not None and index not in self.lazy and width != SCALAR:
            return home
        if width == SCALAR:  # where it is made anyway
            for number in range(self._first_loop, len(self.passes)):
                if index in self._read_by(self.passes[number]):
                    return number
        same = [k for k, made in enumerate(self.passes) if made.width == width]
        if not same or same[-1] < self._first_loop:
            self.passes.append(Pass(width))
            same = [len(self.passes) - 1]
        return same[-1]

    def stored(self, index: int) -> Name | None:
        """A tensor of this step from which the value can be read back."""
        home = self.home.get(index)
        if home is None:
            return None
        for stored, name in self.passes[home].stores:
            if stored == index and name[0] not in ("state", "total"):
                return name
        return None

    def _read_by(self, made: Pass) -> set[int]:
        """Values that a pass reads from elsewhere, through lazy ones."""
        found: set[int] = set()
        stack = [a for i in (*made.values, *made.sums) for a in self.source.nodes[i].args]
        stack += [i for i, _ in made.stores]
        while stack:
            index = stack.pop()
            if index in found or index in self.source.leaves:
                continue
            found.add(index)
            if index in self.lazy:
                stack += self.source.nodes[index].args
        return found

    def _compile(self, number: int) -> Code:
        return PassCompiler(self, number).run()

    def last_read(self) -> dict[Name, int]:
        """The last pass that reads each tensor."""
        names, found = list(self.tensors), {}
        for number, code in enumerate(self._compiled):
            read = [t for _, t in code.loads]
            for product in code.products:
                read += [operand for operand, *_ in product.segments]
                read += [start for start in product.starts if start >= 0]
            found.update({names[t]: number for t in read})
        return found

    def written(self) -> dict[Name, int]:
        """The pass that writes each tensor."""
        names, found = list(self.tensors), {}
        for number, code in enumerate(self._compiled):
            found.update({names[t]: number for _, t in code.stores})
        return found

    def fixed_tensors(self) -> set[int]:
        """Tensors that are the same for every row and step."""
        vectors = enumerate(self.tensors.values())
        return {k for k, (kind, width, _) in vectors if kind == "vector" and width > 1}

    def tensor(self, name: Name, width: int, panels: int = 1) -> int:
        if name not in self.tensors:
            self.tensors[name] = (self._kind(name), width, panels)
        return list(self.tensors).index(name)

    def _kind(self, name: Name) -> str:
        if name[0] == "scratch":
            return "chunk" if self.home[name[1]] < self._first_loop else "row"
        if name[0] == "sum":
            return "chunk_partial" if self.home[name[1]] < self._first_loop else "partial"
        return self.source.kinds[name]

    def weight(self, packing: Packing) -> int:
        return self.weights.setdefault(packing, len(self.weights))

    def mask(self, name: str) -> int:
        return self.masks.setdefault(name, len(self.masks))

    def constant(self, value: float) -> tuple[str, float]:
        self.constants.setdefault(value, 0)
        return ("constant", value)


def _scalars(source: Source) -> frozenset[int]:
    """Values with one number a row: cheaper computed again than kept."""
    return frozenset(
        i
        for i, node in enumerate(source.nodes)
        if source.widths[i] == SCALAR and node.op not in (*LEAVES, "row_sum")
    )


def _count_uses(source: Source) -> dict[int, list[int]]:
    """Who uses each node; what is stored or read from another pass counts as used twice."""
    uses: dict[int, list[int]] = {}
    for phase in (*source.before, *source.loop):
        for index in phase.values:
            for arg in source.nodes[index].args:
                uses.setdefault(arg, []).append(index)
        for group in phase.products:
            for operand in group.operands:
                uses.setdefault(operand, []).extend([-1, -1])
    for index in source.stores:
        uses.setdefault(index, []).extend([-1, -1])
    return uses
