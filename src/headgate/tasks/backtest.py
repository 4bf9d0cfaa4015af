"""Rolling-origin backtests: forecasts from several past origins, judged by what came after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from headgate.data import DataError, Series, fill_missing

from .metrics import measures, naive, seasonal_scale


@dataclass(frozen=True)
class Backtest:
    """What each model forecast from each origin.

    `origins` are the lengths of the histories; `times` (origins, horizon) and `actual` (origins,
    horizon) what came after them; `forecasts` holds an array of that shape for each model. `scale`
    divides MASE.
    """

    origins: tuple[int, ...]
    times: np.ndarray
    actual: np.ndarray
    forecasts: dict[str, np.ndarray]
    scale: float

    @property
    def table(self) -> list[dict[str, Any]]:
        """One row a model: its name, MAE, RMSE, MAPE and MASE over all origins and steps."""
        return [
            {"model": model, **measures(self.actual, forecast, self.scale)}
            for model, forecast in self.forecasts.items()
        ]


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
            f"backtest: {origins} origins {stride} steps apart with a horizon of {horizon} "
            "need more "
            f"than the series' {length} values; take fewer origins or a shorter horizon"
        )
    return tuple(range(first, length - horizon + 1, stride))


def roll(
    series: Series,
    origins: tuple[int, ...],
    horizon: int,
    season: int | None,
    models: dict[str, Callable[[Series], np.ndarray]],
) -> Backtest:
    """Each model's forecast from each origin, given what came before it, beside naive ones."""
    rows: dict[str, list[np.ndarray]] = {}
    for origin in origins:
        past = series[:origin]
        for name, forecast in models.items():
            rows.setdefault(name, []).append(forecast(past))
        seen = fill_missing(past.values)
        if season:
            rows.setdefault("seasonal naive", []).append(naive(seen, horizon, season))
        rows.setdefault("naive", []).append(naive(seen, horizon, None))
    ahead = [slice(origin, origin + horizon) for origin in origins]
    return Backtest(
        origins,
        np.stack([series.time[part] for part in ahead]),
        np.stack([series.values[part] for part in ahead]),
        {name: np.stack(forecasts) for name, forecasts in rows.items()},
        seasonal_scale(series.values[: origins[0]], season),
    )
