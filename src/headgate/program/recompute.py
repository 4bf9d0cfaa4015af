"""Values that the way back makes again rather than finding them in memory.

Whatever is kept of every step is as large as the output. A value that follows in a few elementwise
operations from others that are kept anyway, and from parameters, costs less made again than
written and read.
"""

from __future__ import annotations

from dataclasses import replace

from headgate.program.builder import Builder
from headgate.program.differentiate import Backward
from headgate.program.program import COMPARISONS, ELEMENTWISE, SCALAR, Program

MAKES = frozenset((*ELEMENTWISE, "standard")) - frozenset(COMPARISONS)
AT_MOST = 6
"""Operations for one value."""


def recompute(program: Program, backward: Backward, needed: set[int]) -> Backward:
    """The same derivative with fewer kept values; ``needed`` are the backward nodes in use."""
    operands = {t.operand for t in backward.terms}
    kept = {backward.nodes[i]["node"] for i in needed if backward.nodes[i].op == "kept"}
    recipes = _recipes(program, kept | {o for o in operands if o is not None}, operands)
    if not recipes:
        return backward
    builder = Builder()
    moved: list[int] = []

    def value(index: int) -> int:
        """A forward value: from memory, or made again of what is there."""
        node, width = program.nodes[index], program.widths[index]
        if node.op == "constant":
            return builder.constant(node["value"])
        if index in recipes or (index not in kept and node.op in MAKES):
            return builder.copy(node, width, value)
        return builder.add("kept", (), width, node=index)

    for node, width in zip(backward.nodes, backward.widths, strict=True):
        if node.op == "kept" and node["node"] in recipes:
            moved.append(value(node["node"]))
        else:
            moved.append(builder.copy(node, width, moved.__getitem__))

    def at(index: int | None) -> int | None:
        return None if index is None else moved[index]

    return replace(
        backward,
        nodes=tuple(builder.nodes),
        widths=tuple(builder.widths),
        states=tuple(map(at, backward.states)),
        input=at(backward.input),
        terms=tuple(replace(t, delta=moved[t.delta]) for t in backward.terms),
        errors={name: at(error) for name, error in backward.errors.items()},
    )


def _recipes(program: Program, kept: set[int], operands: set[int | None]) -> set[int]:
    """Kept values that follow from the others, first those made last."""
    found: set[int] = set()
    for index in sorted(kept - operands, reverse=True):
        node = program.nodes[index]
        if node.op in MAKES and program.widths[index] != SCALAR:
            count = _operations(program, index, kept - found - {index})
            if count is not None and count <= AT_MOST:
                found.add(index)
    return found


def _operations(program: Program, index: int, given: set[int]) -> int | None:
    """How many operations make a value of given ones and parameters; None where it needs more."""
    node, total = program.nodes[index], 1
    if node.op not in MAKES:
        return None
    for arg in node.args:
        if arg in given or program.nodes[arg].op in ("parameter", "constant"):
            continue
        count = _operations(program, arg, given)
        if count is None or total + count > AT_MOST:
            return None
        total += count
    return total
