"""The equations of a cell, and under each the same line with places for the numbers of a step."""

from __future__ import annotations

from headgate.inspection.steps.mathml import MathML, long_math, math, symbol
from headgate.inspection.steps.numbers import Numbers
from headgate.program.notation import COMPARE, LEAF_SYMBOLS, SUM
from headgate.program.program import Node, Program

WHOLE = ("input", "state", "parameter", "mask", "product", "layer_norm")
"""What a line in numbers gives as one number."""


class Filled(MathML):
    """The equations with a place for a number where a value stands that has one of its own."""

    def __init__(self, program: Program, numbers: Numbers) -> None:
        self.numbers = numbers
        super().__init__(program)

    def value(self, name: str) -> str:
        return f'<msub>{symbol(name)}<mn class="unit">0</mn></msub>'

    def show(self, index: int, needed: int = COMPARE) -> str:
        node = self.nodes[index]
        named = index in self.labels and node.op not in LEAF_SYMBOLS
        if named or node.op in WHOLE:
            return self.place(index, needed > SUM)
        return super().show(index, needed)

    def place(self, index: int, enclosed: bool = False) -> str:
        """Where the page writes the value; in parentheses where a minus sign needs them."""
        signed = ' data-p="1"' if enclosed else ""
        return f'<mn data-s="{self.numbers.place(index)}"{signed}>–</mn>'

    def sign(self, node: Node) -> str:
        return "<mo>×</mo>" if node.op == "mul" else super().sign(node)

    def filled(self, index: int) -> list[str]:
        """The right side of a line in numbers, and what they make."""
        if self.nodes[index].op in (*WHOLE, "constant"):
            return [self.place(index)]
        return [self._write(index)[0], self.place(index)]


def equations_html(program: Program, numbers: Numbers) -> str:
    """All lines: the equation, and its numbers for the chosen unit under it."""
    plain, filled = MathML(program), Filled(program, numbers)
    lines = []
    for index, labels in plain.labels.items():
        first, *others = labels
        sides = [(first, plain._write(index)[0], filled.labels[index][0], filled.filled(index))]
        sides += [
            (other, first, name, [filled.place(index)])
            for other, name in zip(others, filled.labels[index][1:], strict=True)
        ]
        lines += [_line(*each) for each in sides]
    return "\n".join(lines)


def _line(label: str, text: str, name: str, filled: list[str]) -> str:
    numbers = " ".join(long_math(f"<mo>=</mo>{part}") for part in filled)
    return (
        '<div class="equation scroll">'
        f"<span>{math(label)}</span><span>{long_math(f'<mo>=</mo>{text}')}</span>"
        f'<span class="filled">{math(name)}</span>'
        f'<span class="filled">{numbers}</span></div>'
    )
