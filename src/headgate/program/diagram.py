"""A Program as a picture: inputs and previous states on the left, new states on the right.

Blue boxes are sums of products and biases, orange ones functions unit by unit, green ones what
looks at a whole row; round ones are arithmetic. A name stands where its value leaves. A thick line
is a state that only arithmetic changes; one runs straight along the top, the conveyor belt.
"""

from __future__ import annotations

from html import escape
from itertools import pairwise
from math import sqrt

from headgate.program.layered import Box, Line, arrange
from headgate.program.parts import Part, carried, parts_of
from headgate.program.program import Program

INK, GREY, STRONG = "#30363d", "#6c7a96", "#d55e00"
FILLS = {
    "affine": ("#d9eaf4", "#0072b2"),
    "function": ("#fbeccc", "#e69f00"),
    "norm": ("#d9f0ea", "#009e73"),
    "leaf": ("#ffffff", GREY),
    "arithmetic": ("#ffffff", INK),
    "join": (INK, INK),
    **dict.fromkeys(("state", "input", "next"), ("#eceff3", GREY)),
}
"""Inside and border of each kind of part."""
ROUND = ("arithmetic", "join", "state", "input", "next")
LETTER, ROW, SMALL, MARGIN = 8.4, 19.0, 34.0, 18.0
"""The width of a letter, the height of a line of text and of a small part, and the room around."""
FONT = 'font-family="DejaVu Sans, Verdana, Helvetica, Arial, sans-serif" font-size="14"'


def diagram(program: Program) -> str:
    """The Program as an SVG document on a white ground. The same Program gives the same text."""
    return _Picture(program).document()


class _Picture:
    """The parts of a Program with their places."""

    def __init__(self, program: Program) -> None:
        self.name = escape(program.name)
        self.parts = parts_of(program)
        self.labels = [self._label(index) for index in range(len(self.parts))]
        self.boxes = list(map(_box, self.parts, self.labels))
        ways = [carried(self.parts, state.name) for state in program.states]
        self.thick = {edge for way in ways for edge in pairwise(way)}
        self.centres, self.lines = arrange(self.boxes, next((way for way in ways if way), ()))

    def document(self) -> str:
        left, top, right, bottom = self._frame()
        place = f"{left:.0f} {top:.0f} {right - left:.0f} {bottom - top:.0f}"
        size = f'width="{right - left:.0f}" height="{bottom - top:.0f}"'
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{place}" {size} role="img" '
            f'aria-label="One step of {self.name}" {FONT}>',
            f"<title>One step of {self.name}</title>",
            f'<rect x="{left:.0f}" y="{top:.0f}" {size} rx="10" fill="#ffffff"/>',
            *self._drawn_lines(),
            *(text for index in range(len(self.parts)) for text in self._drawn_part(index)),
            "</svg>",
        ]
        return "\n".join(lines) + "\n"

    def _frame(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the picture."""
        placed = list(zip(self.centres, self.boxes, strict=True))
        levels = [y for line in self.lines for _, _, y in line.levels]
        return (
            min(x - box.width / 2 for (x, _), box in placed) - MARGIN,
            min([y - box.height / 2 for (_, y), box in placed] + levels) - MARGIN,
            max(x + box.width / 2 + box.label for (x, _), box in placed) + MARGIN,
            max([y + box.height / 2 for (_, y), box in placed] + levels) + MARGIN,
        )

    def _label(self, index: int) -> str:
        """The name that stands right of a part: none where the new state says the same."""
        readers = {part.kind for part in self.parts if index in part.args}
        plain = self.parts[index].kind in ("state", "next") or readers == {"next"}
        return "" if plain else self.parts[index].label

    def _drawn_lines(self) -> list[str]:
        strokes: dict[bool, dict[str, None]] = {False: {}, True: {}}
        heads: dict[str, None] = {}
        entries = self._entries()
        for line in self.lines:
            bold = (line.start, line.end) in self.thick
            x, y = entries[line.start, line.end]
            strokes[bold] |= dict.fromkeys(_stroke(line, x, y))
            kind = self.parts[line.end].kind
            if kind == "next" or (kind != "join" and not bold):
                heads[_head(x, y, line.rises, bold)] = None
        lines = [
            f'<path d="{" ".join(pieces)}" fill="none" stroke="{STRONG if bold else INK}" '
            f'stroke-width="{5 if bold else 1.6}"/>'
            for bold, pieces in strokes.items()
            if pieces
        ]
        return [*lines, *heads]

    def _entries(self) -> dict[tuple[int, int], tuple[float, float]]:
        """Where each line meets the part that it ends at: beside each other, in order."""
        found: dict[tuple[int, int], tuple[float, float]] = {}
        for index, part in enumerate(self.parts):
            for rises in (False, True):
                mine = [e for e in self.lines if e.end == index and e.rises == rises]
                if part.ordered:
                    mine.sort(key=lambda e: part.args.index(e.start))
                else:
                    mine.sort(key=lambda e: e.levels[-1 if e.rises else -2][2])
                for k, line in enumerate(mine):
                    step = min(14.0, (self.boxes[index].height - 10) / len(mine))
                    aside = 0.0 if part.kind == "join" else (k - (len(mine) - 1) / 2) * step
                    found[line.start, index] = self._border(index, aside, rises)
        return found

    def _border(self, index: int, aside: float, below: bool) -> tuple[float, float]:
        """The point of a part's left border, or its lower one, that is so far from the middle."""
        (x, y), box = self.centres[index], self.boxes[index]
        radius = box.height / 2 if self.parts[index].kind in ROUND else 0.0
        half, across = (box.width, box.height) if below else (box.height, box.width)
        into_corner = max(abs(aside) - half / 2 + radius, 0.0)
        far = across / 2 - radius + sqrt(max(radius**2 - into_corner**2, 0.0))
        return (x + aside, y + far) if below else (x - far, y + aside)

    def _drawn_part(self, index: int) -> list[str]:
        part, box, (x, y) = self.parts[index], self.boxes[index], self.centres[index]
        fill, border = FILLS[part.kind]
        left, top = x - box.width / 2, y - box.height / 2
        corner = box.height / 2 if part.kind in ROUND else 7.0
        drawn = [
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{box.width:.1f}" '
            f'height="{box.height:.1f}" rx="{corner:.1f}" fill="{fill}" stroke="{border}" '
            'stroke-width="1.6"/>'
        ]
        first = y + 5 - ROW * (len(part.lines) - 1) / 2
        for k, line in enumerate(part.lines):
            weight = ' font-weight="bold"' if part.kind == "affine" and k == 0 else ""
            style = f'text-anchor="middle" fill="{INK}"{weight}'
            drawn.append(_text(x, first + ROW * k, style, line))
        if self.labels[index]:
            above = 10 if any(start == index for start, _ in self.thick) else 6
            style = f'font-style="italic" fill="{STRONG}"'
            drawn.append(_text(left + box.width + 6, y - above, style, self.labels[index]))
        return drawn


def _box(part: Part, label: str) -> Box:
    """The size of a part."""
    if part.kind == "join":
        return Box(8, 8, 0, part.args)
    width = max(LETTER * max(map(len, part.lines)) + 18, SMALL + 8)
    height = SMALL if len(part.lines) == 1 else ROW * len(part.lines) + 12
    if part.kind == "arithmetic" and len(part.lines[0]) == 1:
        width = height = SMALL
    room = LETTER * len(label) + 8 if label else 0.0
    return Box(width, height, room, part.args, part.kind == "leaf", part.kind == "next")


def _text(x: float, y: float, style: str, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _stroke(line: Line, x: float, y: float) -> list[str]:
    """The pieces of a line to (x, y): level stretches, and a curve from each to the next."""
    levels = list(line.levels)
    if not line.rises:
        levels[-1] = (levels[-1][0], x, y)
    pieces = []
    for (left, right, level), (end, _, other) in pairwise(levels):
        turn = (right + end) / 2
        curve = f"C{turn:.1f} {level:.1f} {turn:.1f} {other:.1f} {end:.1f} {other:.1f}"
        pieces.append(f"M{left:.1f} {level:.1f}H{right:.1f}{curve}")
    left, right, level = levels[-1]
    if line.rises:
        up = f"Q{x:.1f} {level:.1f} {x:.1f} {level - 10:.1f}V{y:.1f}"
        pieces.append(f"M{left:.1f} {level:.1f}H{x - 10:.1f}{up}")
    elif right > left:
        pieces.append(f"M{left:.1f} {level:.1f}H{right:.1f}")
    return pieces


def _head(x: float, y: float, rises: bool, bold: bool) -> str:
    long, wide = (13, 8) if bold else (8, 4)
    way = f"l{-wide} {long}h{2 * wide}z" if rises else f"l{-long} {-wide}v{2 * wide}z"
    return f'<path d="M{x:.1f} {y:.1f}{way}" fill="{STRONG if bold else INK}"/>'
