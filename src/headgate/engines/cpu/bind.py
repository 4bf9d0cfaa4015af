"""Where the tensors of a compiled loop lie, for given numbers of steps and rows.

Every memory of a call has a number; a place is such a number, an offset and two strides. So what is
worked out here holds for all calls of one shape, whose addresses alone differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headgate import native
from headgate.engines.cpu.code import Packing
from headgate.engines.cpu.compile import Name
from headgate.engines.cpu.loop import Compiled, Loop
from headgate.engines.cpu.sources import fixed_nodes, histories
from headgate.engines.cpu.weights import packed
from headgate.engines.evaluate import cuts

Found = tuple[int, int, int, int]
"""Number of the memory, offset, stride of time, stride of rows; in elements."""

NOWHERE: Found = (-1, 0, 0, 0)
Strides = tuple[int, int]
ALIGNED = 16
APART = 144
"""Elements between sections, lest all of them fall on the same lines of a cache."""


Shape = tuple[int, int, bool, bool, Strides, tuple[Strides | None, ...]]
"""What of a call its places depend on: steps, rows, reverse, whether its output lies beside the
other direction's, the strides of x, and backward those of the cotangents of the output and the
records (None where there is none)."""


def common_names(loop: Loop) -> list[Name]:
    """The memories of both ways, in the order of their addresses."""
    program = loop.plan.program
    return [
        ("x",),
        ("output",),
        ("kept",),
        *(("state", s.name) for s in program.states),
        *(("family", name) for name in program.families),
        *(("fixed", index) for index in fixed_nodes(loop.plan)),
    ]


def forward_names(loop: Loop) -> list[Name]:
    finals: list[Name] = [("final", s.name) for s in loop.plan.program.states]
    return [*common_names(loop), *finals, *(("record", n) for n in loop.layout.names)]


@dataclass
class Room:
    """Sections of one memory."""

    size: int = 0
    at: dict[Any, int] = field(default_factory=dict)

    def take(self, name: Any, elements: int) -> None:
        self.at[name] = self.size
        self.size += -(-elements // ALIGNED) * ALIGNED + APART


@dataclass(frozen=True)
class Bound:
    """A native Binding and the elements of the workspace that it needs."""

    binding: Any
    workspace: int


class Binder:
    """What both ways share."""

    def __init__(self, loop: Loop, shape: Shape, names: Sequence[Name]) -> None:
        self.loop = loop
        self.T, self.N, self.reverse, self.beside, self.x, self.cotangents = shape
        self.plan, self.layout = loop.plan, loop.layout
        self.program, self.sizes = loop.plan.program, loop.sizes
        self.number = {name: k for k, name in enumerate(names)}
        self.rows, self.columns = cuts(self.program, loop.layout.sizes)
        self.remembered = histories(self.plan, self.layout)
        self.output_state = self.program.states[0].name
        self.kept = Room()
        for name, (_, new) in self.remembered.items():
            if name != self.output_state:
                self.kept.take(("history", name), (self.T + 1) * self.N * self.width(new))
        for index in self.keeps():
            self.kept.take(("keep", index), self.T * self.N * self.width(index))
        if self.layout.kept:
            self.kept.take(("ranks", 0), self.N * (2 if self.layout.double else 4))

    def width(self, index: int) -> int:
        return self.sizes[self.program.widths[index]]

    def keeps(self) -> list[int]:
        """Forward values that are kept in memory of their own."""
        stored = (name for names in self.loop.forward_stores.values() for name in names)
        return [name[1] for name in stored if name[0] == "keep"]

    def step(self, base: Name, width: int, offset: int = 0) -> Found:
        """A place (T, N, width)."""
        return self.number[base], offset, self.N * width, width

    def output(self) -> Found:
        """Where no history holds it. Beside what runs forward lies what runs in reverse."""
        width = self.sizes[self.program.output_width]
        row = 2 * width if self.beside else width
        at = width if self.beside and self.reverse else 0
        return self.number["output",], at, self.N * row, row

    def history(self, name: str, offset: int) -> Found:
        """The values of a state at T + 1 times, from time ``offset`` on."""
        width = self.width(self.remembered[name][1])
        at = offset * self.N * width
        if name == self.output_state:
            return self.step(("output",), width, at)
        return self.step(("kept",), width, self.kept.at["history", name] + at)

    def past(self, name: str) -> Found:
        return self.history(name, 1 if self.reverse else 0)

    def present(self, name: str) -> Found:
        return self.history(name, 0 if self.reverse else 1)

    def value(self, index: int) -> Found:
        """A parameter, or what torch computes ahead: the same at every step and row."""
        node = self.program.nodes[index]
        if node.op != "parameter":
            return self.number["fixed", index], 0, 0, 0
        rows = self.rows[node["family"]][node["block"]]
        return self.number["family", node["family"]], rows.start, 0, 0

    def forward_value(self, index: int) -> Found:
        """A value of the forward run that the way back reads."""
        node = self.program.nodes[index]
        if node.op == "input":
            return (self.number["x",], 0, *self.x)
        for name, (old, new) in self.remembered.items():
            if index in (old, new):
                return self.past(name) if index == old else self.present(name)
        if ("keep", index) in self.kept.at:
            offset = self.kept.at["keep", index]
            return self.step(("kept",), self.width(index), offset)
        if index == self.program.states[0].next and ("output",) in self.loop.forward_stores[index]:
            return self.output()
        return self.value(index)

    def ranks(self) -> Found:
        """Where a ragged call notes the order of its rows, and their threads, for the way back."""
        at = self.kept.at.get(("ranks", 0))
        return NOWHERE if at is None else (self.number["kept",], at, 0, 0)

    def finish(
        self,
        compiled: Compiled,
        tensors: Mapping[Name, tuple[Found, int]],
        packings: Sequence[Packing],
        **others: Any,
    ) -> Any:
        number = self.number
        made = [
            packed(p, number["family", p.family], self.program, dict(self.layout.sizes))
            for p in packings
        ]
        lists = ("histories", "tails", "zeroed", "outers", "throughs")
        arguments = dict.fromkeys(lists, ()) | others
        return native.extension.Binding(  # type: ignore[union-attr]
            plan=compiled.plan,
            is_double=self.layout.double,
            reverse=self.reverse,
            steps=self.T,
            rows=self.N,
            tensors=[tensors.get(name, (NOWHERE, -1)) for name in compiled.tensors],
            packings=made,
            own=[number[name] for name in (("kept",), ("deltas",)) if name in number],
            ranks=self.ranks(),
            **arguments,
        )


def bind_forward(loop: Loop, shape: Shape) -> Bound:
    b = Binder(loop, shape, forward_names(loop))
    number, program = b.number, b.program
    places: dict[Name, tuple[Found, int]] = {}
    tails = []
    for name in loop.forward.tensors:
        match name:
            case ("x",):
                found: Found = (number["x",], 0, *b.x)
            case ("output",):
                found = b.output()
                tails.append((found, b.sizes[program.output_width]))
            case ("past", state):
                found = b.past(state)
            case ("history", state):
                found = b.present(state)
                if state == b.output_state:
                    tails.append((found, b.sizes[program.output_width]))
            case ("state", state):
                places[name] = (number[name], 0, 0, 0), number["final", state]
                continue
            case ("keep", index):
                found = b.forward_value(index)
            case ("record", recorded):
                width = b.sizes[program.width_of(recorded)]
                found = b.step(name, width)
                tails.append((found, width))
            case ("value", index):
                found = b.value(index)
            case _:
                continue  # scratch
        places[name] = found, -1
    past = [
        (b.history(name, 0), b.width(new), number["state", name], number["final", name])
        for name, (_, new) in b.remembered.items()
    ]
    binding = b.finish(
        loop.forward, places, loop.forward.weights, histories=past, tails=tails
    )  # fmt: skip
    return Bound(binding, b.kept.size)
