"""Other activations, and clipping of what goes into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from headgate.program.builder import Builder
from headgate.program.functions import ACTIVATIONS
from headgate.program.program import Program
from headgate.program.transform.rewrite import Moved, check_bound, fail, rewrite
from headgate.program.values import Value

SITES = ("sigmoid", "tanh", "relu")
"""Operations that count as an activation; what is composed of others is arithmetic."""


def replace_activations(
    program: Program,
    state_activation: str | None,
    gate_activation: str | None,
    activations: Mapping[str, str] | None,
) -> Program:
    """Other functions in place of every tanh, of every sigmoid, and at sites that are named.

    A named site goes before the two general options. ``log_sigmoid`` is the logarithm of a gate:
    other activations reach zero, where a logarithm is −∞, so ``gate_activation`` refuses a cell
    that has one, whose other gates can still be named.
    """
    chosen: dict[int, str] = {}
    if state_activation is not None:
        chosen |= _every(program, "state_activation", "tanh", state_activation)
    if gate_activation is not None:
        if any(node.op == "log_sigmoid" for node in program.nodes):
            fail(
                program,
                "gate_activation",
                "it has a log_sigmoid, the logarithm of a gate, and other activations reach zero, "
                "where that is -inf; name the gates to change instead: activations={...}",
            )
        chosen |= _every(program, "gate_activation", "sigmoid", gate_activation)
    for name, activation in (activations or {}).items():
        chosen[_site(program, name)] = _known(program, "activations", activation)

    def change(builder: Builder, index: int, moved: Moved) -> int | None:
        if index not in chosen:
            return None
        return apply(builder, chosen[index], moved(program.nodes[index].args[0]))

    return rewrite(program, change) if chosen else program


def clip_preactivation(program: Program, bound: float) -> Program:
    """The argument of every activation limited to [−bound, bound], as ONNX's ``clip`` does.

    The gradient passes inside and at both edges, and is zero outside.
    """
    bound = check_bound(program, "clip_preactivation", bound)
    sites = (*SITES, "log_sigmoid")
    if not any(node.op in sites for node in program.nodes):
        fail(program, "clip_preactivation", f"it has no activation ({', '.join(sites)}) to clip")

    def change(builder: Builder, index: int, moved: Moved) -> int | None:
        node = program.nodes[index]
        if node.op not in sites:
            return None
        inside = builder.add("clip", [moved(node.args[0])], low=-bound, high=bound)
        return builder.add(node.op, [inside], program.widths[index])

    return rewrite(program, change)


def apply(builder: Builder, activation: str, index: int) -> int:
    """The node of an activation of node ``index``, as the function of that name writes it."""
    return ACTIVATIONS[activation](Value(cast(Any, _Writer(builder)), index)).index


class _Writer:
    """Stands in for a Trace, so that the functions of equations append to a Builder."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder

    def constant(self, value: float) -> Value:
        return Value(cast(Any, self), self._builder.constant(value))

    def elementwise(self, op: str, operands: Sequence[Value], attrs: dict[str, Any]) -> Value:
        index = self._builder.add(op, [operand.index for operand in operands], **attrs)
        return Value(cast(Any, self), index)


def _every(program: Program, option: str, op: str, activation: str) -> dict[int, str]:
    _known(program, option, activation)
    found = {k: activation for k, node in enumerate(program.nodes) if node.op == op}
    if not found:
        fail(program, option, f"its equations have no {op} to replace")
    return found


def _known(program: Program, option: str, activation: str) -> str:
    if activation not in ACTIVATIONS:
        fail(
            program,
            option,
            f"no activation is named {activation!r}; known: {', '.join(ACTIVATIONS)}",
        )
    return activation


def _site(program: Program, name: str) -> int:
    sites = [n for n, k in program.names.items() if program.nodes[k].op in SITES]
    if name not in sites:
        what = "is no activation" if name in program.names else "does not exist"
        fail(
            program,
            "activations",
            f"the value named {name!r} {what}; activations with a name: "
            f"{', '.join(sites) or 'none'}",
        )
    return program.names[name]
