"""``steps_page``: one HTML file in which a reader walks through the steps of a cell."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from headgate.inspection.observation import Layer, Observation
from headgate.inspection.page import STYLE
from headgate.inspection.steps.chart import chart_html
from headgate.inspection.steps.equations import equations_html
from headgate.inspection.steps.mathml import math
from headgate.inspection.steps.module import Module
from headgate.inspection.steps.numbers import Numbers
from headgate.inspection.steps.values import step_values
from headgate.inspection.tables import plain
from headgate.program.notation import LEAF_SYMBOLS

STEPS = 300
UNITS = 64
FLOATS = 450_000
"""The most numbers in a page: 2.4 MB in base64."""
INPUTS = 6
ASSETS = files("headgate.inspection.steps")


def steps_page(
    observation: Observation,
    *,
    row: int = 0,
    layer: int = 0,
    direction: int = 0,
    unit: int | None = None,
    title: str = "",
) -> str:
    """A page with a slider over time that shows each gate, state and equation at every step.

    One row of the observation, in one layer and direction (1 is the reverse one, whose steps stand
    in the order in which the cell reads them). ``unit`` is the hidden unit that is shown at first;
    None takes the one whose output moves most. What is shown follows from the cell's equations, for
    a cell of one's own as for a built-in one: sigmoids are drawn as gates, what updates a state as
    a channel that they open and close, and under each equation stand its numbers.

    The file needs no network and nothing beside it: its policy forbids every request. It stays
    under 3 MB: of a longer row the last 300 steps are in it (fewer where the cell has very many
    values), of a wider layer 64 units, and the page says so. Write it as UTF-8.

    Raises ValueError for a row, layer, direction or unit that is not there, and for a row without
    steps.
    """
    place = _Place(observation, row, layer, direction)
    program = place.layer.program
    values = step_values(place.layer, row, place.length, bool(direction))
    numbers = Numbers(program, values)
    module = Module(program, numbers)
    parts = {
        "module": module.html(),
        "equations": equations_html(program, numbers),
        "inputs": _inputs(place, numbers),
    }
    width = max(place.layer.sizes[state.width] for state in program.states)
    chosen, units = _units(width, values[program.states[0].next], unit)
    steps = _window(place.length, numbers.floats(units.stop - units.start))
    times = place.times()[steps]
    chart = chart_html(place.lines(), steps, numbers, observation.name)
    script = _asset("steps.js")
    return Template(_asset("steps.html")).substitute(
        parts,
        title=plain(title or f"{program.name}, step by step"),
        policy=_policy(script),
        style=f"{STYLE}\n{_asset('steps.css')}",
        lead=plain(place.lead()),
        limits=plain(_limits(place, steps, units, width)),
        chart=chart,
        steps=len(times),
        first_time=plain(times[0]),
        last_time=plain(times[-1]),
        time_name=plain(observation.time_name),
        data=_json({"times": times, "unit": chosen, **_data(place, module, steps, units)}),
        script=script,
    )


class _Place:
    """The row, layer and direction that a page is about; checked."""

    def __init__(self, observation: Observation, row: int, layer: int, direction: int) -> None:
        if not 0 <= row < len(observation.lengths):
            raise ValueError(
                f"steps_page: expected a row of 0 … {len(observation.lengths) - 1}, got row={row}"
            )
        if (layer, direction) not in observation.layers:
            known = ", ".join(map(str, observation.layers))
            raise ValueError(
                f"steps_page: expected one of (layer, direction) = {known}, "
                f"got ({layer}, {direction}); the first layer is 0, the reverse direction 1"
            )
        self.observation, self.row, self.number, self.reverse = observation, row, layer, direction
        self.layer: Layer = observation.layers[layer, direction]
        self.length = int(observation.lengths[row])
        if self.length < 1:
            raise ValueError(f"steps_page: row {row} has no step; choose a row that has some")

    def taken(self, array: np.ndarray) -> np.ndarray:
        """The row's valid steps, in the order in which the cell reads them."""
        return np.asarray(array)[self.row, : self.length][:: -1 if self.reverse else 1]

    def lines(self) -> dict[str, np.ndarray]:
        """What the chart draws: the series and its prediction, or the first input."""
        observation = self.observation
        if observation.series is None:
            return {observation.input_names[0]: self.taken(observation.inputs)[:, 0]}
        lines = {"observed": self.taken(observation.series)}
        if observation.prediction is not None:
            lines["prediction"] = self.taken(observation.prediction)
        return lines

    def times(self) -> list[str]:
        labels = np.asarray(self.observation.time[self.row])[: self.length]
        if labels.dtype.kind == "M":
            days = labels.astype("datetime64[D]")
            unit = "D" if (days == labels).all() else "s"
            shown = [text.replace("T", " ") for text in np.datetime_as_string(labels, unit=unit)]
        else:
            shown = [f"{label:g}" if isinstance(label, float) else str(label) for label in labels]
        return shown[:: -1 if self.reverse else 1]

    def input_names(self) -> list[str]:
        count = self.layer.input.shape[-1]
        names = self.observation.input_names
        if self.number == 0 and len(names) == count:
            return list(names)
        return [f"output {k} of the layer below" for k in range(count)]

    def lead(self) -> str:
        program, name = self.layer.program, self.observation.ids[self.row]
        told = program.doc.strip().splitlines()
        where = f"Layer {self.number}" + (", read from the end to the beginning" * self.reverse)
        which = f"; row {self.row}" + (f", {name}" if name else "")
        about = f": {told[0]}" if told else "."
        return f"{where}{which}. Cell {program.name}{about}"


def _units(width: int, output: np.ndarray, unit: int | None) -> tuple[int, slice]:
    """The unit shown at first, and those in the page: all, or 64 about it."""
    if unit is None:
        unit = int(np.argmax(np.nan_to_num(output).std(axis=0)))
    if not 0 <= unit < width:
        raise ValueError(f"steps_page: expected a unit of 0 … {width - 1}, got unit={unit}")
    first = min(max(0, unit - UNITS // 2), max(0, width - UNITS))
    return unit, slice(first, min(width, first + UNITS))


def _window(length: int, floats: int) -> slice:
    """The last steps, as many as the page holds."""
    return slice(max(0, length - min(STEPS, max(1, FLOATS // max(1, floats)))), length)


def _limits(place: _Place, steps: slice, units: slice, width: int) -> str:
    said = []
    if steps.start:
        count = steps.stop - steps.start
        said.append(f"The last {count} of {place.length} steps are in this page.")
    if units.stop - units.start < width:
        said.append(f"Units {units.start} to {units.stop - 1} of {width} are in this page.")
    return " ".join(said)


def _inputs(place: _Place, numbers: Numbers) -> str:
    """What the module reads at a step, the first few inputs by name."""
    x = place.taken(place.layer.input)
    names = place.input_names()
    table = numbers.table(x[:, :INPUTS])
    shown = "".join(
        f'<span>{plain(name)} <b data-s="{table}" data-u="{k}">–</b></span>'
        for k, name in enumerate(names[:INPUTS])
    )
    more = f"<span>and {len(names) - INPUTS} more</span>" if len(names) > INPUTS else ""
    return f"<span>{math('<msub><mi>x</mi><mi>t</mi></msub>')}:</span> {shown}{more}"


def _data(place: _Place, module: Module, steps: slice, units: slice) -> dict[str, Any]:
    """What the script reads, beside the labels of the steps."""
    output = place.layer.program.states[0]
    return {
        "steps": steps.stop - steps.start,
        "first": steps.start,
        "total": place.length,
        "units": [units.start, units.stop],
        "chain": {
            "name": output.name,
            "output": module.numbers.place(output.next),
            "gates": [
                {"name": module.names[i], "place": module.numbers.place(i)} for i in module.gates()
            ],
        },
        "heat": _heat(module),
        **module.numbers.packed(steps, units),
    }


def _heat(module: Module) -> list[dict[str, Any]]:
    """The named values for the heat map, gates first."""
    program = module.program
    states = {state.next for state in program.states}
    indices = [i for i in module.names if i in states or program.nodes[i].op not in LEAF_SYMBOLS]
    return [
        {
            "name": module.names[i],
            "place": module.numbers.place(i),
            "gate": module.inside.is_gate(i),
        }
        for i in sorted(indices, key=lambda i: (not module.inside.is_gate(i), i))
    ]


def _asset(name: str) -> str:
    return ASSETS.joinpath(name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """Nothing may be loaded, and only this very script may run."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def _json(data: dict[str, Any]) -> str:
    """JSON that ends no script element and opens no comment, whatever it holds."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
