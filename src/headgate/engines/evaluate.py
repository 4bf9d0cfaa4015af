"""Torch operations for the nodes of a Program, and the running of a Plan's phases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from headgate.program.program import LEAVES, Node, Program
from headgate.program.schedule import Group, Phase

Values = dict[int, Tensor]

_OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "neg": torch.neg,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "exp": torch.exp,
    "log": torch.log,
    "log_sigmoid": F.logsigmoid,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "abs": torch.abs,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "equal": torch.eq,
    "where": torch.where,
    "expand": torch.Tensor.expand_as,
    "standard": lambda value, mean, scale: (value - mean) * scale,
}


def operation(node: Node) -> Callable[..., Tensor]:
    """The torch function of a node that is no leaf and no product."""
    if node.op == "clip":
        low, high = node["low"], node["high"]
        return lambda v: v.clamp(low, high)
    if node.op == "row_sum":
        return _row_sum
    return _OPERATIONS[node.op]


def _row_sum(*values: Tensor) -> Tensor:
    total = values[0].sum(-1, keepdim=True)
    for value in values[1:]:
        total = total + value.sum(-1, keepdim=True)
    return total


def infer_sizes(
    program: Program, x: Tensor, states: Sequence[Tensor], families: Mapping[str, Tensor]
) -> dict[str, int]:
    """The number of every width, read off the tensors; the shapes of all are checked by it.

    Raises ValueError, naming the tensor, where a shape does not fit the Program.
    """
    sizes = {state.width: s.shape[-1] for state, s in zip(program.states, states, strict=True)}
    sizes.setdefault(program.input_width, x.shape[-1])
    for family in program.families.values():
        for axis, widths in enumerate(([w for _, w in family.blocks], family.columns)):
            unknown = {w for w in widths if w not in sizes}
            if len(unknown) == 1:
                (width,) = unknown
                known = sum(sizes.get(w, 0) for w in widths)
                count = sum(w == width for w in widths)
                sizes[width] = (families[family.name].shape[axis] - known) // count
    for name in program.families:
        expected = program.shape(name, sizes)
        if tuple(families[name].shape) != expected:
            raise ValueError(
                f"running cell '{program.name}': family {name} must have shape {expected}, "
                f"got {tuple(families[name].shape)}"
            )
    if x.shape[-1] != sizes[program.input_width]:
        raise ValueError(
            f"running cell '{program.name}': the input must have "
            f"{sizes[program.input_width]} columns, got {x.shape[-1]}"
        )
    return sizes


@lru_cache(maxsize=256)
def cuts(
    program: Program, given: tuple[tuple[str, int], ...]
) -> tuple[dict[str, dict[str, slice]], dict[str, list[slice]]]:
    """For each family the rows of every block, and the columns of every operand."""
    sizes = dict(given)
    rows = {name: program.rows(name, sizes) for name in program.families}
    columns: dict[str, list[slice]] = {}
    for name, family in program.families.items():
        ends = list(accumulate((sizes[width] for width in family.columns), initial=0))
        columns[name] = [slice(*pair) for pair in pairwise(ends)]
    return rows, columns


class Weights:
    """The parameter tensors of one layer, cut into what each product needs."""

    def __init__(
        self, program: Program, families: Mapping[str, Tensor], sizes: Mapping[str, int]
    ) -> None:
        self.families = families
        self.rows, self.columns = cuts(program, tuple(sizes.items()))
        self._cut: dict[tuple[str, int, tuple[str, ...]], Tensor] = {}

    def vector(self, family: str, block: str) -> Tensor:
        return self.families[family][self.rows[family][block]]

    def matrix(self, family: str, part: int, blocks: tuple[str, ...]) -> Tensor:
        """The listed blocks' rows, under each other, in the columns of one operand."""
        key = (family, part, blocks)
        if key not in self._cut:
            whole, rows = self.families[family], self.rows[family]
            if blocks != tuple(rows):
                whole = torch.cat([whole[rows[block]] for block in blocks])
            if len(self.columns[family]) > 1:
                whole = whole[:, self.columns[family][part]]
            self._cut[key] = whole
        return self._cut[key]

    def split(self, group: Group, stacked: Tensor) -> tuple[Tensor, ...]:
        rows = self.rows[group.family]
        return stacked.split([rows[b].stop - rows[b].start for b in group.blocks], dim=-1)


class Runner:
    """Runs phases over a table of values; made once a call, so that a step only does arithmetic."""

    def __init__(self, nodes: Sequence[Node], phases: Sequence[Phase], weights: Weights) -> None:
        self.weights = weights
        self.phases = [(phase.products, _instructions(nodes, phase)) for phase in phases]
        self.matrices = {
            g: weights.matrix(g.family, g.part, g.blocks) for p in phases for g in p.products
        }

    def __call__(self, values: Values, add: Mapping[int, Tensor] | None = None) -> None:
        """Compute every value of the phases; ``add`` is added to the value of its node."""
        for products, rest in self.phases:
            for group in products:
                self._product(group, values)
                if add:
                    for node in group.nodes:
                        if node in add:
                            values[node] = values[node] + add[node]
            for index, function, args in rest:
                value = function(*[values[a] for a in args])
                values[index] = value + add[index] if add and index in add else value

    def _product(self, group: Group, values: Values) -> None:
        if group.transpose:
            deltas = [values[operand] for operand in group.operands]
            delta = deltas[0] if len(deltas) == 1 else torch.cat(deltas, -1)
            values[group.nodes[0]] = torch.matmul(delta, self.matrices[group])
            return
        stacked = F.linear(values[group.operands[0]], self.matrices[group])
        parts = self.weights.split(group, stacked) if len(group.nodes) > 1 else (stacked,)
        values.update(zip(group.nodes, parts, strict=True))


def _instructions(
    nodes: Sequence[Node], phase: Phase
) -> list[tuple[int, Callable[..., Tensor], tuple[int, ...]]]:
    return [(i, operation(nodes[i]), nodes[i].args) for i in phase.values if _runs(nodes[i])]


def _runs(node: Node) -> bool:
    return node.op not in (*LEAVES, "count", "kept", "cotangent")


def leaf_constants(nodes: Sequence[Node], like: Tensor, sizes: Mapping[str, int]) -> Values:
    """The constants and counts as tensors without dimensions, like ``like`` in dtype and device."""
    values: Values = {}
    for index, node in enumerate(nodes):
        if node.op == "constant":
            values[index] = like.new_full((), node["value"])
        elif node.op == "count":
            values[index] = like.new_full((), sum(sizes[width] for width in node["widths"]))
    return values
