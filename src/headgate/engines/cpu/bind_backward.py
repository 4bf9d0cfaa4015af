"""Where the tensors of backpropagation through time lie, and the products after its loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headgate.engines.cpu.bind import (
    NOWHERE,
    Binder,
    Bound,
    Found,
    Room,
    Shape,
    common_names,
)
from headgate.engines.cpu.code import MAX_SEGMENTS, Packing
from headgate.engines.cpu.compile import Name
from headgate.engines.cpu.loop import Loop
from headgate.engines.cpu.sources import late, totals, wanted
from headgate.engines.evaluate import Weights
from headgate.engines.reference import OUTPUT, cotangent_name, grouped_terms


def backward_names(loop: Loop) -> list[Name]:
    states, families = loop.plan.program.states, loop.plan.program.families
    return [
        *common_names(loop),
        ("deltas",),
        ("zeros",),
        ("gradient",),
        ("cotangent", OUTPUT),
        *(("cotangent", n) for n in loop.layout.names),
        *(("last", s.name) for s in states),
        *(("first", s.name) for s in states),
        *(("family gradient", name) for name in families),
        *(("error", n) for n in loop.layout.probed),
    ]


def bind_backward(loop: Loop, shape: Shape, spend: bool, by_input: bool) -> Bound:
    """``spend``: nobody will ask for the kept values again, and error terms take their place.
    ``by_input``: the input's gradient is asked for; what is made in the loop always is."""
    return BackwardBinder(loop, shape, spend, by_input).bind()


class BackwardBinder(Binder):
    """The loop of backpropagation through time, and the products after it."""

    def __init__(self, loop: Loop, shape: Shape, spend: bool, by_input: bool) -> None:
        self.by_input = by_input
        super().__init__(loop, shape, backward_names(loop))
        self.back = self.plan.back
        self.nodes, self.widths = self.back.backward.nodes, self.back.backward.widths
        self.room = Room()
        carried = [i for i, n in wanted(self.plan, self.layout).items() if ("carried", i) in n]
        self.instead = self._take_places(carried) if spend else {}
        for index in carried:
            if index not in self.instead:
                elements = self.T * self.N * self.width_back(index)
                self.room.take(("carried", index), elements)
        for index in totals(self.plan):
            self.room.take(("total", index), self.N * self.width_back(index))
        self.packings = list(loop.backward.weights)

    def _take_places(self, carried: Sequence[int]) -> dict[int, int]:
        """Kept values, by the error terms that are written where they were."""
        read, written = self.loop.backward.last_read, self.loop.backward.written
        later = {t.operand for t in self.back.backward.terms}
        free = [i for kind, i in self.kept.at if kind == "keep" and i not in later]
        found: dict[int, int] = {}
        for index in carried:
            at = written["carried", index]
            fits = (
                i
                for i in free
                if self.width(i) == self.width_back(index) and read.get(("kept", i), 0) <= at
            )
            kept = next(fits, None)
            if kept is not None:
                found[index] = kept
                free.remove(kept)
        return found

    def bind(self) -> Bound:
        places: dict[Name, tuple[Found, int]] = {}
        for name in self.loop.backward.tensors:
            match name:
                case ("kept", index):
                    found = self.forward_value(index)
                case ("carry", state):
                    last, first = self.number["last", state], self.number["first", state]
                    places[name] = (last, 0, 0, 0), first
                    continue
                case ("cotangent", _):
                    found = self.cotangent(name)
                case ("carried", index):
                    found = self.delta(index)
                case ("total", index):
                    found = self.total(index)
                case ("gradient",) | ("error", _):
                    found = self.tail(name)[0]
                case _:
                    continue  # scratch
            places[name] = found, -1
        throughs = self.throughs() if self.by_input else []
        outers = self.outers()
        reached = self.by_input and self.back.backward.input is not None
        gradient = [("gradient",)] if reached else []
        errors = [("error", n) for n in self.layout.probed]
        tails = [self.tail(name) for name in [*gradient, *errors]]
        binding = self.finish(
            self.loop.backward, places, self.packings,
            tails=tails, zeroed=[(self.total(i), self.width_back(i)) for i in totals(self.plan)],
            throughs=throughs, outers=outers,
        )  # fmt: skip
        return Bound(binding, self.room.size)

    def tail(self, name: Name) -> tuple[Found, int]:
        if name == ("gradient",):
            width = self.sizes[self.program.input_width]
        else:
            error = self.back.backward.errors[name[1]]
            own = self.program.width_of(name[1]) if error is None else self.widths[error]
            width = self.sizes[own]
        return self.step(name, width), width

    def cotangent(self, name: Name) -> Found:
        order = (OUTPUT, *self.layout.names)
        strides = self.cotangents[order.index(name[1])]
        if strides is None:
            return self.number["zeros",], 0, 0, 0
        return (self.number[name], 0, *strides)

    def delta(self, index: int) -> Found:
        """A backward value of every step."""
        if index in self.instead:
            return self.forward_value(self.instead[index])
        node = self.nodes[index]
        if node.op == "kept":
            return self.forward_value(node["node"])
        if node.op == "cotangent":
            return self.cotangent(("cotangent", cotangent_name(node)))
        return self.step(
            ("deltas",), self.sizes[self.widths[index]], self.room.at["carried", index]
        )

    def total(self, index: int) -> Found:
        """Sums over all steps, (N, width)."""
        return self.number["deltas",], self.room.at["total", index], 0, self.width_back(index)

    def width_back(self, index: int) -> int:
        return self.sizes[self.widths[index]]

    def spans(self, terms: Sequence[tuple[slice, int]]) -> list[tuple[slice, list[int]]]:
        """Terms whose rows in the family follow each other, and that are summed alike."""
        found: list[tuple[slice, list[int]]] = []
        for rows, node in terms:
            if found:
                before, nodes = found[-1]
                alike = (("total", node) in self.room.at) == (("total", nodes[0]) in self.room.at)
                if alike and before.stop == rows.start:
                    found[-1] = slice(before.start, rows.stop), [*nodes, node]
                    continue
            found.append((rows, [node]))
        return found

    def throughs(self) -> list[Any]:
        """The input's gradient: error terms through the weights of the input."""
        machine = self.layout.machine
        width = self.sizes[self.program.input_width]
        vectors = min(machine.max_vectors, -(-width // machine.lanes))
        segments = []
        for group in late(self.plan)[0]:
            for block, operand in zip(group.blocks, group.operands, strict=True):
                packing = Packing(
                    group.family, group.part, (block,), True, vectors * machine.lanes
                )  # fmt: skip
                segments.append((self.delta(operand), self.packing(packing)))
        c = self.step(("gradient",), width)
        return [
            (segments[k : k + MAX_SEGMENTS], c, width, vectors, k > 0)
            for k in range(0, len(segments), MAX_SEGMENTS)
        ]

    def packing(self, packing: Packing) -> int:
        if packing not in self.packings:
            self.packings.append(packing)
        return self.packings.index(packing)

    def outers(self) -> list[Any]:
        """The gradient of every family: Σ delta ⊗ operand over all steps and rows."""
        weights = Weights(self.program, {}, dict(self.layout.sizes))
        again = self.loop.covered_again
        by_delta: dict[tuple[int, ...], tuple[list[Any], list[tuple[Found, bool]]]] = {}
        for (family, part, operand), uses in grouped_terms(self.back, weights).items():
            rows, base = self.rows[family], self.number["family gradient", family]
            add = family in again
            for span, nodes in self.spans([(rows[block], delta) for block, delta in uses]):
                products, sums = by_delta.setdefault(tuple(nodes), ([], []))
                if operand is None:
                    sums.append(((base, span.start, 0, 0), add))
                    continue
                columns = self.columns[family][part]
                stride = self.columns[family][-1].stop
                c = (base, span.start * stride + columns.start, 0, 0)
                b = self.forward_value(operand)
                products.append((b, c, stride, columns.stop - columns.start, add))
        found = []
        for nodes, (products, sums) in by_delta.items():
            per_row = ("total", nodes[0]) in self.room.at
            place = self.total if per_row else self.delta
            a = [(place(node), self.width_back(node)) for node in nodes]
            (first, add), *others = sums or [(NOWHERE, False)]
            found.append((a, products, first, add, per_row))
            found += [(a, [], place, adds, per_row) for place, adds in others]
        return found
