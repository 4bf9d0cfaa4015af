"""Reverse mode over a Program: one step of backpropagation through time, as another list of nodes.

The backward nodes read values of the forward step (``kept``) and cotangents (``cotangent``): of the
next states, of the output, and of any named value. They give the cotangents of the previous states
and the input, the error term of any named value, and for each use of a parameter the two factors
whose product, summed over rows and steps, is its gradient.

Ties are torch's: ``maximum`` gives half to each side, relu has slope zero at zero, clipping passes
the gradient at its edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from headgate.program.builder import Builder
from headgate.program.program import COMPARISONS, SCALAR, UNARY, Node, Program


@dataclass(frozen=True)
class ParameterTerm:
    """A parameter's gradient: Σ delta ⊗ operand, or Σ delta for a vector (operand None).

    ``operand`` is a forward node, ``delta`` a backward node, ``part`` the operand's place among the
    family's columns.
    """

    family: str
    block: str
    delta: int
    operand: int | None = None
    part: int = 0


@dataclass(frozen=True)
class Backward:
    """The step of backpropagation through time. A cotangent that is always zero is None."""

    nodes: tuple[Node, ...]
    widths: tuple[str, ...]
    states: tuple[int | None, ...]
    input: int | None
    terms: tuple[ParameterTerm, ...]
    errors: dict[str, int | None]


def differentiate(program: Program, names: Sequence[str] = ()) -> Backward:
    """Differentiate a lowered Program; the ``names`` may have cotangents of their own."""
    return _Sweep(program, names).run()


@dataclass
class _Sweep:
    program: Program
    names: Sequence[str]
    builder: Builder = field(default_factory=Builder)
    sums: dict[int, int] = field(default_factory=dict)
    products: dict[int, dict[tuple[str, int], list[tuple[str, int]]]] = field(default_factory=dict)
    terms: list[ParameterTerm] = field(default_factory=list)
    normalised: dict[int, dict[int, int]] = field(default_factory=dict)

    def run(self) -> Backward:
        program = self.program
        self.nexts = {state.next for state in program.states}
        for state in program.states:
            leaf = self.builder.add("cotangent", (), state.width, state=state.name)
            self.accumulate(state.next, leaf)
        output = program.states[0]
        self.accumulate(output.next, self.builder.add("cotangent", (), output.width, output=True))
        for name in self.names:
            leaf = self.builder.add("cotangent", (), program.width_of(name), value=name)
            self.accumulate(program.names[name], leaf)
        wanted = depends_on(program.nodes, ("input", "state", "parameter"))
        totals: dict[int, int | None] = {}
        for index in range(len(program.nodes) - 1, -1, -1):
            if index in self.normalised:
                self.normalise(index, wanted)
            totals[index] = delta = self.total(index) if index in wanted else None
            if delta is not None:
                self.spread(index, delta, wanted)
        by_name = {n["name"]: i for i, n in enumerate(program.nodes) if n.op == "state"}
        inputs = [i for i, n in enumerate(program.nodes) if n.op == "input"]
        return Backward(
            nodes=tuple(self.builder.nodes),
            widths=tuple(self.builder.widths),
            states=tuple(totals[by_name[state.name]] for state in program.states),
            input=totals[inputs[0]],
            terms=tuple(self.terms),
            errors={name: totals[program.names[name]] for name in self.names},
        )

    def kept(self, index: int) -> int:
        node = self.program.nodes[index]
        if node.op == "constant":
            return self.builder.constant(node["value"])
        if node.op == "count":
            return self.builder.copy(node, SCALAR, int)
        if node.op in UNARY and node.args[0] in self.nexts:  # cheaper made again than remembered
            return self.builder.add(node.op, [self.kept(node.args[0])], self.program.widths[index])
        return self.builder.add("kept", (), self.program.widths[index], node=index)

    def accumulate(self, index: int, delta: int) -> None:
        """Add a cotangent to a forward value; one number a row gets the sum over the row."""
        b = self.builder
        if self.program.widths[index] == SCALAR and b.widths[delta] != SCALAR:
            delta = b.add("row_sum", [delta], SCALAR)
        before = self.sums.get(index)
        self.sums[index] = delta if before is None else b.add("add", [before, delta])

    def total(self, index: int) -> int | None:
        """The whole cotangent of a forward value, all its uses having been seen."""
        b, width = self.builder, self.program.widths[index]
        delta = self.sums.get(index)
        for (family, part), uses in self.products.get(index, {}).items():
            order = self.program.families[family].block_names
            uses.sort(key=lambda use: order.index(use[0]))
            blocks = tuple(block for block, _ in uses)
            back = b.add(
                "product_transpose", [d for _, d in uses], width,
                family=family, part=part, blocks=blocks,
            )  # fmt: skip
            delta = back if delta is None else b.add("add", [delta, back])
        if delta is not None and b.widths[delta] != width:
            delta = b.add("expand", [delta, self.kept(index)], width)
        return delta

    def spread(self, index: int, delta: int, wanted: set[int]) -> None:
        """Hand the cotangent of a value to the values it was made from."""
        node = self.program.nodes[index]
        if node.op == "parameter":
            self.terms.append(ParameterTerm(node["family"], node["block"], delta))
        elif node.op == "product":
            family, block, part = node["family"], node["block"], node["part"]
            operand = node.args[0]
            self.terms.append(ParameterTerm(family, block, delta, operand, part))
            if operand in wanted:
                uses = self.products.setdefault(operand, {}).setdefault((family, part), [])
                uses.append((block, delta))
        elif node.op == "standard":
            value, _, scale = node.args
            self.normalised.setdefault(scale, {})[value] = delta
        elif node.op not in ("input", "state"):
            for position, arg in enumerate(node.args):
                if arg in wanted:
                    share = self.share(node, index, position, delta)
                    if share is not None:
                        self.accumulate(arg, share)

    def normalise(self, scale: int, wanted: set[int]) -> None:
        """The cotangents of what was normalised together, all of whose results have been seen.

        n = (v − mean v) r has v̄ = r (n̄ − mean n̄ − n mean(n̄ n)), the means over the whole row.
        """
        b, nodes, offered = self.builder, self.program.nodes, self.normalised[scale]
        results = {
            n.args[0]: i for i, n in enumerate(nodes) if n.op == "standard" and n.args[2] == scale
        }
        mean = nodes[next(iter(results.values()))].args[1]
        total, count = nodes[mean].args
        normal = {
            v: self.kept(results[v])
            if v in results
            else b.add("standard", [self.kept(v), self.kept(mean), self.kept(scale)])
            for v in nodes[total].args
        }
        size = self.kept(count)
        sums = [list(offered.values()), [b.add("mul", [d, normal[v]]) for v, d in offered.items()]]
        first, second = (b.add("div", [b.add("row_sum", s, SCALAR), size]) for s in sums)
        for value, standard in normal.items():
            if value not in wanted:
                continue
            along = b.add("mul", [standard, second])
            given = offered.get(value)
            if given is None:
                rest = b.add("neg", [b.add("add", [along, first])])
            else:
                rest = b.add("sub", [b.add("sub", [given, first]), along])
            self.accumulate(value, b.add("mul", [rest, self.kept(scale)]))

    def share(self, node: Node, index: int, position: int, delta: int) -> int | None:
        """The cotangent that one argument receives: delta times the local derivative."""
        b = self.builder
        if node.op in ("add", "row_sum", "expand"):
            return delta
        if node.op == "sub":
            return delta if position == 0 else b.add("neg", [delta])
        if node.op == "neg":
            return b.add("neg", [delta])
        if node.op == "where":
            if position == 0:
                return None
            choices = [delta, b.constant(0.0)] if position == 1 else [b.constant(0.0), delta]
            return b.add("where", [self.kept(node.args[0]), *choices])
        if node.op == "div" and position == 0:
            return b.add("div", [delta, self.kept(node.args[1])])
        slope = self.slope(node, index, position)
        return None if slope is None else b.add("mul", [delta, slope])

    def slope(self, node: Node, index: int, position: int) -> int | None:
        """The derivative of an elementwise operation by one of its arguments."""
        b = self.builder
        y = self.kept(index)
        args = [self.kept(a) for a in node.args]
        one, zero = b.constant(1.0), b.constant(0.0)
        match node.op:
            case "mul":
                return args[1 - position]
            case "div":
                return b.add("neg", [b.add("div", [y, args[1]])])
            case "sigmoid":
                return b.add("mul", [y, b.add("sub", [one, y])])
            case "tanh":
                return b.add("sub", [one, b.add("mul", [y, y])])
            case "relu":
                return b.add("where", [b.add("greater", [y, zero]), one, zero], b.widths[y])
            case "exp":
                return y
            case "log":
                return b.add("div", [one, args[0]])
            case "log_sigmoid":
                return b.add("sigmoid", [b.add("neg", [args[0]])])
            case "sqrt":
                return b.add("div", [b.constant(0.5), y])
            case "rsqrt":
                cube = b.add("mul", [y, b.add("mul", [y, y])])
                return b.add("mul", [b.constant(-0.5), cube])
            case "abs":
                negative = b.add("where", [b.add("less", [args[0], zero]), b.constant(-1.0), zero])
                return b.add("where", [b.add("greater", [args[0], zero]), one, negative])
            case "clip":
                inside = b.add("greater_equal", [args[0], b.constant(node["low"])])
                low = b.add("where", [inside, one, zero])
                inside = b.add("less_equal", [args[0], b.constant(node["high"])])
                return b.add("where", [inside, low, zero])
            case "maximum" | "minimum":
                this, other = args[position], args[1 - position]
                wins = b.add("greater" if node.op == "maximum" else "less", [this, other])
                tied = b.add("equal", [this, other])
                half = b.add("where", [tied, b.constant(0.5), zero])
                return b.add("where", [wins, one, half])
        return None


def depends_on(nodes: Sequence[Node], leaves: Sequence[str]) -> set[int]:
    """The nodes of which some leaf operation is part, comparisons excepted."""
    found: set[int] = set()
    for index, node in enumerate(nodes):
        if node.op in COMPARISONS:
            continue
        if node.op in leaves or any(a in found for a in node.args):
            found.add(index)
    return found
