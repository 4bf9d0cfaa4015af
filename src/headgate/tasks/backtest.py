"""Rolling-origin backtests: forecasts from several past origins, judged by what came after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headgate.data import DataError, Panel, Series, fill_missing

from .forecast import Forecast, Forecasts, ends
from .metrics import coverage, crps, drift, measures, naive, seasonal_scale
from .settings import season_and_horizon

if TYPE_CHECKING:
    from .forecaster import Forecaster

Ahead = Callable[[Panel], Sequence[Forecast]]
"""Forecasts of some histories, in their order."""


@dataclass(frozen=True)
class Part:
    """What each model forecast for one series.

    `origins` are the lengths of the histories; `times` (O, K) and `actual` (O, K) what came after
    them; `forecasts` (O, K) of each model; `quantiles` (O, K) of the network, by level; `scale`
    divides MASE and CRPS.
    """

    id: str
    origins: tuple[int, ...]
    times: np.ndarray
    actual: np.ndarray
    forecasts: dict[str, np.ndarray]
    quantiles: dict[float, np.ndarray]
    scale: float

    def measures(self, model: str) -> dict[str, float]:
        """MAE, RMSE, MAPE, sMAPE and MASE; with quantiles the network's CRPS and coverage too."""
        found = measures(self.actual, self.forecasts[model], self.scale)
        if not self.quantiles or model != next(iter(self.forecasts)):
            return found
        levels = sorted(self.quantiles)
        stacked = np.stack([self.quantiles[q] for q in levels], -1)
        found["crps"] = crps(self.actual, stacked, levels)
        for level in self.intervals:
            low, high = (self.quantiles[q] for q in ends(level))
            found[f"coverage_{100 * level:g}"] = 100 * coverage(self.actual, low, high)
        return found

    @property
    def intervals(self) -> list[float]:
        """The shares whose both ends are among the quantiles."""
        return [round(1 - 2 * q, 6) for q in sorted(self.quantiles, reverse=True) if q < 0.5]


@dataclass(frozen=True)
class Backtest:
    """What each model forecast from each origin, for each series."""

    parts: tuple[Part, ...]
    horizon: int
    season: int | None = None
    refitted: bool = False

    @property
    def table(self) -> list[dict[str, Any]]:
        """One row a model: its measures over all origins and steps, averaged over the series."""
        return [{"model": model, **_averaged(rows)} for model, rows in self._rows().items()]

    @property
    def by_series(self) -> list[dict[str, Any]]:
        """One row a series and model."""
        return [
            {"unique_id": part.id, "model": model, **part.measures(model)}
            for part in self.parts
            for model in part.forecasts
        ]

    @property
    def by_step(self) -> list[dict[str, Any]]:
        """One row a model and step of the horizon, averaged over the series."""
        return [
            {
                "model": model,
                "step": step + 1,
                **_averaged(
                    [
                        measures(part.actual[:, step], part.forecasts[model][:, step], part.scale)
                        for part in self.parts
                    ]
                ),
            }
            for model in self.parts[0].forecasts
            for step in range(self.horizon)
        ]

    def _rows(self) -> dict[str, list[dict[str, float]]]:
        models = self.parts[0].forecasts
        return {model: [part.measures(model) for part in self.parts] for model in models}


def _averaged(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the rows, without those that have none."""
    found = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        seen = values[~np.isnan(values)]
        found[name] = float(seen.mean()) if seen.size else np.nan
    return found


def place_origins(
    length: int, horizon: int, origins: int | None, stride: int | None
) -> tuple[int, ...]:
    """Where the histories end, so that the last forecast ends with the series.

    Without a number: as many as fit into the last quarter of the series, from 1 to 10.
    """
    stride = horizon if stride is None else stride
    if origins is None:
        origins = min(10, max(1, 1 + (length // 4 - horizon) // stride))
    first = length - horizon - (origins - 1) * stride
    if min(origins, stride) < 1 or first < 1:
        raise DataError(
            f"backtest: {origins} origins {stride} steps apart with a horizon of {horizon} need "
            f"more than the series' {length} values; take fewer origins or a shorter horizon"
        )
    return tuple(range(first, length - horizon + 1, stride))


def before_end(panel: Panel, back: int) -> Panel:
    """Every series without its last `back` values; what is known ahead stays."""
    return Panel(tuple(series[: len(series) - back] for series in panel))


def roll(
    panel: Panel,
    backs: Sequence[int],
    horizon: int,
    season: int | None,
    name: str,
    ahead: Ahead,
) -> Backtest:
    """The network's forecasts from each origin, `backs` steps before the end, beside naive ones."""
    found = [list(ahead(before_end(panel, back))) for back in backs]
    parts = []
    for row, series in enumerate(panel):
        origins = tuple(len(series) - back for back in backs)
        mine = [each[row] for each in found]
        places = [slice(origin, origin + horizon) for origin in origins]
        parts.append(
            Part(
                series.id,
                origins,
                np.stack([series.time[place] for place in places]),
                np.stack([series.values[place] for place in places]),
                {
                    name: np.stack([f.values for f in mine]),
                    **_naive(series, origins, horizon, season),
                },
                {q: np.stack([f.quantiles[q] for f in mine]) for q in mine[0].quantiles},
                seasonal_scale(series.values[: origins[0]], season),
            )
        )
    return Backtest(tuple(parts), horizon, season)


def _naive(
    series: Series, origins: Sequence[int], horizon: int, season: int | None
) -> dict[str, np.ndarray]:
    seen = [fill_missing(series.values[:origin]) for origin in origins]
    rows = {}
    if season:
        rows["seasonal naive"] = np.stack([naive(past, horizon, season) for past in seen])
    rows["naive"] = np.stack([naive(past, horizon, None) for past in seen])
    rows["drift"] = np.stack([drift(past, horizon) for past in seen])
    return rows


def backtest(
    forecaster: Forecaster,
    panel: Panel,
    horizon: int | None,
    origins: int | None,
    stride: int | None,
    refit: bool | None,
    intervals: Sequence[float] | None,
) -> Backtest:
    """See `Forecaster.backtest`; with `refit` None that of the forecaster as it is."""
    fitted = forecaster
    if refit is not None:
        fitted = type(forecaster)(**forecaster.get_params(deep=False))
        if horizon is not None:
            fitted.set_params(horizon=horizon)
    season, steps = season_and_horizon(fitted.get_params(deep=False), panel.frequency)
    steps = steps if horizon is None else horizon
    shortest = min(map(len, panel))
    places = place_origins(shortest, steps, origins, stride)
    backs = [shortest - place for place in places]
    if refit is False:
        fitted.fit(before_end(panel, backs[0]))

    def ahead(past: Panel) -> Sequence[Any]:
        if refit:
            fitted.fit(past)
        found = fitted.predict(steps, series=past, intervals=intervals)
        return list(found) if isinstance(found, Forecasts) else [found]

    tested = roll(panel, backs, steps, season, fitted.name, ahead)
    return replace(tested, refitted=bool(refit))
