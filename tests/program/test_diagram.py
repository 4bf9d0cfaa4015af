"""The picture of a Program: everything is in it, nothing covers anything, the belt is straight."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations, pairwise
from math import dist, hypot
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headgate
from headgate import cell, cells, maximum, relu, tanh, where
from headgate.program import Program
from headgate.program.lower import lower
from headgate.program.transform import transform

Points = list[tuple[float, float]]


class Area(NamedTuple):
    """A rectangle with round corners."""

    left: float
    top: float
    right: float
    bottom: float
    corner: float = 0.0

    def holds(self, x: float, y: float, border: float = 1.0) -> bool:
        across = max(self.left + self.corner - x, 0.0, x - self.right + self.corner)
        along = max(self.top + self.corner - y, 0.0, y - self.bottom + self.corner)
        within = self.left + border < x < self.right - border
        within &= self.top + border < y < self.bottom - border
        return within and hypot(across, along) <= max(self.corner - border, 0.0)

    def meets(self, other: Area) -> bool:
        across = min(self.right, other.right) - max(self.left, other.left)
        return across > 0 and min(self.bottom, other.bottom) - max(self.top, other.top) > 0


class Drawn:
    """An SVG document read back: its parts, their texts, the names on lines, and the lines."""

    def __init__(self, svg: str) -> None:
        root = ElementTree.fromstring(svg)
        assert root.tag.endswith("svg")
        ground, *rects = (area(e) for e in root if e.tag.endswith("rect"))
        self.ground, self.parts = ground, rects
        texts = [e for e in root if e.tag.endswith("text")]
        self.inside = [(e.text or "", place(e)) for e in texts if e.get("text-anchor")]
        self.names = [(e.text or "", place(e)) for e in texts if not e.get("text-anchor")]
        strokes = [e for e in root if e.tag.endswith("path") and e.get("fill") == "none"]
        self.thin = [p for e in strokes if float(e.attrib["stroke-width"]) < 3 for p in pieces(e)]
        self.thick = [p for e in strokes if float(e.attrib["stroke-width"]) > 3 for p in pieces(e)]

    def texts(self) -> list[str]:
        return [text for text, _ in self.inside]

    def labels(self) -> set[str]:
        return {text for text, _ in self.names}

    def part(self, text: str) -> Area:
        """The only part with this text."""
        (at,) = (at for written, at in self.inside if written == text)
        (found,) = (part for part in self.parts if part.holds(*at))
        return found

    def entry(self, start: str, end: str) -> float:
        """The height at which the line from one part enters another in the next column."""
        a, b = self.part(start), self.part(end)
        from_a = [line for line in self.thin if line[0] == (a.right, (a.top + a.bottom) / 2)]
        (height,) = {line[-1][1] for line in from_a if b.top < line[-1][1] < b.bottom}
        return height


def area(e: ElementTree.Element) -> Area:
    x, y, width, height, corner = (float(e.attrib[k]) for k in ("x", "y", "width", "height", "rx"))
    return Area(x, y, x + width, y + height, corner)


def place(e: ElementTree.Element) -> tuple[float, float]:
    return float(e.attrib["x"]), float(e.attrib["y"])


def pieces(e: ElementTree.Element) -> Iterator[Points]:
    """Points along each piece of a path."""
    for piece in e.attrib["d"].split("M")[1:]:
        points: Points = []
        for command, text in re.findall(r"([A-Z]?)([-0-9. ]+)", piece):
            v = [float(word) for word in text.split()]
            x, y = points[-1] if points else (0.0, 0.0)
            corners = {
                "": [(v[0], v[-1])],
                "H": [(x, y), (v[0], y)],
                "V": [(x, y), (x, v[0])],
            }.get(command) or [(x, y), *zip(v[::2], v[1::2], strict=True)]
            steps = 1 + int(sum(dist(a, b) for a, b in pairwise(corners)) / 12)
            points += [bezier(corners, k / steps) for k in range(steps + 1)]
        yield points


def bezier(corners: Points, t: float) -> tuple[float, float]:
    while len(corners) > 1:
        corners = [(a + (c - a) * t, b + (d - b) * t) for (a, b), (c, d) in pairwise(corners)]
    return corners[0]


def check_clear(svg: str) -> Drawn:
    """Nothing covers anything, and everything is on the ground."""
    drawn = Drawn(svg)
    for a, b in combinations(drawn.parts, 2):
        assert not a.meets(b), (a, b)
    names = [Area(x, y - 10, x + 7 * len(text), y, 0.0) for text, (x, y) in drawn.names]
    for line in drawn.thin + drawn.thick:
        for x, y in line:
            assert drawn.ground.holds(x, y)
            assert not any(part.holds(x, y) for part in drawn.parts), (x, y)
    for line in drawn.thin:
        for x, y in line:
            assert not any(name.holds(x, y) for name in names), (x, y)
    for a in drawn.parts + names:
        assert drawn.ground.holds(a.left, a.top)
        assert drawn.ground.holds(a.right, a.bottom)
    for name in names:
        assert not any(name.meets(part) for part in drawn.parts), name
    for text, at in drawn.inside:
        (around,) = (part for part in drawn.parts if part.holds(*at))
        assert 7 * len(text) < around.right - around.left, text
    return drawn


OPTIONS: list[dict[str, Any]] = [
    {},
    {"layer_norm": True, "zoneout": 0.1},
    {"variational_dropout": 0.2, "clip_preactivation": 2.0, "clip_state": 3.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "+".join(o) or "plain")
@pytest.mark.parametrize("name", cells.BUILT_IN)
def test_every_cell_is_drawn_clearly(name: str, options: dict[str, Any]) -> None:
    if name == "lstm_layer_norm" and "layer_norm" in options:
        options = {"zoneout": 0.1}
    program = transform(cells.get(name).program, **options)
    drawn = check_clear(program.diagram())
    assert "x(t)" in drawn.texts()
    for state in program.states:
        assert f"{state.name}(t−1)" in drawn.texts()
        assert f"{state.name}(t)" in drawn.texts()
    named = {name for name in program.names if name not in {s.name for s in program.states}}
    assert named <= drawn.labels()


def test_a_lowered_program_is_drawn_clearly() -> None:
    check_clear(lower(cells.lstm_layer_norm.program).diagram())


def test_the_lstm_looks_like_the_textbooks() -> None:
    """The belt along the top; f, i, g, o below it in this order; gates multiply upwards."""
    drawn = check_clear(cells.lstm.diagram())
    assert sorted(drawn.texts()) == sorted(
        [*("h(t−1)", "c(t−1)", "x(t)", "h(t)", "c(t)"), *(f"affine {k}" for k in "ifgo")]
        + ["W x + R h + b"] * 4
        + ["σ"] * 3
        + ["tanh"] * 2
        + ["×"] * 3
        + ["+"]
    )
    assert drawn.labels() == {"i", "f", "g", "o", "c(t)"}
    tops = [drawn.part(f"affine {k}").top for k in "figo"]
    assert tops == sorted(tops)
    belt = drawn.part("c(t−1)")
    height = (belt.top + belt.bottom) / 2
    assert {y for line in drawn.thick for _, y in line} == {height}
    assert min(part.top for part in drawn.parts) == belt.top
    assert drawn.part("c(t)").top == belt.top
    assert drawn.part("h(t)").top > belt.bottom
    arrivals = [line[-1][1] for line in drawn.thin if line[0][1] > line[-1][1] == belt.bottom]
    assert len(arrivals) == 2  # f into its product, i ∘ g into the sum


@pytest.mark.parametrize(
    ("name", "belt"),
    [("rnn", None), ("gru", "h"), ("lstm_original", "c"), ("lstm_layer_norm", "c"), ("FGR", "c")],
)
def test_the_belt_is_the_state_that_only_arithmetic_changes(name: str, belt: str | None) -> None:
    drawn = Drawn(cells.get(name).diagram())
    assert bool(drawn.thick) == (belt is not None)
    if belt is not None:
        start, end = drawn.part(f"{belt}(t−1)"), drawn.part(f"{belt}(t)")
        assert min(x for line in drawn.thick for x, _ in line) == start.right
        assert max(x for line in drawn.thick for x, _ in line) == end.left


def test_what_is_one_thing_in_the_equations_is_one_part() -> None:
    texts = Drawn(cells.lstm_layer_norm.diagram()).texts()
    assert sorted(t for t in texts if t.startswith("LN")) == ["LN", "LN(R h)", "LN(W x)"]
    assert texts.count("gain_W ∘ LN(W x)") == 4
    texts = Drawn(cells.gru.diagram()).texts()
    assert {"affine n", "W x + b", "R h + d", "1 −"} <= set(texts)
    assert "W x + R h + p ∘ c(t) + b" in Drawn(cells.lstm_peephole.diagram()).texts()


def test_operands_that_may_not_be_exchanged_stand_in_order() -> None:
    @cell
    def ordered(x, h, *, W, R):
        a = W @ x
        b = R @ h
        p, q = 2 * b, a + 1
        return (p / q) * (q / p) - where(a > 0, b, 0.5) - (a - 1) / (b - 1)

    drawn = check_clear(ordered.diagram())
    assert {"> 0", "where(·, b, 0.5)", "× 2", "+ 1", "− 1", "· ÷ ·"} <= set(drawn.texts())
    for first, second, quotient in (("× 2", "+ 1", "p ÷ q"), ("+ 1", "× 2", "q ÷ p")):
        assert drawn.entry(first, quotient) < drawn.entry(second, quotient)


def test_text_is_escaped() -> None:
    @cell(name="a < b & c")
    def odd(x, h, *, W):
        return tanh(W["<&>"] @ x + h)

    drawn = check_clear(odd.diagram())
    assert "product <&>" in drawn.texts()


def test_a_parameter_a_state_that_stays_and_a_value_that_nothing_reads() -> None:
    @cell
    def corners(x, h, c, *, W, low):
        unread = relu(h)  # noqa: F841
        return maximum(W @ x, low), c

    drawn = check_clear(corners.diagram())
    assert {"low", "max"} <= set(drawn.texts())
    assert "unread" in drawn.labels()
    start, end = drawn.part("c(t−1)"), drawn.part("c(t)")
    assert {y for line in drawn.thick for _, y in line} == {(start.top + start.bottom) / 2}
    assert start.top == end.top


def test_the_same_program_gives_the_same_picture() -> None:
    program = cells.lstm_peephole.program
    assert Program.from_json(program.to_json()).diagram() == program.diagram()


def test_notebooks_show_cells_and_programs() -> None:
    assert cells.gru._repr_svg_() == cells.gru.diagram() == cells.gru.program._repr_svg_()


VECTORS = ("x", "h", "c", "b", "(P @ h)", "(W.k @ x)")
EXPRESSIONS = st.recursive(
    st.sampled_from((*VECTORS, "2.0")),
    lambda inner: st.one_of(
        *(
            st.builds(form.format, inner, st.sampled_from(VECTORS))
            for form in ("({} + {})", "({1} - {0})", "({} * {})", "({} / {})", "maximum({}, {})")
        ),
        *(
            st.builds(form.format, inner)
            for form in (
                *("tanh({} + c)", "sigmoid({} * h)", "(P @ (h - {}))"),
                *("layer_norm({} + h)", "where({} > c, h, -c)"),
            )
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(EXPRESSIONS, EXPRESSIONS, EXPRESSIONS)
def test_any_program_is_drawn_clearly(first: str, second: str, third: str) -> None:
    lines = [
        *("def f(x, h, c, m, *, P, W, b):", f"a = {first} + h + x + b"),
        *(
            f"d = tanh(a) * ({second}) + P @ h + W.k @ x",
            f"return d + c * a, a * c + d, m + ({third})",
        ),
    ]
    scope: dict[str, Any] = {
        name: getattr(headgate, name) for name in headgate.__all__ if name != "cells"
    }
    exec("\n    ".join(lines), scope)
    check_clear(cell(scope["f"]).diagram())
