"""Observation: every named value of a model while it read some sequences.

Axes: N rows, T steps (of the longest row), I inputs; the width of a value is H where it is a gate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl

from headgate.program import Program

Place = tuple[int, int]
"""Layer and direction; direction 1 is the reverse one."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer in one direction, aligned to the input's time; past a row's end all is zero.

    program: the equations of a step. sizes: the number of every width.
    values: each named value (N, T, width); a state's is that after the step.
    gradients: the error terms ∂loss/∂value in the same shapes, or None.
    weights: each family's tensor as the equations use it, blocks stacked along the rows.
    input: what the layer read (N, T, ·). initial: each state before the first step (N, width); a
    reverse direction starts at a row's own last step.
    states: each state after every step (N, T, width), whether it was asked for or not.
    """

    program: Program
    sizes: Mapping[str, int]
    values: Mapping[str, np.ndarray]
    gradients: Mapping[str, np.ndarray] | None
    weights: Mapping[str, np.ndarray]
    input: np.ndarray
    initial: Mapping[str, np.ndarray]
    states: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Observation:
    """What went on inside a model while it read N sequences.

    layers: by (layer, direction). lengths: valid steps of each row (N,).
    inputs: what the first layer read (N, T, I); input_names: I names.
    time: for each row its steps' labels (Tₙ,), numbers or datetime64. ids: a row's name, or "".
    series: the observed values in the data's units (N, T), NaN where one is missing, or None.
    prediction: what was expected of each of them one step before (N, T), NaN where nothing was, or
    None. name, time_name: what the series and its time are called.
    """

    layers: Mapping[Place, Layer]
    lengths: np.ndarray
    inputs: np.ndarray
    input_names: tuple[str, ...]
    time: Sequence[np.ndarray]
    ids: tuple[str, ...]
    series: np.ndarray | None = None
    prediction: np.ndarray | None = None
    name: str = "value"
    time_name: str = "step"

    def __post_init__(self) -> None:
        counts = [len(labels) for labels in self.time]
        if counts != [int(n) for n in self.lengths]:
            raise ValueError(
                f"Observation: expected labels for {list(self.lengths)} steps, got {counts}; give "
                "one label for each valid step of each row"
            )

    @cached_property
    def valid(self) -> np.ndarray:
        """Which steps are inside their row (N, T)."""
        return np.arange(self.inputs.shape[1]) < self.lengths[:, None]

    def last(self, steps: int) -> Observation:
        """The last so many steps of each row, or all where it has fewer.

        What a layer did there is as it was, and `initial` the states that it started them from.
        """
        if steps < 1:
            raise ValueError(f"Observation.last: expected at least one step, got {steps}")
        start = np.maximum(self.lengths - steps, 0)
        lengths = self.lengths - start
        count = int(lengths.max(initial=0))
        places = np.minimum(start[:, None] + np.arange(count), max(self.inputs.shape[1] - 1, 0))
        inside = np.arange(count) < lengths[:, None]

        def cut(values: np.ndarray, filler: float = 0) -> np.ndarray:
            axes = values.shape[2:]
            found = np.take_along_axis(values, places.reshape(*places.shape, *(1 for _ in axes)), 1)
            return np.where(inside.reshape(*inside.shape, *(1 for _ in axes)), found, filler)

        return replace(
            self,
            layers={
                place: _cut(layer, cut, None if place[1] else start)
                for place, layer in self.layers.items()
            },
            lengths=lengths,
            inputs=cut(self.inputs),
            time=[each[first:] for each, first in zip(self.time, start, strict=True)],
            series=None if self.series is None else cut(self.series, np.nan),
            prediction=None if self.prediction is None else cut(self.prediction, np.nan),
        )

    def table(self) -> pl.DataFrame:
        """One line a row, step, layer, direction, name and unit, with its value.

        Columns: row; id, where rows have names; step, or time where the labels are datetimes;
        layer; direction; name; unit; value; gradient, where there are error terms.
        """
        return pl.concat(list(self._parts()))

    def _parts(self) -> Iterator[pl.DataFrame]:
        rows, steps = np.nonzero(self.valid)
        labels = np.concatenate(self.time) if len(self.time) else np.zeros(0, np.int64)
        dated = labels.dtype.kind == "M"
        for (layer, direction), each in self.layers.items():
            for name, values in each.values.items():
                width = values.shape[-1]
                columns: dict[str, np.ndarray] = {"row": rows.astype(np.int32)}
                if any(self.ids):
                    columns["id"] = np.array(self.ids)[rows]
                columns["time" if dated else "step"] = (
                    labels.astype("datetime64[ms]") if dated else labels
                )
                columns = {key: np.repeat(value, width) for key, value in columns.items()}
                fixed = (
                    pl.lit(layer, pl.Int32).alias("layer"),
                    pl.lit(direction, pl.Int32).alias("direction"),
                    pl.lit(name).alias("name"),
                    pl.Series("unit", np.tile(np.arange(width, dtype=np.int32), len(rows))),
                    pl.Series("value", values[rows, steps].reshape(-1)),
                )
                part = pl.DataFrame(columns).with_columns(*fixed)
                if each.gradients is not None:
                    error = each.gradients[name][rows, steps].reshape(-1)
                    part = part.with_columns(pl.Series("gradient", error))
                yield part


def _cut(layer: Layer, cut: Callable[[np.ndarray], np.ndarray], start: np.ndarray | None) -> Layer:
    """A layer at some steps; `start` (N,) is their first, None where it read backwards."""

    def each(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: cut(value) for name, value in values.items()}

    initial = dict(layer.initial)
    if start is not None:
        later = np.flatnonzero(start)
        for name, before in initial.items():
            initial[name] = before.copy()
            initial[name][later] = layer.states[name][later, start[later] - 1]
    return replace(
        layer,
        values=each(layer.values),
        gradients=None if layer.gradients is None else each(layer.gradients),
        input=cut(layer.input),
        initial=initial,
        states=each(layer.states),
    )
