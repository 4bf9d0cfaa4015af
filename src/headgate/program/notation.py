"""What both notations of a Program share: which values get a line, and where parentheses stand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import count
from typing import Any

from headgate.program.program import COMPARISONS, LEAVES, Node, Program

COMPARE, SUM, TERM, ATOM = range(4)
"""How tightly an expression binds. An operand gets parentheses where it binds less than needed."""

LEAF_SYMBOLS = tuple(op for op in LEAVES if op != "mask")
"""Leaves that are written as they are wherever they stand."""

LARGE = 3
"""A value of this many operations gets a name of its own when it is used more than once."""


def _with(attrs: tuple[tuple[str, Any], ...], **changes: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((dict(attrs) | changes).items()))


class Notation(ABC):
    """The walk over a Program that both notations share."""

    negated = TERM
    """How tightly the operand of a minus sign must bind."""
    own_line: tuple[str, ...] = ()
    """Operations that get a line and a name of their own wherever they stand."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.nodes = program.nodes
        self.next_of: dict[int, list[str]] = {}
        for state in program.states:
            self.next_of.setdefault(state.next, []).append(state.name)
        self.labels: dict[int, list[str]] = {}
        self._name_values()

    def _name_values(self) -> None:
        """Labels of the nodes that get a line, in the order of the nodes."""
        states = {state.name for state in self.program.states}
        named: dict[int, list[str]] = {
            index: [self.next_value(name) for name in names]
            for index, names in self.next_of.items()
        }
        for name, index in self.program.names.items():
            if name not in states:
                named.setdefault(index, []).append(self.value(name))
        taken = {*self.program.names, *self.program.families}
        new = (f"v{k}" for k in count(1) if f"v{k}" not in taken)
        for index in self._shared():
            if index not in named:
                named[index] = [self.value(next(new))]
        self.labels = dict(sorted(named.items()))

    def _shared(self) -> list[int]:
        """Values that need a name: large ones that are used more than once."""
        stops = {*self.next_of, *self.program.names.values()}
        uses = Counter(a for index in self._reached() for a in set(self.operands(index)))

        @cache
        def size(index: int) -> int:
            if self.nodes[index].op in LEAVES:
                return 0
            return 1 + sum(0 if a in stops else size(a) for a in self.operands(index))

        large = {i for i, number in uses.items() if number > 1 and size(i) >= LARGE}
        return sorted(large | {i for i in uses if self.nodes[i].op in self.own_line})

    def _reached(self) -> set[int]:
        reached: set[int] = set()
        stack = [*self.next_of, *self.program.names.values()]
        while stack:
            index = stack.pop()
            if index not in reached:
                reached.add(index)
                stack.extend(self.operands(index))
        return reached

    def operands(self, index: int) -> tuple[int, ...]:
        """The values written for a node; of a whole family's layer_norm, one product's operands."""
        node = self.nodes[index]
        whole = self.whole_family(node)
        return whole.args if whole else node.args

    def whole_family(self, node: Node) -> Node | None:
        """A product of the family that this layer normalisation spans, if it spans one."""
        if node.op != "layer_norm" or len(node.args) < 2:
            return None
        members = [self.nodes[a] for a in node.args]
        first = members[0]
        same = all(
            m.op == "product" and m.args == first.args and m["family"] == first["family"]
            for m in members
        )
        blocks = {m["block"] for m in members} if same else set()
        family = self.program.families[first["family"]] if same else None
        return first if family and blocks == set(family.block_names) else None

    def equations(self) -> list[tuple[str, str]]:
        """(label, expression) of every line."""
        lines = []
        for index, (first, *others) in self.labels.items():
            lines.append((first, self._write(index)[0]))
            lines += [(other, first) for other in others]
        return lines

    def show(self, index: int, needed: int = COMPARE) -> str:
        """The value where it is used, in parentheses if it binds less than needed."""
        if index in self.labels and self.nodes[index].op not in LEAF_SYMBOLS:
            return self.labels[index][0]
        written, level = self._write(index)
        return self.parentheses(written) if level < needed else written

    def _write(self, index: int) -> tuple[str, int]:
        """The operation of a node, written out, and how tightly it binds."""
        node = self.nodes[index]
        if node.op in LEAVES:
            return self.leaf(node)
        if node.op in COMPARISONS:
            a, b = (self.show(arg, SUM) for arg in node.args)
            return f"{a} {self.sign(node)} {b}", COMPARE
        match node.op:
            case "add" | "sub":
                a, b = self.show(node.args[0], SUM), self.show(node.args[1], TERM)
                return f"{a} {self.sign(node)} {b}", SUM
            case "mul":
                a, b = self.show(node.args[0], TERM), self.show(node.args[1], ATOM)
                return f"{a} {self.sign(node)} {b}", TERM
            case "neg":
                return f"-{self.show(node.args[0], self.negated)}", SUM
            case "div":
                return self.quotient(*node.args)
            case "product":
                return self.product(node), TERM
            case "layer_norm":
                return self._layer_norm(node), ATOM
        return self.call(node), ATOM

    def _layer_norm(self, node: Node) -> str:
        whole = self.whole_family(node)
        if whole:
            inside = [self.product(replace(whole, attrs=_with(whole.attrs, block="")))]
            return self.layer_norm(
                inside, self.nodes[node.args[node["part"]]]["block"], node["eps"]
            )
        part = node["part"] if len(node.args) > 1 else None
        return self.layer_norm([self.show(a) for a in node.args], part, node["eps"])

    def part(self, node: Node) -> int | None:
        """Which of the family's columns a product reads, where it does not read them all."""
        if len(self.program.families[node["family"]].columns) < 2 or len(node.args) > 1:
            return None
        return dict(node.attrs).get("part")

    @abstractmethod
    def value(self, name: str) -> str: ...
    @abstractmethod
    def next_value(self, state: str) -> str: ...
    @abstractmethod
    def leaf(self, node: Node) -> tuple[str, int]: ...
    @abstractmethod
    def parentheses(self, inside: str) -> str: ...
    @abstractmethod
    def sign(self, node: Node) -> str: ...
    @abstractmethod
    def quotient(self, a: int, b: int) -> tuple[str, int]: ...
    @abstractmethod
    def product(self, node: Node) -> str: ...
    @abstractmethod
    def layer_norm(self, inside: list[str], part: str | int | None, eps: float) -> str: ...
    @abstractmethod
    def call(self, node: Node) -> str: ...
