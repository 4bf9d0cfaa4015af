"""Builder: appends nodes to a Program under construction, once each.

Equal nodes are shared; arithmetic with neutral constants is dropped, and so are signs turned twice.
So the passes which write Programs (tracing, transforming, differentiating) may be written plainly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from headgate.program.program import SCALAR, Node


class Builder:
    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.widths: list[str] = []
        self._index: dict[tuple[Node, str], int] = {}

    def add(self, op: str, args: Sequence[int] = (), width: str | None = None, **attrs: Any) -> int:
        """Index of the node ``op(*args)``; without ``width``, the widest of the arguments'."""
        if width is None:
            width = next((self.widths[a] for a in args if self.widths[a] != SCALAR), SCALAR)
        simpler = self._simplify(op, args, width)
        if simpler is not None:
            return simpler
        node = Node(op, tuple(args), tuple(sorted(attrs.items())))
        key = (node, width)
        if key not in self._index:
            self._index[key] = len(self.nodes)
            self.nodes.append(node)
            self.widths.append(width)
        return self._index[key]

    def constant(self, value: float) -> int:
        return self.add("constant", width=SCALAR, value=float(value))

    def value_of(self, index: int) -> float | None:
        """The number of a constant node, None for any other."""
        node = self.nodes[index]
        return node["value"] if node.op == "constant" else None

    def copy(self, node: Node, width: str, moved: Callable[[int], int]) -> int:
        """Append a node of another Program, its arguments mapped by ``moved``."""
        return self.add(node.op, [moved(a) for a in node.args], width, **dict(node.attrs))

    def _simplify(self, op: str, args: Sequence[int], width: str) -> int | None:
        if op == "neg":
            inner = self.nodes[args[0]]
            again = inner.op == "neg" and self.widths[inner.args[0]] == width
            return inner.args[0] if again else None
        if op not in ("add", "sub", "mul"):
            return None
        a, b = args
        x, y = self.value_of(a), self.value_of(b)
        if op == "add" and x == 0 and self.widths[b] == width:
            return b
        if op in ("add", "sub") and y == 0 and self.widths[a] == width:
            return a
        if op == "mul" and x == 1 and self.widths[b] == width:
            return b
        if op == "mul" and y == 1 and self.widths[a] == width:
            return a
        return None
