"""Pictures of the units of an observed layer over the steps of one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from .gates import draw_above, gates_figure, meaning
from .observation import Layer, Observation
from .saturation import gates_of
from .style import DASHES, OTHERS, dress, mark_time, new_figure, title_and_legend

LINES = 5
"""Inputs that are drawn as lines; more are a band of colours."""
STYLES = [
    {"color": colour, "linestyle": dashes, "linewidth": 1.3}
    for dashes in ("-", DASHES[0])
    for colour in OTHERS
]


def units_figure(
    observation: Observation,
    row: int = 0,
    layer: int = 0,
    direction: int = 0,
    *,
    names: Sequence[str] = (),
    errors: bool = False,
) -> Figure:
    """Each named value as colours over the steps of a row, one line a unit, similar ones together.

    Above, on the same axis of time: the series with what was expected of it one step before, or
    the inputs of a model that reads no series. names: None but these values. errors: the error
    terms in place of the values.

    Raises ValueError for a row, a place or a name that was not observed, and for a row without
    steps.
    """
    part = _part(observation, row, layer, direction, names)
    values, what = part.values, f"Units of the {part.cell} cell"
    if errors:
        values, what = part.errors("units_figure"), f"Error terms in the {part.cell} cell"
    wide = {} if len(part.above) <= LINES else {"inputs": part.inputs}
    lines = {"mean of the inputs": part.inputs.mean(axis=1)} if wide else part.above
    figure = gates_figure(
        part.time,
        lines,
        {**wide, **values},
        name=part.name,
        time_name=observation.time_name,
        title=f"{what}{part.place}",
        between=() if errors else part.gates,
        labels=part.labels,
    )
    if wide:
        figure.axes[1].set_ylabel("input")
    return figure


def unit_figure(
    observation: Observation,
    unit: int,
    row: int = 0,
    layer: int = 0,
    direction: int = 0,
    *,
    names: Sequence[str] = (),
) -> Figure:
    """One unit of a layer as lines over the steps of a row: its gates, its other values, and the
    error terms where there are some, under the series.

    Raises ValueError as ``units_figure`` does, and for a unit that no value has.
    """
    part = _part(observation, row, layer, direction, names)
    widest = max(value.shape[1] for value in part.values.values())
    if not 0 <= unit < widest:
        raise ValueError(f"inspect: there is no unit {unit}; the layer has {widest}, from 0")
    mine = {key: value[:, unit] for key, value in part.values.items() if unit < value.shape[1]}
    panels = {
        "gates": {key: value for key, value in mine.items() if key in part.gates},
        "other values": {key: value for key, value in mine.items() if key not in part.gates},
    }
    if part.gradients is not None:
        panels["error terms"] = {key: part.gradients[key][:, unit] for key in mine}
    panels = {what: lines for what, lines in panels.items() if lines}
    styles = dict(zip(mine, STYLES * len(mine), strict=False))
    figure = new_figure(9, 2.4 + 1.9 * len(panels))
    rows = figure.subplots(len(panels) + 1, 1, sharex=True)
    above = dict(list(part.above.items())[:LINES])
    draw_above(
        rows[0], part.time, above, part.name, f"Unit {unit} of the {part.cell} cell{part.place}"
    )
    for axes, (what, lines) in zip(rows[1:], panels.items(), strict=True):
        for key, line in lines.items():
            marker = "o" if len(line) == 1 else ""
            axes.plot(part.time, line, label=part.labels[key], marker=marker, **styles[key])
        dress(axes, part.time, "", what)
        if what == "gates":
            axes.set_ylim(-0.03, 1.03)
            axes.set_yticks([0, 0.5, 1], labels=["0 closed", "0.5", "1 open"])
        title_and_legend(axes, "")
    mark_time(rows[-1], part.time, observation.time_name)
    return figure


@dataclass(frozen=True)
class _Part:
    """The valid steps of one row of one layer: values (T, ·) by name."""

    time: np.ndarray
    above: Mapping[str, np.ndarray]
    inputs: np.ndarray
    values: Mapping[str, np.ndarray]
    gradients: Mapping[str, np.ndarray] | None
    gates: tuple[str, ...]
    labels: Mapping[str, str]
    cell: str
    place: str
    name: str

    def errors(self, operation: str) -> Mapping[str, np.ndarray]:
        if self.gradients is None:
            raise ValueError(
                f"{operation}: expected error terms, but this observation has none; inspect with "
                "gradients=True"
            )
        return self.gradients


def _part(
    observation: Observation, row: int, layer: int, direction: int, names: Sequence[str]
) -> _Part:
    found = _layer(observation, layer, direction)
    unknown = [name for name in names if name not in found.values]
    if unknown:
        raise ValueError(
            f"inspect: no value named {unknown[0]!r} was observed; there are "
            f"{', '.join(found.values)}"
        )
    rows = len(observation.lengths)
    if not 0 <= row < rows:
        raise ValueError(f"inspect: there is no row {row}; {rows} were observed, from 0")
    steps = int(observation.lengths[row])
    if not steps:
        raise ValueError(f"inspect: row {row} has no steps to draw; choose another row")
    shown = tuple(names) or tuple(found.values)
    inputs = observation.inputs[row, :steps]
    above = dict(zip(observation.input_names, inputs.T, strict=True))
    if observation.series is not None:
        above = {"observed": observation.series[row, :steps]}
        if observation.prediction is not None:
            above["expected one step before"] = observation.prediction[row, :steps]
    gradients = found.gradients
    several = len(observation.layers) > 1
    back = ", read backwards" if direction else ""
    return _Part(
        time=observation.time[row],
        above=above,
        inputs=inputs,
        values={name: found.values[name][row, :steps] for name in shown},
        gradients=gradients and {name: gradients[name][row, :steps] for name in shown},
        gates=gates_of(found.program),
        labels=_labels(found),
        cell=found.program.name,
        place=f", layer {layer}{back}" if several else "",
        name=observation.name if observation.series is not None else "input",
    )


def _labels(layer: Layer) -> dict[str, str]:
    """What each value is: a state keeps its usual meaning only where that is a state's."""
    gates, states = gates_of(layer.program), {state.name for state in layer.program.states}
    return {
        key: key if key in states - {"c", "h"} else meaning(key, key in gates)
        for key in layer.values
    }


def _layer(observation: Observation, layer: int, direction: int) -> Layer:
    if (layer, direction) not in observation.layers:
        places = ", ".join(map(str, observation.layers))
        raise ValueError(
            f"inspect: there is no layer {layer} with direction {direction}; "
            f"(layer, direction) are {places}"
        )
    return observation.layers[layer, direction]
