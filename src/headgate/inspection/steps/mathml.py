"""The equations of a Program in MathML, which browsers typeset by themselves."""

from __future__ import annotations

from html import unescape
from typing import ClassVar

from headgate.inspection.tables import plain
from headgate.program.notation import ATOM, SUM, Notation
from headgate.program.program import COMPARISONS, SCALAR, Node
from headgate.program.show import GREEK

TALL = ("<mfrac", "<mtable", "<msqrt")
"""What parentheses must grow for, and what no line can be broken in."""


class MathML(Notation):
    """Presentation MathML: the step as a subscript, ⊙ for products unit by unit."""

    signs: ClassVar = {"add": "+", "sub": "−"} | dict(
        zip(COMPARISONS, ("&gt;", "≥", "&lt;", "≤", "="), strict=True)
    )
    functions: ClassVar = {"sigmoid": "σ", "maximum": "max", "minimum": "min", "expand": ""}

    def value(self, name: str) -> str:
        return f"<msub>{symbol(name)}<mi>t</mi></msub>"

    def next_value(self, state: str) -> str:
        return self.value(state)

    def leaf(self, node: Node) -> tuple[str, int]:
        match node.op:
            case "input":
                return self.value("x"), ATOM
            case "state":
                step = "<mrow><mi>t</mi><mo>−</mo><mn>1</mn></mrow>"
                return f"<msub>{symbol(node['name'])}{step}</msub>", ATOM
            case "constant":
                return number(node["value"]), ATOM if node["value"] >= 0 else SUM
            case "parameter":
                return self.block(node), ATOM
        return f"<msup><mi>μ</mi>{word(node['name'])}</msup>", ATOM

    def block(self, node: Node) -> str:
        part = self.part(node)
        marks = [symbol(node["block"])] if node["block"] else []
        marks += [] if part is None else [f"<mn>{part}</mn>"]
        family = symbol(node["family"])
        if not marks:
            return family
        return f"<msub>{family}<mrow>{'<mo>,</mo>'.join(marks)}</mrow></msub>"

    def parentheses(self, inside: str) -> str:
        if any(tall in inside for tall in TALL):
            return f"<mrow><mo>(</mo>{inside}<mo>)</mo></mrow>"
        return f'<mo stretchy="false">(</mo>{inside}<mo stretchy="false">)</mo>'

    def sign(self, node: Node) -> str:
        if node.op != "mul":
            return f"<mo>{self.signs[node.op]}</mo>"
        scalar = any(self.program.widths[arg] == SCALAR for arg in node.args)
        return f"<mo>{'·' if scalar else '⊙'}</mo>"

    def quotient(self, a: int, b: int) -> tuple[str, int]:
        return f"<mfrac>{_row(self.show(a))}{_row(self.show(b))}</mfrac>", ATOM

    def product(self, node: Node) -> str:
        if len(node.args) == 1:
            return f'{self.block(node)}<mspace width="0.17em"/>{self.show(node.args[0], ATOM)}'
        inside = "<mo>;</mo>".join(self.show(arg) for arg in node.args)
        return f'{self.block(node)}<mo stretchy="false">[</mo>{inside}<mo stretchy="false">]</mo>'

    def layer_norm(self, inside: list[str], part: str | int | None, eps: float) -> str:
        operand = "<mo>;</mo>".join(inside)
        name = word("LN")
        if part not in (None, ""):
            mark = symbol(part) if isinstance(part, str) else f"<mn>{part}</mn>"
            name = f"<msub>{name}{mark}</msub>"
        return name + self.parentheses(operand)

    def call(self, node: Node) -> str:
        given = [self.show(arg) for arg in node.args]
        match node.op:
            case "where":
                return _cases(*given)
            case "sqrt":
                return f"<msqrt>{given[0]}</msqrt>"
            case "rsqrt":
                return f"<mfrac><mn>1</mn><msqrt>{given[0]}</msqrt></mfrac>"
            case "abs":
                return f"<mrow><mo>|</mo>{given[0]}<mo>|</mo></mrow>"
            case "log_sigmoid":
                return f"{word('log')}{word('σ')}{self.parentheses(given[0])}"
            case "clip":
                given += [number(node["low"]), number(node["high"])]
        name = self.functions.get(node.op, node.op)
        return (word(name) if name else "") + self.parentheses("<mo>,</mo>".join(given))

    def _write(self, index: int) -> tuple[str, int]:
        node = self.nodes[index]
        if node.op == "neg":
            return f"<mo>−</mo>{self.show(node.args[0], self.negated)}", SUM
        return super()._write(index)


def symbol(name: str) -> str:
    """A variable: one letter slanted, a Greek letter's name as the letter, a word upright."""
    return word(unescape(f"&{name};") if name in GREEK else name)


def word(text: str) -> str:
    return f"<mi>{plain(text)}</mi>"


def number(value: float) -> str:
    """1.0 as 1, −0.5 with the minus sign of mathematics."""
    text = f"{abs(value):g}".replace("inf", "∞")
    return ("<mo>−</mo>" if value < 0 else "") + f"<mn>{text}</mn>"


def math(inside: str) -> str:
    return f'<math displaystyle="true"><mrow>{inside}</mrow></math>'


def long_math(inside: str) -> str:
    """An expression that may go on in another line at each plus."""
    if any(tall in inside for tall in TALL):
        return math(inside)
    plus = '<mo form="infix">+</mo>'
    first, *others = inside.split("<mo>+</mo>")
    return "<wbr>".join(map(math, [first, *(plus + term for term in others)]))


def _row(inside: str) -> str:
    return f"<mrow>{inside}</mrow>"


def _cases(condition: str, a: str, b: str) -> str:
    lines = [(a, f"<mtext>if&#160;</mtext>{condition}"), (b, "<mtext>otherwise</mtext>")]
    rows = "".join(f"<mtr><mtd>{v}</mtd><mtd>{when}</mtd></mtr>" for v, when in lines)
    return f"<mrow><mo>{{</mo><mtable>{rows}</mtable></mrow>"
