from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from headgate import Cell, Recurrent, cell, relu, sigmoid, tanh, where
from headgate.cells import BUILT_IN
from headgate.inspection import Observation, observe, steps_page
from headgate.inspection.steps.lanes import Inside
from headgate.program.show import Text

FUNCTIONS = {
    "σ": lambda v: 1 / (1 + math.exp(-v)),
    "logσ": lambda v: -math.log1p(math.exp(-v)),
    "tanh": math.tanh,
    "exp": math.exp,
    "relu": lambda v: max(v, 0.0),
    "max": max,
    "min": min,
}
SIGNS = {"×": "*", "·": "*", "+": "+", "−": "-", "(": "(", ")": ")", ",": ",", "=": "=="}


@cell
def leaky(x, h, s, *, W, R, b, tau):
    """A cell of one's own: two states, a named product, a maximum and a quotient."""
    g = sigmoid(W.g @ x + R.g @ h + b.g)
    kept = g * s
    s = kept + (1 - g) * tanh(W.n @ x - b.n)
    h = relu(s) / (1 + tau * tau) - 0.5 * tanh(s)
    return h, s


def watched(
    which: Cell | str, lengths: tuple[int, ...] = (9, 9), inputs: int = 3, **options: object
) -> Observation:
    """What a layer with random weights and random first states did on random rows."""
    options = {"sizes": {"projection": 3}} | options if which == "lstm_projected" else options
    module = Recurrent(which, inputs, 5, **options)  # type: ignore[arg-type]
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    x = torch.randn(max(lengths), len(lengths), inputs)
    directions = 1 + bool(options.get("bidirectional"))
    sizes = module.layer_sizes[0]
    states = module.program.states
    starts = [torch.rand(directions, len(lengths), sizes[state.width]) for state in states]
    if any(math.isinf(state.initial) for state in states):
        return observe(module, x, lengths=list(lengths))
    return observe(module, x, lengths=list(lengths), hx=tuple(starts))


class Read:
    """A page as its script reads it."""

    def __init__(self, page: str) -> None:
        self.html = page
        text = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
        assert len(text) == 1
        self.data = json.loads(text[0], parse_constant=lambda name: pytest.fail(name))
        self.numbers = np.frombuffer(base64.b64decode(self.data["blob"]), "<f4")
        self.units = range(*self.data["units"])

    def value(self, place: int, step: int, unit: int) -> float:
        series = self.data["nodes"][place] if place >= 0 else self.data["tables"][-place - 1]
        start, width, later, fixed, shared = series
        column = 0 if shared else unit - self.units.start
        if column >= width:
            return math.nan
        return float(self.numbers[start + (0 if fixed else step + later) * width + column])

    def lines(self) -> dict[str, tuple[list[ElementTree.Element], int]]:
        """Of each equation: the expression with its numbers, and the place of the result."""
        found = {}
        for line in re.findall(r'<div class="equation.*?</div>', self.html, re.S):
            pieces = re.findall(r"<math.*?</math>", line.replace("<wbr>", ""), re.S)
            parsed = [ElementTree.fromstring(piece) for piece in pieces]
            numbers = parsed[
                [bool(p.findall(".//mn[@class='unit']")) for p in parsed].index(True) :
            ]
            name = numbers[0].findtext(".//mi")
            result = int(numbers[-1].findall(".//mn")[-1].attrib["data-s"])
            found[name] = (numbers[1:-1] or numbers[1:], result)
        return found

    def computed(self, pieces: list[ElementTree.Element], step: int, unit: int) -> float:
        text = "".join(self._written(child, step, unit) for p in pieces for child in p)
        return float(eval(text.removeprefix("=="), {"inf": math.inf, **FUNCTIONS}))

    def _written(self, element: ElementTree.Element, step: int, unit: int) -> str:
        if element.tag == "mn" and "data-s" in element.attrib:
            return f"({self.value(int(element.attrib['data-s']), step, unit)!r})"
        if element.tag == "mo":
            return SIGNS[element.text or ""]
        inside = [self._written(child, step, unit) for child in element]
        if element.tag == "mfrac":
            return f"(({inside[0]})/({inside[1]}))"
        return (element.text or "") + "".join(inside)


def example(name: str) -> Cell:
    """A cell as a user writes it."""
    path = Path(__file__).parents[2] / "examples" / "cells" / f"{name}.py"
    return runpy.run_path(str(path))[name]


CELLS = [*("lstm", "gru", "gru_reset_before", "lstm_peephole", "lstm_coupled", "lstm_projected")]
CELLS += ["lstm_layer_norm", "rnn", "FGR", "NIG"]
OWN = {"leaky": leaky} | {name: example(name) for name in ("slstm", "mgu", "janet", "indrnn")}
OPTIONS = {
    "zoneout": {"zoneout": 0.2, "recurrent_dropout": 0.1},
    "layer_norm": {"layer_norm": True, "clip_state": 0.5},
    "reverse": {"bidirectional": True},
}


@pytest.mark.parametrize("name", [*CELLS, *OWN, *OPTIONS])
def test_each_line_makes_the_recorded_value(name: str) -> None:
    """The numbers filled in, put together again as the line says, are what the engine computed."""
    options = OPTIONS.get(name, {})
    observation = watched(OWN.get(name, name if name in CELLS else "lstm"), **options)
    direction = int(name == "reverse")
    page = Read(steps_page(observation, row=1, direction=direction))
    layer = observation.layers[0, direction]
    lines = page.lines()
    assert set(layer.values) <= set(lines)
    for label, (pieces, result) in lines.items():
        for step in (0, 1, 8):
            for unit in page.units:
                shown = page.value(result, step, unit)
                if label in layer.values and not math.isnan(shown):
                    recorded = layer.values[label][1, 8 - step if direction else step, unit]
                    assert shown == recorded, (label, step, unit)
                if "clip" not in ElementTree.tostring(pieces[0], "unicode") and shown == shown:
                    assert page.computed(pieces, step, unit) == pytest.approx(shown, abs=2e-6)


def test_a_product_is_the_sum_over_what_the_unit_reads() -> None:
    observation = watched("lstm")
    page = Read(steps_page(observation))
    layer = observation.layers[0, 0]
    pieces, _ = page.lines()["f"]
    places = [int(n.attrib["data-s"]) for p in pieces for n in p.iter("mn") if "data-s" in n.attrib]
    read = layer.weights["W"][5:10] @ layer.input[0, 4]
    recalled = layer.weights["R"][5:10] @ layer.values["h"][0, 3]
    expected = [read, recalled, layer.weights["b"][5:10]]
    for place, values in zip(places, expected, strict=True):
        shown = [page.value(place, 4, unit) for unit in range(5)]
        assert shown == pytest.approx(values, abs=1e-6)


def test_only_valid_steps_of_a_row() -> None:
    observation = watched("gru", (9, 4))
    layer = observation.layers[0, 0]
    for values in (*layer.values.values(), layer.input):
        values[1, 4:] = np.nan
    page = Read(steps_page(observation, row=1))
    assert page.data["steps"] == page.data["total"] == 4
    assert page.data["times"] == ["0", "1", "2", "3"]
    assert np.isfinite(page.numbers).all()


def test_a_missing_value_breaks_nothing() -> None:
    observation = watched("gru")
    series = np.full((2, 9), np.nan)
    series[0, 3] = 7.0
    observation.layers[0, 0].values["z"][0, 2, 1] = np.nan
    observation = replace(observation, series=series, prediction=np.full((2, 9), np.nan))
    page = Read(steps_page(observation))
    _, place = page.lines()["z"]
    assert math.isnan(page.value(place, 2, 1))
    observed = int(re.findall(r'observed <b data-s="(-\d+)"', page.html)[0])
    assert page.value(observed, 3, 0) == 7.0
    assert math.isnan(page.value(observed, 4, 0))
    assert "nan" not in re.findall(r"<path.*?/>", page.html)[0]


def test_dates_and_names() -> None:
    weeks = np.datetime64("2020-01-05") + 7 * np.arange(9)
    observation = replace(
        watched("lstm"),
        series=np.arange(18.0).reshape(2, 9),
        time=(weeks, weeks),
        ids=("north", "south"),
        name="CO₂, ppm",
        time_name="week",
    )
    page = Read(steps_page(observation, row=1, title="Looking inside"))
    assert page.data["times"][:2] == ["2020-01-05", "2020-01-12"]
    assert "<h1>Looking inside</h1>" in page.html
    for text in ("south", "CO₂, ppm", "week", "Long short-term memory with a forget gate."):
        assert text in page.html


def test_a_direction_that_reads_backwards_is_shown_as_it_reads() -> None:
    observation = watched("lstm", (9, 4), bidirectional=True)
    page = Read(steps_page(observation, row=1, direction=1))
    assert page.data["times"] == ["3", "2", "1", "0"]
    assert "read from the end to the beginning" in page.html


def test_long_rows_and_wide_layers_stay_small() -> None:
    module = Recurrent("FGR", 2, 200)
    observation = observe(module, torch.randn(900, 1, 2))
    page = Read(steps_page(observation, unit=150))
    assert len(page.html.encode()) < 3_000_000
    assert page.data["unit"] == 150
    assert page.units == range(118, 182)
    steps = page.data["steps"]
    assert page.data["first"] == 900 - steps
    assert f"The last {steps} of 900 steps are in this page." in page.html
    assert "Units 118 to 181 of 200 are in this page." in page.html
    _, place = page.lines()["c"]
    recorded = observation.layers[0, 0].values["c"][0, -1, 150]
    assert page.value(place, steps - 1, 150) == recorded


def test_the_unit_that_moves_most_comes_first() -> None:
    observation = watched("gru")
    moved = observation.layers[0, 0].values["h"][0].std(axis=0)
    assert Read(steps_page(observation)).data["unit"] == moved.argmax()


EVIL = "</script><script>alert('1')</script><!--\"&\u2028"


def test_text_is_never_html_nor_script() -> None:
    evil_cell = cell(name=EVIL)(lambda x, h, *, W: tanh(W[EVIL] @ x - 0.5 * h))
    module = Recurrent(evil_cell, 2, 2)
    observation = replace(
        observe(module, torch.randn(3, 1, 2)),
        input_names=(EVIL, "b"),
        ids=(EVIL,),
        name=EVIL,
        time_name=EVIL,
        time=(np.array([EVIL, "b", "c"]),),
        series=np.zeros((1, 3)),
    )
    page = Read(steps_page(observation, title=EVIL))
    assert page.html.count("<script") == page.html.count("</script") == 2
    assert "<!--" not in page.html
    assert page.data["times"][0] == EVIL
    page.lines()


def test_the_policy_allows_this_script_and_nothing_else() -> None:
    html = steps_page(watched("lstm"))
    script = re.findall(r"<script>(.*?)</script>", html, re.S)
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)[0]
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"https?:|url\(|@import|\son\w+=", html)
    assert "<noscript>" in html


def lanes(which: Cell) -> dict[str, list[str]]:
    """Of each lane what it starts from, and its signs with what comes in there."""
    notation = Text(which.program)
    inside = Inside(which.program, notation.labels)
    return {
        notation.labels[lane.end][0]: [
            notation.show(lane.start),
            *(f"{s.sign} {', '.join(map(notation.show, s.feeds))}" for s in lane.stations),
        ]
        for lane in inside.lanes
    }


def test_lanes_follow_from_the_equations() -> None:
    belt = ["c[t-1]", "× f", "+ i, g"]
    assert lanes(BUILT_IN["lstm"]) == {"c[t]": belt, "h[t]": ["tanh(c[t])", "× o"]}
    assert lanes(BUILT_IN["lstm_coupled"])["c[t]"] == belt
    assert lanes(BUILT_IN["lstm_peephole"])["c[t]"] == belt
    assert lanes(BUILT_IN["lstm_original"])["c[t]"] == ["c[t-1]", "+ i, g"]
    assert lanes(BUILT_IN["gru"]) == {"h[t]": ["h[t-1]", "× z", "+ 1 - z, n"]}
    assert lanes(leaky)["s[t]"] == ["s[t-1]", "× g", "+ 1 - g, tanh(W.n @ x[t] - b.n)"]
    assert lanes(BUILT_IN["rnn"]) == {}
    zoned = Recurrent("lstm", 1, 1, zoneout=0.1).program
    assert "c[t-1], × f, + i, g" in [", ".join(lane) for lane in lanes(_as_cell(zoned)).values()]


def _as_cell(program: object) -> Cell:
    made = Cell.__new__(Cell)
    made.program = program  # type: ignore[assignment]
    return made


def test_gates_bear_their_name_where_they_do_what_it_says() -> None:
    html = steps_page(watched("lstm"))
    assert re.findall(r"<small>([a-z ]+)</small>", html) == [
        "forget gate",
        "input gate",
        "output gate",
    ]
    assert "reset gate" in steps_page(watched("gru"))
    assert 'class="valve"' not in steps_page(watched("rnn"))
    assert 'class="bar"' in steps_page(watched("rnn"))


def test_branches_and_comparisons_are_typeset() -> None:
    @cell
    def steep(x, h, *, W, R):
        v = W @ x + R @ h
        h = where(v > h, abs(v), -h)
        return h

    page = Read(steps_page(watched(steep)))
    pieces, _ = page.lines()["h"]
    assert "otherwise" in ElementTree.tostring(pieces[0], "unicode")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"row": 2}, r"expected a row of 0 … 1, got row=2"),
        ({"row": 1}, r"row 1 has no step"),
        ({"layer": 1}, r"one of \(layer, direction\) = \(0, 0\), got \(1, 0\)"),
        ({"unit": 5}, r"expected a unit of 0 … 4, got unit=5"),
    ],
)
def test_what_is_not_there(chosen: dict[str, Any], message: str) -> None:
    observation = watched("lstm", (9, 0))
    with pytest.raises(ValueError, match=rf"steps_page: .*{message}"):
        steps_page(observation, **chosen)
