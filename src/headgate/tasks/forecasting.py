"""From a state that was carried to the end of some series to forecasts in their own units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from .forecast import Forecast, ends
from .reader import CarriedState, Reader, Tail

PATHS = 200
"""Sampled where quantiles are asked of a closed loop."""


def forecasts(
    reader: Reader,
    state: CarriedState,
    horizon: int,
    intervals: Sequence[float],
    paths: int,
    seed: int,
) -> list[Forecast]:
    """The next `horizon` values of each series, with quantiles at both ends of each interval.

    Paths are drawn where they are asked for, and where intervals are in a closed loop.
    """
    levels = sorted({q for level in intervals for q in ends(level)})
    if reader.direct:
        return _direct(reader, state, horizon, levels)
    if paths or levels:
        return _sampled(reader, state, horizon, levels, paths or PATHS, seed, bool(paths))
    steps = reader.closed_loop(state, horizon)
    return [
        _forecast(tail, tail.preprocessing.invert(row[0], tail.history), {})
        for tail, row in zip(state.tails, steps, strict=True)
    ]


def averaged(forecasts: Sequence[Forecast]) -> Forecast:
    """Of several networks for one series: mean values, mean quantiles, and all paths."""
    first, *others = forecasts
    if not others:
        return first
    return replace(
        first,
        values=np.mean([each.values for each in forecasts], axis=0),
        quantiles={
            q: np.mean([each.quantiles[q] for each in forecasts], axis=0) for q in first.quantiles
        },
        paths=None if first.paths is None else np.concatenate([e.paths for e in forecasts]),  # type: ignore[misc]
    )


def _direct(
    reader: Reader, state: CarriedState, horizon: int, levels: list[float]
) -> list[Forecast]:
    output, scale = reader.output, reader.scale(state.tails)
    raw = state.raw[:, : horizon * output.parameters].double()
    middle = reader.middle(raw, scale).numpy()
    found = output.quantiles(raw, levels, scale).numpy() if levels else None
    result = []
    for row, tail in enumerate(state.tails):
        quantiles = {
            q: reader.in_units(tail, found[row, :, column])  # type: ignore[index]
            for column, q in enumerate(levels)
        }
        result.append(_forecast(tail, reader.in_units(tail, middle[row]), quantiles))
    return result


def _sampled(
    reader: Reader,
    state: CarriedState,
    horizon: int,
    levels: list[float],
    paths: int,
    seed: int,
    kept: bool,
) -> list[Forecast]:
    drawn = reader.closed_loop(state, horizon, paths, seed)
    result = []
    for tail, steps in zip(state.tails, drawn, strict=True):
        found = steps if reader.output.counts else tail.preprocessing.invert(steps, tail.history)
        quantiles = dict(zip(levels, np.quantile(found, levels, axis=0), strict=True))
        forecast = _forecast(tail, found.mean(0), quantiles)
        result.append(replace(forecast, paths=found) if kept else forecast)
    return result


def _forecast(tail: Tail, values: np.ndarray, quantiles: Mapping[float, np.ndarray]) -> Forecast:
    series = tail.series
    return Forecast(
        values,
        series.future(len(values)),
        series.frequency,
        series.name,
        series.time_name,
        id=series.id,
        quantiles=quantiles,
    )
