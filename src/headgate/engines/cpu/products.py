"""Products over all steps at once, after the time loop: gradients of weights and of the input.

Each is one native product in a fixed order of steps and rows, so its bits do not depend on the
number of threads. Rows past a ragged batch's ends are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headgate import native
from headgate.engines.cpu.code import Packing
from headgate.engines.cpu.weights import instruction_set, machine_for, packed
from headgate.engines.evaluate import Values, Weights, operation
from headgate.engines.reference import grouped_terms
from headgate.program.schedule import BackwardPlan, Group


@dataclass(frozen=True)
class Rows:
    """A tensor (T, N, width) as a matrix (T · N, width) whose rows are evenly apart."""

    tensor: Tensor

    @classmethod
    def of(cls, tensor: Tensor) -> Rows:
        """The tensor itself where its memory allows it, else a copy."""
        steps, rows, _ = tensor.shape
        even = 1 in (steps, rows) or tensor.stride(0) == rows * tensor.stride(1)
        return cls(tensor if even and tensor.stride(2) == 1 else tensor.contiguous())

    @property
    def stride(self) -> int:
        """From one row to the next; of a single row of the batch, from step to step."""
        return self.tensor.stride(0 if self.tensor.shape[1] == 1 else 1)


@dataclass(frozen=True)
class Joined:
    """Columns of a buffer (T, N, width) in which error terms lie side by side."""

    buffer: Tensor
    start: int
    stop: int

    def meets(self, other: Joined) -> bool:
        return self.buffer is other.buffer and self.stop == other.start


class AfterLoop:
    """What one call does after the loop of backpropagation through time."""

    def __init__(
        self,
        weights: Weights,
        sizes: Mapping[str, int],
        active: Tensor | None,
        joined: Mapping[int, Joined],
    ) -> None:
        self.weights, self.sizes, self.joined = weights, sizes, joined
        self.valid = None if active is None else active.flatten().nonzero().flatten()

    def run(self, back: BackwardPlan, values: Values) -> None:
        """Compute the nodes after the loop; error terms of every step are in ``values``."""
        nodes, widths = back.backward.nodes, back.backward.widths
        for phase in back.after:
            for group in phase.products:
                like = values[group.operands[0]]
                width = self.sizes[widths[group.nodes[0]]]
                total = like.new_zeros(*like.shape[:2], width)
                for blocks, delta in self._adjacent(group, values):
                    self._through(group, blocks, delta, total)
                values[group.nodes[0]] = total
            for index in phase.values:
                node = nodes[index]
                if index not in values:
                    values[index] = operation(node)(*[values[a] for a in node.args])

    def gradients(
        self, back: BackwardPlan, values: Values, kept: Values
    ) -> dict[str, Tensor | None]:
        """The gradient of every family: Σ delta ⊗ operand over all steps and rows."""
        found: dict[str, Tensor | None] = dict.fromkeys(self.weights.families)
        for (family, part, operand), uses in grouped_terms(back, self.weights).items():
            total = found[family]
            if total is None:
                total = found[family] = torch.zeros_like(self.weights.families[family])
            terms = [(self.weights.rows[family][block], delta) for block, delta in uses]
            inputs = None if operand is None else kept[operand]
            for rows, delta in self._side_by_side(terms, values):
                if inputs is None:
                    total[rows] += delta.sum((0, 1))
                else:
                    columns = self.weights.columns[family][part]
                    self._outer(delta, inputs, total[rows, columns])
        return found

    def _adjacent(self, group: Group, values: Values) -> list[tuple[tuple[str, ...], Tensor]]:
        rows = self.weights.rows[group.family]
        terms = [(rows[b], o) for b, o in zip(group.blocks, group.operands, strict=True)]
        return [
            (tuple(b for b in group.blocks if span.start <= rows[b].start < span.stop), delta)
            for span, delta in self._side_by_side(terms, values)
        ]

    def _side_by_side(
        self, terms: Sequence[tuple[slice, int]], values: Values
    ) -> list[tuple[slice, Tensor]]:
        """Terms joined where both their rows in the family and their memory follow each other."""
        spans: list[tuple[slice, int, Joined | None]] = []
        for rows, node in terms:
            place = self.joined.get(node)
            if spans and place is not None:
                before, first, so_far = spans[-1]
                if so_far is not None and before.stop == rows.start and so_far.meets(place):
                    whole = Joined(place.buffer, so_far.start, place.stop)
                    spans[-1] = (slice(before.start, rows.stop), first, whole)
                    continue
            spans.append((rows, node, place))
        return [
            (rows, values[node] if at is None else at.buffer[..., at.start : at.stop])
            for rows, node, at in spans
        ]

    def _through(self, group: Group, blocks: tuple[str, ...], delta: Tensor, total: Tensor) -> None:
        """total += delta · the blocks' weights."""
        machine = machine_for(delta.dtype)
        vectors = min(machine.max_vectors, -(-total.shape[-1] // machine.lanes))
        packing = Packing(group.family, group.part, blocks, True, vectors * machine.lanes)
        matrix = packed(self.weights, packing)
        given = Rows.of(delta)
        self._multiply(
            False, given, (matrix, 0), total, total.shape[-1], given.tensor.shape[-1], vectors
        )

    def _outer(self, delta: Tensor, inputs: Tensor, total: Tensor) -> None:
        """total += deltaᵀ · inputs, over all steps and rows."""
        wide = inputs.expand(*delta.shape[:2], -1)
        a, b = Rows.of(delta), Rows.of(wide)
        lanes = machine_for(delta.dtype).lanes
        if total.shape[1] >= lanes or total.shape[0] < lanes:
            self._multiply(True, a, (b.tensor, b.stride), total, total.shape[1], total.shape[0], 0)
        else:  # few columns: the long side belongs in the vectors
            turned = total.new_zeros(total.shape[::-1])
            self._multiply(True, b, (a.tensor, a.stride), turned, total.shape[0], total.shape[1], 0)
            total += turned.T

    def _multiply(
        self,
        outer: bool,
        a: Rows,
        b: tuple[Tensor, int],
        c: Tensor,
        width: int,
        height: int,
        vectors: int,
    ) -> None:
        steps, rows = a.tensor.shape[:2]
        valid = self.valid
        native.extension.multiply(  # type: ignore[union-attr]
            instruction_set()[0],
            outer,
            c.dtype == torch.float64,
            a.tensor.data_ptr(),
            a.stride,
            b[0].data_ptr(),
            b[1],
            c.data_ptr(),
            c.stride(-2),
            0 if valid is None else valid.data_ptr(),
            steps * rows if valid is None else len(valid),
            steps * rows,
            height,
            width,
            vectors,
            torch.get_num_threads(),
        )
