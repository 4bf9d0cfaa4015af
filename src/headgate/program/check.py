"""Whether a Program read from outside is one: every engine may rely on what is checked here."""

from __future__ import annotations

from headgate.program.errors import ProgramError
from headgate.program.program import (
    BINARY,
    COMPARISONS,
    FORWARD_OPS,
    LEAVES,
    SCALAR,
    UNARY,
    Node,
    Program,
)

VALUES = (
    dict.fromkeys(LEAVES, 0)
    | dict.fromkeys((*UNARY, "clip"), 1)
    | dict.fromkeys((*BINARY, *COMPARISONS), 2)
    | {"where": 3}
)
"""How many values an operation takes; a product and a layer_norm take one or more."""

NUMBER = (int, float)
ATTRIBUTES = {
    "state": {"name": str},
    "parameter": {"family": str, "block": str},
    "product": {"family": str, "block": str},
    "constant": {"value": NUMBER},
    "mask": {"name": str, "rate": NUMBER, "hit": NUMBER, "miss": NUMBER, "per": str},
    "clip": {"low": NUMBER, "high": NUMBER},
    "layer_norm": {"part": int, "eps": NUMBER},
}
"""What an operation says beside its values."""


def check(program: Program) -> None:
    """Raise ProgramError unless the nodes, states, families and names fit each other."""
    if len(program.widths) != len(program.nodes):
        _fail("one width is needed for each node")
    if not all(isinstance(width, str) for width in program.widths):
        _fail("a width is a string")
    ends = [*(state.next for state in program.states), *program.names.values()]
    if not program.states or any(not 0 <= index < len(program.nodes) for index in ends):
        _fail("a state or name points to no node")
    for index, node in enumerate(program.nodes):
        _check_node(index, node)
        _check_parameters(program, index, node)
        _check_widths(program, index, node)
    if sum(node.op == "input" for node in program.nodes) != 1:
        _fail("one node is the input")
    read = sorted(node["name"] for node in program.nodes if node.op == "state")
    if read != sorted(state.name for state in program.states):
        _fail(f"the nodes read states {read}, not those that are listed")
    for state in program.states:
        if program.widths[state.next] != state.width:
            _fail(f"the next value of state {state.name!r} has another width than the state")


def _fail(message: str) -> None:
    raise ProgramError(f"reading a Program: {message}")


def _check_node(index: int, node: Node) -> None:
    if node.op not in FORWARD_OPS:
        _fail(f"unknown operation {node.op!r}")
    if any(not 0 <= arg < index for arg in node.args):
        _fail(f"node {index} uses a later node")
    count = VALUES.get(node.op)
    if count is None and not node.args:
        _fail(f"node {index}: {node.op} takes at least 1 value")
    if count is not None and len(node.args) != count:
        _fail(f"node {index}: {node.op} takes {count} values, got {len(node.args)}")
    attrs = dict(node.attrs)
    for name, kind in ATTRIBUTES.get(node.op, {}).items():
        if not isinstance(attrs.get(name), kind):
            _fail(f"node {index}: {node.op} lacks {name!r}")
    if node.op == "layer_norm" and not 0 <= attrs["part"] < len(node.args):
        _fail(f"node {index}: layer_norm has no part {attrs['part']}")


def _check_parameters(program: Program, index: int, node: Node) -> None:
    if node.op not in ("parameter", "product"):
        return
    name, block = node["family"], node["block"]
    family = program.families.get(name)
    rows = dict(family.blocks).get(block) if family else None
    if family is None or rows is None:
        _fail(f"node {index}: family {name!r} with block {block!r} is not listed")
        return
    columns = family.columns
    part = dict(node.attrs).get("part")
    if isinstance(part, int) and 0 <= part < len(columns):
        columns = columns[part : part + 1]
    if rows != program.widths[index] or columns != tuple(program.widths[a] for a in node.args):
        _fail(f"node {index}: family {name!r} does not fit the values it is used with")


def _check_widths(program: Program, index: int, node: Node) -> None:
    if node.op in ("product", "layer_norm"):
        return
    widths = {program.widths[a] for a in node.args} - {SCALAR}
    if not widths <= {program.widths[index]}:
        _fail(f"node {index}: {node.op} of values of different widths")
