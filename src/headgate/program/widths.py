"""Widths of traced values: unified by use, then resolved to names, and the trace made a Program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from headgate.program.builder import Builder
from headgate.program.program import SCALAR, Family, Program, State
from headgate.program.transform.rewrite import rewrite

if TYPE_CHECKING:
    from headgate.program.trace import Trace, TracedNode
    from headgate.program.values import Value


class Widths:
    """Union-find over unknown widths. A class may carry labels; it remembers what joined it."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._labels: list[list[str]] = []
        self._joins: list[list[tuple[int, int]]] = []
        self._rows: dict[tuple[str, str], int] = {}
        self._labelled: list[tuple[str, int]] = []

    def new(self, label: str | None = None) -> int:
        width = len(self._parent)
        self._parent.append(width)
        self._labels.append([])
        self._joins.append([])
        if label:
            self.label(width, label)
        return width

    def of_rows(self, family: str, block: str) -> int:
        """The width of a block's rows, the same wherever the block is used."""
        if (family, block) not in self._rows:
            self._rows[family, block] = self.new()
        return self._rows[family, block]

    def root(self, width: int) -> int:
        while self._parent[width] != width:
            width = self._parent[width]
        return width

    def unify(self, a: int, b: int, line: int) -> None:
        """The two are one width, because of this line."""
        first, second = self.root(a), self.root(b)
        if first == second:
            return
        self._joins[a].append((b, line))
        self._joins[b].append((a, line))
        self._parent[second] = first
        self._labels[first] += [x for x in self._labels[second] if x not in self._labels[first]]

    def label(self, width: int, name: str) -> None:
        self._labelled.append((name, width))
        labels = self._labels[self.root(width)]
        if name not in labels:
            labels.append(name)

    def labels(self, width: int) -> list[str]:
        return self._labels[self.root(width)]

    def joined_at(self, width: int, one: str, other: str) -> int | None:
        """The first line on the way from the width labelled ``one`` to that labelled ``other``."""
        here = [(name, w) for name, w in self._labelled if self.root(w) == self.root(width)]
        ends = {w for name, w in here if name == other}
        start = next(w for name, w in here if name == one)
        seen, queue = {start}, [(w, line) for w, line in self._joins[start]]
        for w, first in queue:
            if w in ends:
                return first
            seen.add(w)
            queue += [(v, first) for v, _ in self._joins[w] if v not in seen]
        return None


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
    program = Program(
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
    return rewrite(program, lambda *_: None)  # without the numbers that simplifying left unused


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
    for end in sorted(needed, key=lambda i: (nodes[i].line, i)):
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
                trace.widths.label(width, size)
        elif key in families:
            for index in order:
                node = trace.nodes[index]
                if node.attrs.get("family") == key and node.width is not None:
                    trace.widths.label(node.width, size)
        else:
            trace.fail(f"widths= names '{key}', which is no value and no family here", first)
    for value in nexts.values():
        width = trace.nodes[value.index].width
        if width is not None and not set(trace.widths.labels(width)) - {"input"}:
            trace.widths.label(width, "hidden")


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
        line = trace.widths.joined_at(node.width, *others[:2]) or node.line
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
        if not node.attrs["block"]:
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
            others = [name for name in trace.widths.labels(node.width) if name != "input"]
            line = trace.widths.joined_at(node.width, "input", others[0]) if others else None
            return f" (line {line} of the cell)" if line else ""
    return ""
