"""Widths of traced values: unified by use, then resolved to names, and the trace made a Program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from headgate.program.builder import Builder
from headgate.program.program import SCALAR, Family, Program, State

if TYPE_CHECKING:
    from headgate.program.trace import Trace, TracedNode
    from headgate.program.values import Value


class Widths:
    """Union-find over unknown widths; a class may carry labels with the line that gave each."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._labels: list[dict[str, int]] = []
        self._rows: dict[tuple[str, str], int] = {}
        self._joined: dict[int, int] = {}

    def new(self, label: str | None, line: int) -> int:
        self._parent.append(len(self._parent))
        self._labels.append({label: line} if label else {})
        return len(self._parent) - 1

    def of_rows(self, family: str, block: str) -> int:
        """The width of a block's rows, the same wherever the block is used."""
        if (family, block) not in self._rows:
            self._rows[family, block] = self.new(None, 0)
        return self._rows[family, block]

    def root(self, width: int) -> int:
        while self._parent[width] != width:
            width = self._parent[width]
        return width

    def unify(self, a: int | None, b: int | None, line: int) -> None:
        if a is None or b is None:
            return
        a, b = self.root(a), self.root(b)
        if a == b:
            return
        if self._labels[a] and self._labels[b]:
            self._joined[a] = line
        self._parent[b] = a
        self._labels[a] |= {k: v for k, v in self._labels[b].items() if k not in self._labels[a]}
        if b in self._joined:
            self._joined.setdefault(a, self._joined[b])

    def label(self, width: int, name: str, line: int) -> None:
        self._labels[self.root(width)].setdefault(name, line)

    def labels(self, width: int) -> list[str]:
        return list(self._labels[self.root(width)])

    def join_line(self, width: int) -> int | None:
        return self._joined.get(self.root(width))


def finish(
    trace: Trace,
    nexts: Mapping[str, Value],
    initial: Mapping[str, float],
    named: Mapping[str, int],
    families: Sequence[str],
    width_names: Mapping[str, str],
    doc: str,
) -> Program:
    """The trace as a Program: widths resolved, unused nodes dropped, equal nodes shared."""
    _close_norm_groups(trace)
    names = dict(named) | {name: value.index for name, value in nexts.items()}
    order = _order(trace.nodes, [v.index for v in nexts.values()] + list(named.values()))
    _name_widths(trace, order, names, nexts, families, width_names)
    table = _families(trace, order, families)
    builder = Builder()
    moved: dict[int, int] = {}
    for index in order:
        node = trace.nodes[index]
        attrs = {key: value for key, value in node.attrs.items() if key != "group"}
        width = _resolve(trace, node)
        moved[index] = builder.add(node.op, [moved[a] for a in node.args], width, **attrs)
    return Program(
        name=trace.name,
        nodes=tuple(builder.nodes),
        widths=tuple(builder.widths),
        states=tuple(
            State(name, initial[name], builder.widths[moved[v.index]], moved[v.index])
            for name, v in nexts.items()
        ),
        families=table,
        names=_tidy_names(builder, {name: moved[i] for name, i in names.items()}, list(nexts)),
        doc=doc,
        tie=_tie(trace),
    )


def _close_norm_groups(trace: Trace) -> None:
    for node in trace.nodes:
        if "group" in node.attrs:
            node.args = tuple(node.attrs["group"].members)


def _order(nodes: Sequence[TracedNode], ends: Sequence[int]) -> list[int]:
    """The nodes that matter, arguments first, otherwise in the order they were written."""
    needed: set[int] = set()
    stack = list(ends)
    while stack:
        index = stack.pop()
        if index not in needed:
            needed.add(index)
            stack.extend(nodes[index].args)
    needed |= {i for i, node in enumerate(nodes) if node.op in ("input", "state")}
    order: list[int] = []
    placed: set[int] = set()
    for end in sorted(needed):
        stack = [end]
        while stack:
            index = stack[-1]
            waiting = [a for a in nodes[index].args if a not in placed]
            if waiting:
                stack.extend(reversed(waiting))
                continue
            stack.pop()
            if index not in placed:
                placed.add(index)
                order.append(index)
    return order


def _name_widths(
    trace: Trace,
    order: Sequence[int],
    names: Mapping[str, int],
    nexts: Mapping[str, Value],
    families: Sequence[str],
    width_names: Mapping[str, str],
) -> None:
    first = trace.code.co_firstlineno
    for key, size in width_names.items():
        if key in names:
            width = trace.nodes[names[key]].width
            if width is not None:
                trace.widths.label(width, size, trace.nodes[names[key]].line)
        elif key in families:
            for index in order:
                node = trace.nodes[index]
                if node.attrs.get("family") == key and node.width is not None:
                    trace.widths.label(node.width, size, node.line)
        else:
            trace.fail(f"widths= names '{key}', which is no value and no family here", first)
    for value in nexts.values():
        width = trace.nodes[value.index].width
        if width is not None and not set(trace.widths.labels(width)) - {"input"}:
            trace.widths.label(width, "hidden", first)


def _resolve(trace: Trace, node: TracedNode) -> str:
    if node.width is None:
        return SCALAR
    labels = trace.widths.labels(node.width)
    if not labels:
        what = node.attrs.get("family", node.op)
        trace.fail(
            f"the width of {what}'s result is neither the input's nor a state's and cannot be "
            "resolved; name it with @cell(widths={'" + str(what) + "': 'rank'}) and give "
            "sizes={'rank': ...}",
            node.line,
        )
    others = [label for label in labels if label != "input"]
    if len(others) > 1:
        line = trace.widths.join_line(node.width) or node.line
        trace.fail(
            f"widths '{others[0]}' and '{others[1]}' cannot be unified: they are combined "
            "elementwise here",
            line,
        )
    return others[0] if others else labels[0]


def _families(
    trace: Trace, order: Sequence[int], families: Sequence[str]
) -> dict[str, Family]:  # fmt: skip
    blocks: dict[str, dict[str, str]] = {name: {} for name in families}
    lines: dict[str, int] = {}
    columns: dict[str, tuple[tuple[str, ...], int]] = {}
    for index in sorted(order):
        node = trace.nodes[index]
        if node.op not in ("parameter", "product"):
            continue
        family = node.attrs["family"]
        used = tuple(_resolve(trace, trace.nodes[a]) for a in node.args)
        before, line = columns.setdefault(family, (used, node.line))
        if before != used:
            trace.fail(
                f"family {family} multiplies {_describe(used)} here and {_describe(before)} on "
                f"line {line}; one family has one shape of block, so use a second family",
                node.line,
            )
        blocks[family].setdefault(node.attrs["block"], _resolve(trace, node))
        lines[family] = node.line
    for family, entries in blocks.items():
        if not entries:
            trace.fail(
                f"family {family} is not used; remove it from the arguments, or use it",
                trace.declared(family),
            )
        if "" in entries and len(entries) > 1:
            others = ", ".join(f"{family}.{b}" for b in entries if b)
            trace.fail(
                f"family {family} is used both whole and by blocks ({others}); name every block",
                lines[family],
            )
    return {
        name: Family(name, tuple(entries.items()), columns[name][0])
        for name, entries in blocks.items()
    }


def _describe(columns: tuple[str, ...]) -> str:
    return f"a vector of width {' + '.join(columns)}" if columns else "nothing (it is a vector)"


def _tidy_names(builder: Builder, names: dict[str, int], states: Sequence[str]) -> dict[str, int]:
    """Names in the order of their values; a number is no value to record."""
    kept = {
        n: i for n, i in names.items() if n in states or builder.widths[i] != SCALAR
    }  # fmt: skip
    return dict(sorted(kept.items(), key=lambda item: item[1]))


def _tie(trace: Trace) -> str:
    for node in trace.nodes:
        if node.op == "input" and node.width is not None:
            line = trace.widths.join_line(node.width)
            return f" (line {line} of the cell)" if line else ""
    return ""
