"""What each command forecasts, with settings that were chosen before the test period."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headgate.data import Panel
from headgate.tasks import Backtest, Forecaster
from headgate.tasks.metrics import measures, naive, seasonal_scale

from . import data


@dataclass
class Row:
    """A measure of our forecasts, once a seed, beside those of naive ones.

    `limit`: what ours shall not exceed; `published`: what others reached, in words.
    """

    what: str
    measure: str
    ours: list[float]
    others: dict[str, float]
    limit: float | None = None
    published: str = ""
    seconds: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        return float(np.mean(self.ours))

    @property
    def met(self) -> bool | None:
        return None if self.limit is None else self.mean <= self.limit


Rows = Iterable[Row]
MONTHS = 12
AIR_PASSENGERS = {
    "strategy": "direct",
    "difference": "seasonal",
    "hidden_size": 32,
    "window": 12,
    "epochs": 20,
}
AIR_PASSENGERS_ROLLING: dict[str, Any] = {
    "strategy": "closed-loop",
    "transform": "log",
    "difference": "first",
    "harmonics": 0,
    "lags": (12,),
    "members": 5,
    "hidden_size": 32,
    "window": 24,
    "epochs": 60,
}
"""The best of 36 within 1955 to 1958: fitted to 1954, 1955 and 1956, three seeds each."""
SUNSPOTS: dict[str, Any] = {
    "cell": "gru",
    "hidden_size": 10,
    "window": 125,
    "season": 132,
    "transform": "sqrt",
    "difference": "seasonal",
    "output": "quantiles",
    "levels": (0.2,),
    "epochs": 10,
}
"""A quantile below the median is what a percentage error rewards. The best of 14 within 1905 to
1940: fitted to 1904, three seeds each."""
M4: dict[str, Any] = {
    "transform": "log",
    "difference": "seasonal",
    "season": 168,
    "window": 168,
    "hidden_size": 64,
    "batch_size": 64,
    "epochs": 8,
    "samples": 6400,
    "learning_rate": 0.003,
    "loss": "mae",
}


def timed(run: Callable[[int], Any], seeds: int) -> tuple[list[Any], float]:
    """What each seed gives, and the seconds of one."""
    started = time.perf_counter()
    found = [run(seed) for seed in range(seeds)]
    return found, (time.perf_counter() - started) / seeds


def air_passengers(seeds: int, folder: Path | None) -> Rows:
    """The last 24 months held out, one fit."""
    series, ahead = data.air_passengers(), 24
    training, actual = series[:-ahead], series.values[-ahead:]
    scale = seasonal_scale(training.values, MONTHS)

    def run(seed: int) -> dict[str, float]:
        fitted = Forecaster(horizon=ahead, seed=seed, **AIR_PASSENGERS).fit(training)
        return measures(actual, fitted.predict().values, scale)

    found, seconds = timed(run, seeds)
    rows = {
        name: measures(actual, naive(training.values, ahead, season), scale)
        for name, season in (("seasonal naive", MONTHS), ("naive", None))
    }
    for measure, limit, published in (
        ("mape", 5.96, "NeuralForecast's LSTM, 500 steps: 5.96"),
        ("mase", None, ""),
    ):
        yield Row(
            "air_passengers, last 24 months", measure, [r[measure] for r in found],
            {name: row[measure] for name, row in rows.items()},
            limit, published, seconds, AIR_PASSENGERS,
        )  # fmt: skip


def air_passengers_rolling(seeds: int, folder: Path | None) -> Rows:
    """Fitted to 1958-12; six months ahead from each month from 1959-01, the last one compared."""
    series, fitted_to, ahead = data.air_passengers(), 108, 6
    ends = range(fitted_to, len(series) - ahead + 1)
    actual = np.array([series.values[end + ahead - 1] for end in ends])
    scale = seasonal_scale(series.values[:fitted_to], MONTHS)

    def run(seed: int) -> dict[str, float]:
        fitted = Forecaster(horizon=ahead, seed=seed, **AIR_PASSENGERS_ROLLING)
        fitted.fit(series[:fitted_to])
        last = [fitted.predict(series=series[:end]).values[-1] for end in ends]
        return measures(actual, np.array(last), scale)

    found, seconds = timed(run, seeds)
    others = {}
    for name, season in (("seasonal naive", MONTHS), ("naive", None)):
        last = [naive(series.values[:end], ahead, season)[-1] for end in ends]
        others[name] = measures(actual, np.array(last), scale)
    for measure, limit in (("mape", 4.0), ("mase", None)):
        yield Row(
            "air_passengers, rolling", measure, [r[measure] for r in found],
            {name: row[measure] for name, row in others.items()},
            limit, "Darts' notebook replicated over ten seeds: 4.65" if limit else "", seconds,
            AIR_PASSENGERS_ROLLING,
        )  # fmt: skip


def sunspots(seeds: int, folder: Path | None) -> Rows:
    """Fitted to 1940-09; 36 months ahead, every ten months from 1940-10."""
    series, ahead = data.sunspots(folder), 36
    first = int(np.searchsorted(series.time, np.datetime64("1940-10-01")))
    ends = list(range(first, len(series) - ahead + 1, 10))
    panel = Panel((series[: ends[-1] + ahead],))

    def run(seed: int) -> Backtest:
        fitted = Forecaster(horizon=ahead, seed=seed, **SUNSPOTS).fit(series[:first])
        return fitted.evaluate(panel, origins=len(ends), stride=10, intervals=())

    found, seconds = timed(run, seeds)
    for measure, limit in (("mape", 66.0), ("mase", None)):
        yield from _from_backtests(
            "sunspots, monthly", measure, found, limit,
            "Darts' GRU: 66.0, its ETS: 115.0" if limit else "", seconds, SUNSPOTS,
        )  # fmt: skip


def m4_hourly(seeds: int, folder: Path | None) -> Rows:
    """414 series, one model; the 48 hours after each."""
    training, test = data.m4_hourly(folder)

    def run(seed: int) -> dict[str, np.ndarray]:
        fitted = Forecaster(horizon=48, seed=seed, **M4).fit(training)
        return {each.id: each.values for each in fitted.predict()}

    found, seconds = timed(run, seeds)
    ours = [_over_series(training, test, forecasts, 24) for forecasts in found]
    others = {
        name: _over_series(
            training, test, {s.id: naive(s.values, 48, season) for s in training}, 24
        )
        for name, season in (("seasonal naive", 24), ("naive", None))
    }
    for measure, limit, published in (
        ("smape", 13.0, "ES-RNN 9.328, RNN benchmark 14.698"),
        ("mase", 1.19, "ES-RNN 0.893, RNN benchmark 3.048"),
    ):
        yield Row(
            "m4 hourly", measure, [r[measure] for r in ours],
            {name: row[measure] for name, row in others.items()},
            limit, published, seconds, M4,
        )  # fmt: skip


def _over_series(
    training: Panel, test: Panel, forecasts: dict[str, np.ndarray], season: int
) -> dict[str, float]:
    """The mean over the series of each one's measures."""
    rows = [
        measures(test[s.id].values, forecasts[s.id], seasonal_scale(s.values, season))
        for s in training
    ]
    return {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}


def _from_backtests(
    what: str,
    measure: str,
    found: Sequence[Backtest],
    limit: float | None,
    published: str,
    seconds: float,
    settings: dict[str, Any],
) -> Rows:
    tables = [tested.table for tested in found]
    yield Row(
        what, measure, [table[0][measure] for table in tables],
        {row["model"]: row[measure] for row in tables[0][1:]},
        limit, published, seconds, settings,
    )  # fmt: skip
