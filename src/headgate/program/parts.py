"""What a diagram of a Program is made of: its nodes gathered into the parts that people draw.

A sum of products, peepholes and biases is one affine part; a layer normalisation of a whole family
is one part; a constant stands inside the operation that uses it; every other operation is a part of
its own. Where several affine parts read the same values, these are joined first, as textbooks write
[h, x].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import ClassVar

from headgate.program.notation import ATOM, LEAF_SYMBOLS
from headgate.program.program import COMPARISONS, Node, Program
from headgate.program.show import Text

SIGNS = {"add": "+", "mul": "×", "sub": "−", "div": "÷", "maximum": "max", "minimum": "min"}
SIGNS |= dict(zip(COMPARISONS, (">", "≥", "<", "≤", "="), strict=True))
SIGNS |= {"neg": "−", "sigmoid": "σ", "log_sigmoid": "log σ", "sqrt": "√", "rsqrt": "1/√"}
COMMUTE = ("add", "mul", "maximum", "minimum")
ARITHMETIC = (*COMMUTE, "sub", "div", "neg", "where", "clip")
LONGEST = 14
"""An operand of more letters than this is written as a dot."""


@dataclass(frozen=True)
class Part:
    """One thing to draw.

    ``kind`` is input, state, next, leaf, affine, norm, function, arithmetic or join. ``args`` are
    the parts it reads, from top to bottom where ``ordered``, ``through`` those among them that only
    arithmetic changes here; ``label`` is the name of its value.
    """

    kind: str
    lines: tuple[str, ...] = ()
    args: tuple[int, ...] = ()
    label: str = ""
    ordered: bool = False
    through: tuple[int, ...] = ()


def parts_of(program: Program) -> tuple[Part, ...]:
    """The parts of a Program, each after those it reads but for the joins, which come last."""
    return _join(_Gather(program).all())


def carried(parts: Sequence[Part], state: str) -> tuple[int, ...]:
    """The longest way from a state's previous value to its next through arithmetic alone: the
    conveyor belt. Empty where there is none."""
    ways: dict[int, tuple[int, ...]] = {}
    for index, part in enumerate(parts):
        if part.kind == "state" and part.label == state:
            ways[index] = (index,)
        before = [ways[a] for a in part.through if a in ways]
        if before:
            ways[index] = (*max(before, key=len), index)
        if part.kind == "next" and part.label == state:
            return ways.get(index, ())
    return ()


class _Gather(Text):
    """The short notation of a part's text, and the walk that gathers nodes into parts."""

    signs: ClassVar = {**Text.signs, "mul": "∘", "sub": "−"}

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.parts: list[Part] = []
        self.found: dict[object, int] = {}
        self.dropped = ""
        reached = self._reached()
        self.uses = Counter(a for i in reached for a in self.operands(i))
        self.uses.update(state.next for state in program.states)

    def all(self) -> list[Part]:
        for op in ("state", "input"):
            for index, node in enumerate(self.nodes):
                if node.op == op:
                    self.place(index)
        for index in self.labels:
            self.place(index)
        for state in self.program.states:
            value = (self.place(state.next),)
            text = self.next_value(state.name)
            self.parts.append(Part("next", (text,), value, state.name, through=value))
        return self.parts

    def next_value(self, state: str) -> str:
        return f"{state}(t)"

    def leaf(self, node: Node) -> tuple[str, int]:
        if node.op == "input":
            return "x", ATOM
        return (node["name"], ATOM) if node.op in ("state", "mask") else super().leaf(node)

    def block(self, node: Node) -> str:
        whole = super().block(node)
        if not self.dropped:
            return whole
        return whole.replace(f".{self.dropped}", "").replace(f'["{self.dropped}"]', "")

    def product(self, node: Node) -> str:
        family = self.block(node)
        if len(node.args) == 1:
            return f"{family} {self.short(node.args[0], ATOM)}"
        return f"{family} [{', '.join(map(self.short, node.args))}]"

    def layer_norm(self, inside: list[str], part: str | int | None, eps: float) -> str:
        return f"LN({', '.join(inside)})"

    def short(self, index: int, needed: int = 0) -> str:
        written = self.show(index, needed)
        return written if len(written) <= LONGEST else "·"

    def place(self, index: int) -> int:
        """The number of the part that gives a node's value."""
        key = self._key(index)
        if key not in self.found:
            made = self._make(index)
            self.found[key] = len(self.parts)
            self.parts.append(made)
        number = self.found[key]
        if index in self.labels and self.nodes[index].op not in ("input", "state"):
            self._label(number, ", ".join(self.labels[index]))
        return number

    def _key(self, index: int) -> object:
        """Nodes of one key are one part: the slices of a normalisation are."""
        node = self.nodes[index]
        return (node.args, node["eps"]) if node.op == "layer_norm" else index

    def _label(self, number: int, label: str) -> None:
        known = self.parts[number].label
        if label not in known.split(", "):
            self.parts[number] = replace(self.parts[number], label=f"{known}, {label}".strip(", "))

    def _make(self, index: int) -> Part:
        node = self.nodes[index]
        match node.op:
            case "input":
                return Part("input", ("x(t)",))
            case "state":
                return Part("state", (f"{node['name']}(t−1)",), label=node["name"])
            case "constant" | "mask":
                return Part("leaf", (self.leaf(node)[0],))
            case "layer_norm":
                return self._norm(index)
        linear, others = self._terms(index)
        if not linear:
            return self._operation(node)
        if not others:
            return self._affine(linear)
        self.parts.append(self._affine(linear))
        args = (len(self.parts) - 1, *map(self.place, others))
        return Part("arithmetic", ("+",), args, through=args)

    def _norm(self, index: int) -> Part:
        whole = self.whole_family(self.nodes[index])
        lines = (self._write(index)[0],) if whole else ("LN",)
        return Part("norm", lines, self._distinct(self.operands(index)))

    def _distinct(self, nodes: Sequence[int]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(map(self.place, nodes)))

    def _terms(self, index: int, root: bool = True) -> tuple[list[int], list[int]]:
        """The terms of a sum: those with parameters, and the others."""
        node = self.nodes[index]
        inner = root or (index not in self.labels and self.uses[index] == 1)
        if inner and node.op == "add":
            (a, b), (c, d) = (self._terms(arg, root=False) for arg in node.args)
            return a + c, b + d
        scaled = node.op == "mul" and any(self.nodes[a].op == "parameter" for a in node.args)
        own = node.op == "parameter" or (inner and (node.op == "product" or scaled))
        return ([index], []) if own else ([], [index])

    def _affine(self, terms: list[int]) -> Part:
        nodes = [self.nodes[index] for index in terms]
        read = [
            a for n in nodes for a in n.args if self.nodes[a].op not in ("parameter", "constant")
        ]
        scales = [self.nodes[a] for n in nodes if n.op == "mul" for a in n.args]
        named = [n for n in nodes if n.op != "mul"] + [n for n in scales if n.op == "parameter"]
        blocks = {n["block"] for n in named}
        block = next(iter(blocks)) if len(blocks) == 1 else ""
        self.dropped = block
        written = [self._term(index) for index in terms]
        self.dropped = ""
        if not read:
            return Part("leaf", (" + ".join(written),))
        title = "product" if all(n.op == "product" for n in nodes) else "affine"
        return Part("affine", (f"{title} {block}".strip(), *_wrap(written)), self._distinct(read))

    def _term(self, index: int) -> str:
        node = self.nodes[index]
        if node.op == "mul":
            return " ∘ ".join(self.short(a, ATOM) for a in self._parameter_first(node))
        return self._write(index)[0]

    def _parameter_first(self, node: Node) -> list[int]:
        return sorted(node.args, key=lambda a: self.nodes[a].op != "parameter")

    def _operation(self, node: Node) -> Part:
        values = [a for a in node.args if self.nodes[a].op != "constant"] or list(node.args)
        args = tuple(map(self.place, values))
        squared = len(set(values)) < len(values)
        inverted = node.op == "div" and values[0] != node.args[0]
        if node.op not in ARITHMETIC or squared or inverted:
            args = tuple(dict.fromkeys(args))
            return Part("function", (self._sign(node),), args, ordered=node.op not in COMMUTE)
        through = args[:1] if node.op == "div" else args
        ordered = node.op not in COMMUTE
        return Part("arithmetic", (self._sign(node),), args, ordered=ordered, through=through)

    def _sign(self, node: Node) -> str:
        """σ, ×, 1 −, × 0.5, c ÷ n: with numbers and names where they tell operands apart."""
        sign = SIGNS.get(node.op, node.op)
        if node.op == "clip":
            sign = f"clip {node['low']:g} … {node['high']:g}"
        elif len(node.args) > 2:
            sign = f"{sign}({', '.join(map(self._name, node.args))})"
        elif len(node.args) == 2:
            a, b = map(self._name, node.args)
            first, second = (self.nodes[arg].op == "constant" for arg in node.args)
            if first and not second and node.op not in COMMUTE:
                sign = f"{a} {sign}"
            elif first != second:
                sign = f"{sign} {a if first else b}"
            elif node.op not in COMMUTE or node.args[0] == node.args[1]:
                sign = f"{a} {sign} {b}"
        return sign.replace("-", "−")

    def _name(self, index: int) -> str:
        """A value's name or number, or a dot."""
        named = index in self.labels or self.nodes[index].op in LEAF_SYMBOLS
        return self.show(index) if named else "·"


def _wrap(terms: Sequence[str], width: int = 24) -> list[str]:
    """The sum in lines of at most so many letters where its terms allow it."""
    lines = [terms[0]]
    for term in terms[1:]:
        if len(lines[-1]) + len(term) + 3 <= width:
            lines[-1] += f" + {term}"
        else:
            lines.append(f"+ {term}")
    return lines


def _join(parts: list[Part]) -> tuple[Part, ...]:
    """Values that several affine parts read together meet in a part of their own, as long as that
    saves lines."""
    while True:
        reads = {i: set(p.args) for i, p in enumerate(parts) if p.kind == "affine"}
        best, fewest = frozenset[int](), 0
        for a, b in combinations(reads.values(), 2):
            shared = frozenset(a & b)
            readers = sum(shared <= read for read in reads.values())
            saved = len(shared) * readers - len(shared) - readers
            if len(shared) > 1 and saved > fewest:
                best, fewest = shared, saved
        if not best:
            return tuple(parts)
        for index, read in reads.items():
            if best <= read:
                rest = tuple(a for a in parts[index].args if a not in best)
                parts[index] = replace(parts[index], args=(len(parts), *rest))
        parts.append(Part("join", args=tuple(sorted(best))))
