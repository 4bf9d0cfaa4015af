"""Programs for people: ``text`` prints the equations, ``latex`` typesets them.

One line for each named value; what has no name stands where it is used, except a larger value that
is used more than once, which gets a line and a name of its own.
"""

from __future__ import annotations

import keyword
from typing import ClassVar

from headgate.program.notation import ATOM, SUM, TERM, Notation
from headgate.program.program import COMPARISONS, SCALAR, Family, Node, Program

GREEK = (
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"),
    *("lambda", "mu", "nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi"),
    *("omega", "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega"),
)


def text(program: Program) -> str:
    """The Program as readable lines.

    The first line holds the name, then the input, the states with their initial values and the
    families with their blocks and shapes, each with its width. ``h[t-1]`` is a state's previous
    value, ``h[t]`` its next, ``x[t]`` the input.
    """
    lines = [f"{label} = {value}" for label, value in Text(program).equations()]
    return "\n".join([_header(program), *(f"    {line}" for line in lines)])


def latex(program: Program) -> str:
    """The equations as a LaTeX ``aligned`` environment, for use inside display mathematics."""
    lines = [rf"{label} &= {value}" for label, value in Latex(program).equations()]
    return "\n".join([r"\begin{aligned}", " \\\\\n".join(lines), r"\end{aligned}"])


def _header(program: Program) -> str:
    states = ", ".join(f"{s.name}: {s.width} = {_number(s.initial)}" for s in program.states)
    families = ", ".join(_family(family) for family in program.families.values())
    header = f"{program.name}(x: {program.input_width}; {states}"
    return header + (f"; {families})" if families else ")")


def _family(family: Family) -> str:
    """``W[i, f]: hidden × input``; where blocks differ in rows, ``W[i: hidden, r: rank]``."""
    widths = dict.fromkeys(width for _, width in family.blocks)
    if len(widths) > 1:
        blocks = ", ".join(f"{block}: {width}" for block, width in family.blocks)
        shape = "rows"
    else:
        blocks = ", ".join(block for block in family.block_names if block)
        shape = next(iter(widths))
    columns = " + ".join(family.columns)
    if columns:
        shape += f" × ({columns})" if len(family.columns) > 1 else f" × {columns}"
    return f"{family.name}{f'[{blocks}]' if blocks else ''}: {shape}"


def _number(value: float) -> str:
    """1.0 as 1, 0.5 as 0.5."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e6 else repr(value)


class Text(Notation):
    """Python's own notation, with the step of a state in brackets."""

    negated = ATOM
    own_line = ("mask",)
    signs: ClassVar = {"add": "+", "sub": "-", "mul": "*"} | dict(
        zip(COMPARISONS, (">", ">=", "<", "<=", "=="), strict=True)
    )

    def value(self, name: str) -> str:
        return name

    def next_value(self, state: str) -> str:
        return f"{state}[t]"

    def leaf(self, node: Node) -> tuple[str, int]:
        match node.op:
            case "input":
                return "x[t]", ATOM
            case "state":
                return f"{node['name']}[t-1]", ATOM
            case "constant":
                return _number(node["value"]), ATOM if node["value"] >= 0 else SUM
            case "parameter":
                return self.block(node), ATOM
        return self.call(node), ATOM

    def block(self, node: Node) -> str:
        """``W.i``, or ``W["if"]`` where the name is no identifier; ``G.i[:, 1]`` is one part of
        the columns of a family that multiplies several values."""
        part = self.part(node)
        return node["family"] + _dotted(node["block"]) + ("" if part is None else f"[:, {part}]")

    def parentheses(self, inside: str) -> str:
        return f"({inside})"

    def sign(self, node: Node) -> str:
        return self.signs[node.op]

    def quotient(self, a: int, b: int) -> tuple[str, int]:
        return f"{self.show(a, TERM)} / {self.show(b, ATOM)}", TERM

    def product(self, node: Node) -> str:
        if len(node.args) == 1:
            return f"{self.block(node)} @ {self.show(node.args[0], ATOM)}"
        return f"{self.block(node)} @ concat({', '.join(map(self.show, node.args))})"

    def layer_norm(self, inside: list[str], part: str | int | None, eps: float) -> str:
        more = [] if eps == 1e-5 else [f"eps={eps!r}"]
        slice_ = _dotted(part) if isinstance(part, str) else "" if part is None else f"[{part}]"
        return f"layer_norm({', '.join([*inside, *more])}){slice_}"

    def call(self, node: Node) -> str:
        given = [self.show(arg) for arg in node.args]
        if node.op == "clip":
            given += [_number(node["low"]), _number(node["high"])]
        elif node.op == "mask":
            numbers = [f"{key}={_number(node[key])}" for key in ("rate", "hit", "miss")]
            given = [f'"{node["name"]}"', *numbers, f'per="{node["per"]}"']
        elif node.op == "count":
            given = list(node["widths"])
        return f"{node.op}({', '.join(given)})"


def _dotted(block: str) -> str:
    if not block or (block.isidentifier() and not keyword.iskeyword(block)):
        return f".{block}" if block else ""
    return f'["{block}"]'


class Latex(Notation):
    """LaTeX mathematics: the step as a subscript, ⊙ for products of vectors unit by unit."""

    signs: ClassVar = {"add": "+", "sub": "-"} | dict(
        zip(COMPARISONS, (">", r"\geq", "<", r"\leq", "="), strict=True)
    )
    functions: ClassVar = {
        "sigmoid": r"\sigma",
        "tanh": r"\tanh",
        "exp": r"\exp",
        "log": r"\log",
        "log_sigmoid": r"\log \sigma",
        "maximum": r"\max",
        "minimum": r"\min",
        "expand": "",
    }

    def value(self, name: str) -> str:
        return f"{_symbol(name)}_t"

    def next_value(self, state: str) -> str:
        return self.value(state)

    def leaf(self, node: Node) -> tuple[str, int]:
        match node.op:
            case "input":
                return "x_t", ATOM
            case "state":
                return f"{_symbol(node['name'])}_{{t-1}}", ATOM
            case "constant":
                value = node["value"]
                return _number(value).replace("inf", r"\infty"), ATOM if value >= 0 else SUM
            case "parameter":
                return self.block(node), ATOM
        step = "_t" if node["per"] == "step" else ""
        return rf"\mu^{{{_upright(node['name'])}}}{step}", ATOM

    def block(self, node: Node) -> str:
        part = self.part(node)
        marks = [_symbol(node["block"])] if node["block"] else []
        marks += [] if part is None else [str(part)]
        return _symbol(node["family"]) + (f"_{{{','.join(marks)}}}" if marks else "")

    def parentheses(self, inside: str) -> str:
        tall = r"\frac" in inside or r"\begin" in inside
        return rf"\left({inside}\right)" if tall else f"({inside})"

    def sign(self, node: Node) -> str:
        if node.op != "mul":
            return self.signs[node.op]
        number = any(self.program.widths[arg] == SCALAR for arg in node.args)
        return r"\cdot" if number else r"\odot"

    def quotient(self, a: int, b: int) -> tuple[str, int]:
        return rf"\frac{{{self.show(a)}}}{{{self.show(b)}}}", ATOM

    def product(self, node: Node) -> str:
        if len(node.args) == 1:
            return f"{self.block(node)} {self.show(node.args[0], ATOM)}"
        return f"{self.block(node)} [{'; '.join(map(self.show, node.args))}]"

    def layer_norm(self, inside: list[str], part: str | int | None, eps: float) -> str:
        operand = inside[0] if len(inside) == 1 else f"[{'; '.join(inside)}]"
        mark = _symbol(part) if isinstance(part, str) and part else part
        slice_ = "" if mark in (None, "") else f"_{{{mark}}}"
        return rf"\mathrm{{LN}}{self.parentheses(operand)}{slice_}"

    def call(self, node: Node) -> str:
        values = [self.show(arg) for arg in node.args]
        match node.op:
            case "where":
                condition, a, b = values
                cases = rf"{a} & \text{{if }} {condition} \\ {b} & \text{{otherwise}}"
                return rf"\begin{{cases}} {cases} \end{{cases}}"
            case "sqrt":
                return rf"\sqrt{{{values[0]}}}"
            case "rsqrt":
                return rf"\frac{{1}}{{\sqrt{{{values[0]}}}}}"
            case "abs":
                return rf"\left|{values[0]}\right|"
            case "clip":
                values += [_number(node["low"]), _number(node["high"])]
            case "row_sum":
                return rf"\textstyle\sum {self.parentheses(' + '.join(values))}"
        name = self.functions.get(node.op, _upright(node.op))
        return name + self.parentheses(", ".join(values))


def _symbol(name: str) -> str:
    """A variable: one letter as it is, a Greek letter's name as the letter, a word upright."""
    if len(name) == 1:
        return name
    return rf"\{name}" if name in GREEK else _upright(name)


def _upright(name: str) -> str:
    return rf"\mathrm{{{name.replace('_', chr(92) + '_')}}}"
