"""Lowering: the few operations that hold several are written out before differentiation.

A layer normalisation becomes two sums over the row and elementwise arithmetic; a product with
values side by side becomes one product for each, so that the input's part may leave the time loop.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from headgate.program.builder import Builder
from headgate.program.program import Node, Program


@lru_cache(maxsize=256)
def lower(program: Program) -> Program:
    """The same equations in primitive operations: names, states and families stay."""
    builder = Builder()
    moved: list[int] = []
    for node, width in zip(program.nodes, program.widths, strict=True):
        args = [moved[a] for a in node.args]
        if node.op == "layer_norm":
            moved.append(_layer_norm(builder, args, node))
        elif node.op == "product":
            moved.append(_product(builder, args, node, width))
        else:
            moved.append(builder.copy(node, width, moved.__getitem__))
    return replace(
        program,
        nodes=tuple(builder.nodes),
        widths=tuple(builder.widths),
        states=tuple(replace(state, next=moved[state.next]) for state in program.states),
        names={name: moved[index] for name, index in program.names.items()},
    )


def _layer_norm(builder: Builder, args: list[int], node: Node) -> int:
    count = builder.add("count", (), "1", widths=tuple(builder.widths[a] for a in args))
    mean = builder.add("div", [builder.add("row_sum", args, "1"), count])
    deviations = [builder.add("sub", [a, mean]) for a in args]
    squares = [builder.add("mul", [d, d]) for d in deviations]
    variance = builder.add("div", [builder.add("row_sum", squares, "1"), count])
    shifted = builder.add("add", [variance, builder.constant(node["eps"])])
    return builder.add("mul", [deviations[node["part"]], builder.add("rsqrt", [shifted])])


def _product(builder: Builder, args: list[int], node: Node, width: str) -> int:
    total = None
    for part, arg in enumerate(args):
        attrs = {"part": part} | dict(node.attrs)
        product = builder.add("product", [arg], width, **attrs)
        total = product if total is None else builder.add("add", [total, product])
    assert total is not None
    return total
