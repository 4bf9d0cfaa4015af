"""The inside of a module as HTML: lanes with valves and bars, which the script fills each step."""

from __future__ import annotations

from headgate.inspection.steps.lanes import Inside, Lane, Station
from headgate.inspection.steps.mathml import MathML, math, word
from headgate.inspection.steps.numbers import Numbers
from headgate.inspection.tables import plain
from headgate.program import Program
from headgate.program.notation import ATOM, LEAF_SYMBOLS

LARGE = 2
"""An expression of more operations than this is written with an ellipsis inside a drawing."""

CHANNEL = '<span class="channel"><i class="up"></i><i class="down"></i><i class="plate"></i></span>'


class Module:
    """The drawing of a module; ``numbers`` is asked for every place in it."""

    def __init__(self, program: Program, numbers: Numbers) -> None:
        self.program, self.numbers = program, numbers
        self.notation = MathML(program)
        self.inside = Inside(program, self.notation.labels)
        self.names = {index: name for name, index in program.names.items()}

    def html(self) -> str:
        lanes = "\n".join(self._lane(lane) for lane in self.inside.lanes)
        rest = self.inside.rest()
        if not rest:
            return lanes
        heading = "<h3>Other values</h3>\n" if lanes else ""
        widgets = "".join(map(self._widget, rest))
        return f'{lanes}\n{heading}<div class="feeds others">{widgets}</div>'

    def gates(self) -> list[int]:
        """The named gates, in the order of the equations."""
        return [i for i in self.notation.labels if i in self.names and self.inside.is_gate(i)]

    def _lane(self, lane: Lane) -> str:
        name = self.names.get(lane.end, "")
        kind = "State" if lane.end in {s.next for s in self.program.states} else "Value"
        what = "what stays and what comes in" if lane.carries else "what goes out"
        said = f"{kind} {plain(name)}: {what}" if name else f"On the way: {what}"
        place, end = self.numbers.place(lane.start), self.numbers.place(lane.end)
        stations = "".join(map(self._station, lane.stations))
        return (
            f'<h3>{said}</h3><div class="scroll lane" role="group" aria-label="{said}" '
            f'data-start="{place}" data-end="{end}">'
            f'<div class="stop">{_pipe()}{self._number(lane.start, place)}</div>{stations}'
            f'<div class="stop end">{_pipe()}{self._number(lane.end, end)}</div></div>'
        )

    def _station(self, station: Station) -> str:
        place = self.numbers.place(station.term)
        widgets = '<span class="times">×</span>'.join(map(self._widget, station.feeds))
        product = len(station.feeds) > 1 or station.sign == "×"
        made = f'<span class="made">= <b data-s="{place}">–</b></span>' if product else ""
        return (
            f'<div class="stop" data-sign="{station.sign}" data-term="{place}">'
            f'{_pipe(station.sign)}<div class="feeds">{widgets}</div>{made}</div>'
        )

    def _number(self, index: int, place: int) -> str:
        return (
            f'<span class="label">{self._label(index)}</span>'
            f'<b class="number" data-s="{place}">–</b>'
        )

    def _widget(self, index: int) -> str:
        """A valve for a gate, a bar for any other value."""
        place = self.numbers.place(index)
        end = f'<b class="number" data-s="{place}">–</b>'
        label = f'<span class="label">{self._label(index)}</span>'
        if self.inside.is_gate(index):
            called = self.inside.called(index, self.names.get(index, ""))
            return (
                f'<div class="valve" data-gate="{place}">{label}{CHANNEL}{end}'
                f"<small>{called}</small></div>"
            )
        return (
            f'<div class="bar" data-bar="{place}">{label}'
            f'<span class="gauge"><i></i></span>{end}<small></small></div>'
        )

    def _label(self, index: int) -> str:
        """The name, or the expression where it is short."""
        if index in self.notation.labels or self._size(index) <= LARGE:
            return math(self.notation.show(index, ATOM))
        op = self.program.nodes[index].op
        return math(word(op) + "<mo>(</mo><mo>…</mo><mo>)</mo>")

    def _size(self, index: int, root: bool = True) -> int:
        node = self.program.nodes[index]
        if node.op in LEAF_SYMBOLS or (index in self.notation.labels and not root):
            return 0
        return 1 + sum(self._size(a, root=False) for a in node.args)


def _pipe(sign: str = "") -> str:
    circle = f'<span class="sign" aria-hidden="true">{sign}</span>' if sign else ""
    return f'<span class="pipe"><i class="flow"></i><i class="flow"></i>{circle}</span>'
