"""Intervals that a backtest has calibrated, and the values that fall outside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
import torch

from headgate.data import Panel, Preprocessing, Series

from .backtest import Backtest, Part
from .conformal import Conformal, calibrate
from .distributions import Point, Quantiles
from .forecast import Forecast, ends, time_column
from .metrics import seasonal_scale
from .reader import Reader


@dataclass(frozen=True)
class Margins:
    """How much intervals are widened, in units of each series' mean absolute seasonal difference.

    `by_level`: the margins of each interval. `scales`: of each series by its id; one that is new
    gets that of the values that were read.
    """

    by_level: Mapping[float, Conformal] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)
    season: int | None = None

    def __bool__(self) -> bool:
        return bool(self.by_level)

    @property
    def notes(self) -> list[str]:
        """What to tell the user where there were too few origins."""
        return [c.note for c in self.by_level.values() if c.note]

    def around(self, forecast: Forecast, read: Series, intervals: Sequence[float]) -> Forecast:
        """The forecast with its intervals widened, or made around its values where it has none."""
        quantiles = dict(forecast.quantiles)
        for level in intervals:
            if level in self.by_level:
                low, high = ends(level)
                around = forecast.values
                quantiles[low], quantiles[high] = self.by_level[level].apply(
                    quantiles.get(low, around), quantiles.get(high, around), self.scale(read)
                )
        return replace(forecast, quantiles=quantiles)

    def scale(self, read: Series) -> float:
        found = self.scales.get(read.id)
        return _positive(seasonal_scale(read.values, self.season)) if found is None else found

    def to_dict(self) -> dict[str, Any]:
        return {
            "levels": [each.to_dict() for each in self.by_level.values()],
            "scales": dict(self.scales),
            "season": self.season,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Margins:
        found = [Conformal.from_dict(each) for each in stored["levels"]]
        return cls({each.level: each for each in found}, dict(stored["scales"]), stored["season"])


def margins_of(tested: Backtest, intervals: Sequence[float]) -> Margins:
    """Margins from the errors of a backtest, of all its series together."""
    model = next(iter(tested.parts[0].forecasts))
    scales = {part.id: _positive(part.scale) for part in tested.parts}
    actual = np.concatenate([part.actual for part in tested.parts])
    each = np.concatenate([np.full(len(p.origins), scales[p.id]) for p in tested.parts])
    by_level = {}
    for level in intervals:
        lower, upper = (
            np.concatenate([p.quantiles.get(q, p.forecasts[model]) for p in tested.parts])
            for q in ends(level)
        )
        by_level[level] = calibrate(actual, lower, upper, level, each)
    return Margins(by_level, scales, tested.season)


def _positive(scale: float) -> float:
    """A series that never changed has no scale of its own."""
    return scale if scale > 0 else 1.0


def outside(
    readers: Sequence[Reader],
    panel: Panel,
    preprocessing: Sequence[Preprocessing],
    season: int | None,
    level: float,
) -> pl.DataFrame:
    """One row for each value outside the interval of the forecast one step before it.

    The intervals are those of the output, or the expected values alone, widened by one margin for
    all series, relative to the scale of each, so that they hold a share `level` of these values.
    """
    found = [
        np.mean([_one_step(reader, series, steps, level) for reader in readers], axis=0)
        for series, steps in zip(panel, preprocessing, strict=True)
    ]
    actual = [
        series.values[len(series) - len(one[0]) :] for series, one in zip(panel, found, strict=True)
    ]
    scales = [_positive(seasonal_scale(series.values, season)) for series in panel]
    each = np.repeat(scales, [len(a) for a in actual])
    lower, upper = (np.concatenate([one[k] for one in found])[:, None] for k in (1, 2))
    judged = np.concatenate(actual)[:, None]
    scores = np.maximum(lower - judged, judged - upper) / each[:, None]
    margin = np.nanquantile(scores, level, method="lower") * each[:, None]
    lower, upper = lower - margin, upper + margin
    parts, first = [], 0
    for series, seen, (expected, *_) in zip(panel, actual, found, strict=True):
        low, high = (side[first : first + len(seen), 0] for side in (lower, upper))
        first += len(seen)
        odd = np.flatnonzero((seen < low) | (seen > high))
        ids = pl.Series([series.id] * len(odd), dtype=pl.String)
        named = {"unique_id": ids} if series.id else {}
        parts.append(
            pl.DataFrame(
                {
                    **named,
                    series.time_name: time_column(series.time[len(series) - len(seen) :][odd]),
                    "value": seen[odd],
                    "expected": expected[odd],
                    "lower": low[odd],
                    "upper": high[odd],
                }
            )
        )
    return pl.concat(parts)


@torch.no_grad()
def _one_step(
    reader: Reader, series: Series, steps: Preprocessing, level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expected values and interval (T − lag − 1,) of each value but the first lag + 1."""
    encoded = reader.encoder.encode(series, steps, reader.steps, known=0)
    network, output = reader.network.eval(), reader.output
    hidden, _ = network.recurrent(torch.from_numpy(encoded.inputs)[None])
    hidden, count = hidden[0, :-1], len(encoded.inputs) - 1
    if reader.local:
        at = np.arange(1, count + 1)[:, None] + np.arange(reader.steps)
        raw = network.head(hidden, torch.from_numpy(encoded.ahead[at]))
    else:
        raw = network.head(hidden)
    raw = raw[:, : output.parameters].double()
    scale = steps.scale if output.counts else 1.0
    columns = [output.mean(raw, scale)[:, 0]]
    if not isinstance(output, Point):
        low, high = ends(level)
        if isinstance(output, Quantiles):  # which says nothing beyond the levels it has learnt
            low, high = max(low, output.levels[0]), min(high, output.levels[-1])
        found = output.quantiles(raw, [low, high], scale)[:, 0]
        columns += [found[:, 0], found[:, 1]]
    values = [column.numpy() for column in columns]
    if not output.counts:
        level_of = np.arange(count) + 1
        values = [_each(steps, encoded.level, level_of, v) for v in values]
    return values[0], values[min(1, len(values) - 1)], values[-1]


def _each(steps: Preprocessing, level: np.ndarray, at: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """One step ahead in network units after each of some steps, in the series' units."""
    found = ahead * steps.scale + steps.offset
    if steps.lag:
        found = found + level[at]
    return steps.undo(found)


def measured_coverage(tested: Backtest, intervals: Sequence[float]) -> list[dict[str, float]]:
    """How much of the later half of a backtest's origins calibrated intervals hold, a row each.

    Each of those origins is judged by margins of all origins whose outcomes were known by then.
    `interval` and `measured` are shares, `values` how many were judged. Empty where there is one
    origin.
    """
    model, count = next(iter(tested.parts[0].forecasts)), len(tested.parts[0].origins)
    inside, judged = dict.fromkeys(intervals, 0.0), 0
    for at in range((count + 1) // 2, count):
        earlier, now = _known(tested, at), _these(tested, slice(at, at + 1))
        if earlier is None:
            continue
        for level, margins in margins_of(earlier, intervals).by_level.items():
            for part in now.parts:
                lower, upper = (part.quantiles.get(q, part.forecasts[model]) for q in ends(level))
                lower, upper = margins.apply(lower, upper, np.array([_positive(part.scale)]))
                inside[level] += int(((part.actual >= lower) & (part.actual <= upper)).sum())
        judged += sum(int((~np.isnan(part.actual)).sum()) for part in now.parts)
    if not judged:
        return []
    return [
        {"interval": level, "measured": inside[level] / judged, "values": float(judged)}
        for level in intervals
    ]


def _known(tested: Backtest, at: int) -> Backtest | None:
    """The origins whose outcomes had all come before the one at that place."""
    origins = np.asarray(tested.parts[0].origins)
    known = int((origins + tested.horizon <= origins[at]).sum())
    return _these(tested, slice(known)) if known else None


def _these(tested: Backtest, which: slice) -> Backtest:
    return replace(tested, parts=tuple(_origins(part, which) for part in tested.parts))


def _origins(part: Part, which: slice) -> Part:
    return replace(
        part,
        origins=part.origins[which],
        times=part.times[which],
        actual=part.actual[which],
        forecasts={name: values[which] for name, values in part.forecasts.items()},
        quantiles={q: values[which] for q, values in part.quantiles.items()},
    )
