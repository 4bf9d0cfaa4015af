"""Lowering: the few operations that hold several are written out before differentiation.

A layer normalisation becomes two sums over the row and elementwise arithmetic, at its end
standard(v, mean, r) = (v − mean) · r, which has the derivative of the whole; a product with
values side by side becomes one product for each, so that the input's part may leave the time loop.
Then every sum is put in one order: what is the same at every step, products of the input, what else
no state is part of, products of states, the rest. So it makes no difference to a bit of the result
whether the input's part of a sum is taken before the loop or inside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from headgate.program.builder import Builder
from headgate.program.program import Node, Program
from headgate.program.transform.rewrite import assemble


@lru_cache(maxsize=256)
def lower(program: Program) -> Program:
    """The same equations in primitive operations: names, states and families stay."""
    return _order_sums(_write_out(program))


def _write_out(program: Program) -> Program:
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
    return assemble(program, builder, moved.__getitem__)


def _order_sums(program: Program) -> Program:
    nodes, widths = program.nodes, program.widths
    rank = _ranks(nodes)
    held = {state.next for state in program.states} | set(program.names.values())
    uses = [0] * len(nodes)
    for node in nodes:
        for arg in node.args:
            uses[arg] += 1

    def terms(index: int) -> list[int]:
        found: list[int] = []
        for arg in nodes[index].args:
            inner = nodes[arg].op == "add" and uses[arg] == 1 and arg not in held
            found += terms(arg) if inner and widths[arg] == widths[index] else [arg]
        return found

    builder = Builder()
    moved: list[int] = []
    for index, (node, width) in enumerate(zip(nodes, widths, strict=True)):
        if node.op != "add":
            moved.append(builder.copy(node, width, moved.__getitem__))
            continue
        first, *others = sorted(terms(index), key=rank.__getitem__)
        total = moved[first]
        for other in others:
            total = builder.add("add", [total, moved[other]])
        if builder.widths[total] != width:
            total = builder.copy(node, width, moved.__getitem__)
        moved.append(total)
    return assemble(program, builder, moved.__getitem__)


def _ranks(nodes: Sequence[Node]) -> list[int]:
    """The place of each node's value in a sum."""
    depends: list[tuple[bool, bool]] = []  # on the input or a mask, on a state
    found = []
    for node in nodes:
        of_input = node.op in ("input", "mask") or any(depends[a][0] for a in node.args)
        of_state = node.op == "state" or any(depends[a][1] for a in node.args)
        depends.append((of_input, of_state))
        other = node.op != "product"
        found.append(3 + other if of_state else 1 + other if of_input else 0)
    return found


def _layer_norm(builder: Builder, args: list[int], node: Node) -> int:
    count = builder.add("count", (), "1", widths=tuple(builder.widths[a] for a in args))
    mean = builder.add("div", [builder.add("row_sum", args, "1"), count])
    deviations = [builder.add("sub", [a, mean]) for a in args]
    squares = [builder.add("mul", [d, d]) for d in deviations]
    variance = builder.add("div", [builder.add("row_sum", squares, "1"), count])
    shifted = builder.add("add", [variance, builder.constant(node["eps"])])
    return builder.add("standard", [args[node["part"]], mean, builder.add("rsqrt", [shifted])])


def _product(builder: Builder, args: list[int], node: Node, width: str) -> int:
    total = None
    for part, arg in enumerate(args):
        attrs = {"part": part} | dict(node.attrs)
        product = builder.add("product", [arg], width, **attrs)
        total = product if total is None else builder.add("add", [total, product])
    assert total is not None
    return total
