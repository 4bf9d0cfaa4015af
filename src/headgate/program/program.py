"""The Program: a cell as a straight-line list of named values.

A Program is data. It holds no tensor and knows no framework: tracing makes it from equations,
``differentiate`` and ``transform`` make new ones from it, ``schedule`` turns it into a Plan, and an
engine runs that. Its canonical JSON is what a saved model stores.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from headgate.program.errors import ProgramError

SCALAR = "1"
"""The width of a value with one number a row, which broadcasts over any other width."""

FORMAT = 1

UNARY = ("neg", "sigmoid", "tanh", "relu", "exp", "log", "log_sigmoid", "sqrt", "rsqrt", "abs")
BINARY = ("add", "sub", "mul", "div", "maximum", "minimum")
COMPARISONS = ("greater", "greater_equal", "less", "less_equal", "equal")
LEAVES = ("input", "state", "parameter", "constant", "mask")
ELEMENTWISE = (*UNARY, *BINARY, *COMPARISONS, "where", "clip")
FORWARD_OPS = frozenset((*LEAVES, *ELEMENTWISE, "product", "layer_norm"))


@dataclass(frozen=True)
class Node:
    """One value: an operation on earlier values. ``attrs`` is a sorted tuple of (key, value)."""

    op: str
    args: tuple[int, ...] = ()
    attrs: tuple[tuple[str, Any], ...] = ()

    def __getitem__(self, key: str) -> Any:
        for name, value in self.attrs:
            if name == key:
                return value
        raise KeyError(key)


@dataclass(frozen=True)
class State:
    """A state: its name, the number it starts from, its width, and the node of its next value."""

    name: str
    initial: float
    width: str
    next: int


@dataclass(frozen=True)
class Family:
    """Parameters of one name. A matrix has ``columns``; ``blocks`` are stacked along the rows."""

    name: str
    blocks: tuple[tuple[str, str], ...]
    columns: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return "matrix" if self.columns else "vector"

    @property
    def block_names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.blocks)


@dataclass(frozen=True)
class Program:
    """The equations of one step: nodes, states, parameter families, and names of values.

    ``widths[k]`` is the width of node k: "input", "hidden", "1" or a named size.
    """

    name: str
    nodes: tuple[Node, ...]
    widths: tuple[str, ...]
    states: tuple[State, ...]
    families: Mapping[str, Family]
    names: Mapping[str, int]
    doc: str = field(default="", compare=False)
    tie: str = field(default="", compare=False)

    @cached_property
    def input_width(self) -> str:
        for node, width in zip(self.nodes, self.widths, strict=True):
            if node.op == "input":
                return width
        return "input"

    @cached_property
    def size_names(self) -> tuple[str, ...]:
        """Every named width that the shapes need, in order of appearance."""
        used = [self.input_width, *(s.width for s in self.states)]
        for family in self.families.values():
            used += [*(width for _, width in family.blocks), *family.columns]
        return tuple(dict.fromkeys(w for w in used if w != SCALAR))

    def sizes(
        self, input_size: int, hidden_size: int, sizes: Mapping[str, int] | None = None
    ) -> dict[str, int]:
        """Numbers for every width of this Program.

        Raises ProgramError where one is missing, unknown, or not a positive integer.
        """
        given = dict(sizes or {})
        extra = set(given) - (set(self.size_names) - {"input", "hidden"})
        if extra:
            known = sorted(set(self.size_names) - {"input", "hidden"}) or "none"
            raise ProgramError(
                f"sizes of cell '{self.name}': unknown {sorted(extra)}; named widths: {known}"
            )
        table = {"input": input_size, "hidden": hidden_size, **given}
        missing = [name for name in self.size_names if name not in table]
        if missing:
            raise ProgramError(
                f"sizes of cell '{self.name}': width '{missing[0]}' has no number; "
                f"give sizes={{'{missing[0]}': ...}}"
            )
        for name, size in table.items():
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ProgramError(
                    f"sizes of cell '{self.name}': {name} size must be a positive integer, "
                    f"got {size!r}"
                )
        if self.input_width != "input" and table[self.input_width] != input_size:
            raise ProgramError(
                f"sizes of cell '{self.name}': the equations combine the input elementwise with "
                f"values of the {self.input_width} size{self.tie}, so both sizes must be equal; "
                f"got input size {input_size} and {self.input_width} size "
                f"{table[self.input_width]}"
            )
        return table

    def shape(self, family: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Shape of a family's tensor: all its blocks' rows, then its columns if it is a matrix."""
        entry = self.families[family]
        rows = sum(sizes[width] for _, width in entry.blocks)
        if not entry.columns:
            return (rows,)
        return (rows, sum(sizes[width] for width in entry.columns))

    def rows(self, family: str, sizes: Mapping[str, int]) -> dict[str, slice]:
        """Which rows of a family's tensor belong to each block."""
        slices, start = {}, 0
        for block, width in self.families[family].blocks:
            slices[block] = slice(start, start + sizes[width])
            start += sizes[width]
        return slices

    @property
    def output_width(self) -> str:
        return self.states[0].width

    def width_of(self, name: str) -> str:
        """Width of a named value."""
        return self.widths[self.names[name]]

    @cached_property
    def has_masks(self) -> bool:
        """Whether training draws random masks (dropout, zoneout)."""
        return any(node.op == "mask" for node in self.nodes)

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "name": self.name,
            "nodes": [_node_to_list(node) for node in self.nodes],
            "widths": list(self.widths),
            "states": [[s.name, _encode(s.initial), s.width, s.next] for s in self.states],
            "families": [
                [f.name, [list(block) for block in f.blocks], list(f.columns)]
                for f in self.families.values()
            ],
            "names": [[name, index] for name, index in self.names.items()],
        }

    def to_json(self) -> str:
        """Canonical JSON: the same equations give the same text, byte for byte."""
        return json.dumps(
            self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False,
            allow_nan=False,
        )  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Program:
        try:
            if data["format"] != FORMAT:
                raise ProgramError(
                    f"reading a Program: format {data['format']} is not known to this version, "
                    f"which reads format {FORMAT}; use a newer Headgate"
                )
            program = cls(
                name=str(data["name"]),
                nodes=tuple(_node_from_list(entry) for entry in data["nodes"]),
                widths=tuple(data["widths"]),
                states=tuple(State(n, _decode(i), w, k) for n, i, w, k in data["states"]),
                families={
                    n: Family(n, tuple((b, w) for b, w in blocks), tuple(columns))
                    for n, blocks, columns in data["families"]
                },
                names={name: int(index) for name, index in data["names"]},
            )
            program.check()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, ProgramError):
                raise
            raise ProgramError(f"reading a Program: not a valid description ({error!r})") from error
        return program

    @classmethod
    def from_json(cls, text: str) -> Program:
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ProgramError(f"reading a Program: not JSON ({error})") from error
        return cls.from_dict(data)

    @cached_property
    def key(self) -> str:
        """SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def check(self) -> None:
        """Raise ProgramError unless its nodes, states, families and names fit each other."""
        from headgate.program.check import check

        check(self)

    def __str__(self) -> str:
        from headgate.program.show import text

        return text(self)

    def diagram(self) -> str:
        """One step as a picture, an SVG document: what goes in on the left, new states right."""
        from headgate.program.diagram import diagram

        return diagram(self)

    def _repr_svg_(self) -> str:
        return self.diagram()

    def __hash__(self) -> int:
        return hash(self.key)


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    return list(value) if isinstance(value, tuple) else value


def _decode(value: Any) -> Any:
    if isinstance(value, Mapping):
        return float(value["float"])
    return tuple(value) if isinstance(value, list) else value


def _node_to_list(node: Node) -> list[Any]:
    return [node.op, list(node.args), {key: _encode(value) for key, value in node.attrs}]


def _node_from_list(entry: Iterable[Any]) -> Node:
    op, args, attrs = entry
    pairs = tuple(sorted((key, _decode(value)) for key, value in attrs.items()))
    return Node(op, tuple(int(arg) for arg in args), pairs)
