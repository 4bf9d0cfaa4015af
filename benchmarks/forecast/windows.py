"""Forecasts from every step of a test period, as the papers on long horizons judge them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headgate.data import Panel, Series
from headgate.tasks import Forecaster
from headgate.tasks.metrics import naive

from . import data
from .cases import Row, Rows, timed

DAY = 24
ETT_HORIZONS = (24, 48, 168, 336, 720)
ETT_PUBLISHED = {24: 0.107, 48: 0.162, 168: 0.239, 336: 0.445, 720: 0.658}
ETT: dict[str, Any] = {
    "difference": "first",
    "window": 96,
    "hidden_size": 16,
    "epochs": 2,
    "batch_size": 64,
    "learning_rate": 0.001,
    "loss": "mae",
}
RATE_HORIZONS = (3, 6, 12, 24)
RATE_PUBLISHED = {3: 0.0192, 6: 0.0264, 12: 0.0408, 24: 0.0626}
RATES: dict[str, Any] = {
    "season": None,
    "difference": "first",
    "window": 48,
    "hidden_size": 8,
    "epochs": 2,
    "batch_size": 64,
    "learning_rate": 0.001,
}
AT_ONCE = 512
NAIVE_MARGIN = 1.05
"""How far ours may lie above the best naive row."""


def from_everywhere(
    fitted: Forecaster, series: Series, ends: Sequence[int], horizon: int
) -> np.ndarray:
    """(O, horizon) forecasts from each origin, many in one batch."""
    settings = fitted.settings_
    read = settings.window + fitted.preprocessing_.lag + fitted.encoder_.memory
    fitted.preprocessings_ |= {
        str(end): fitted.preprocessings_[series.id] for end in ends
    }  # each slice is scaled as its series
    found = []
    for first in range(0, len(ends), AT_ONCE):
        parts = [replace(series[e - read : e], id=str(e)) for e in ends[first : first + AT_ONCE]]
        found += [f.values for f in fitted.predict(horizon, series=Panel(tuple(parts)))]
    return np.stack(found)


def ett(seeds: int, folder: Path | None) -> Rows:
    """Oil temperature, 12/4/4 months; squared error of values scaled by the first 12 months."""
    series = data.ett(folder)
    train, test = 12 * 30 * DAY, 16 * 30 * DAY
    spread = float(series.values[:train].std())
    longest = max(ETT_HORIZONS)
    ends = list(range(test, len(series) - longest + 1))
    actual = np.stack([series.values[e : e + longest] for e in ends])

    def error(forecast: np.ndarray, horizon: int) -> float:
        return float((((forecast - actual)[:, :horizon] / spread) ** 2).mean())

    def run(seed: int) -> np.ndarray:
        fitted = Forecaster(horizon=longest, seed=seed, **ETT).fit(series[:train])
        return from_everywhere(fitted, series, ends, longest)

    found, seconds = timed(run, seeds)
    baselines = {
        name: np.stack([naive(series.values[:e], longest, season) for e in ends])
        for name, season in (("naive", None), ("seasonal naive", DAY))
    }
    for horizon in ETT_HORIZONS:
        others = {name: error(values, horizon) for name, values in baselines.items()}
        yield Row(
            f"ett, oil temperature, {horizon} hours", "mse", [error(f, horizon) for f in found],
            others, min(NAIVE_MARGIN * min(others.values()), ETT_PUBLISHED[horizon]),
            f"DeepAR {ETT_PUBLISHED[horizon]}", seconds, ETT,
        )  # fmt: skip


def exchange_rate(seeds: int, folder: Path | None) -> Rows:
    """Eight rates, 60/20/20; root mean squared error h days ahead over the spread of all rates."""
    panel = data.exchange_rate(folder)
    length = len(panel.series[0])
    train, test, longest = int(0.6 * length), int(0.8 * length), max(RATE_HORIZONS)
    ends = list(range(test, length - longest + 1))

    def run(seed: int) -> dict[str, np.ndarray]:
        fitted = Forecaster(horizon=longest, seed=seed, **RATES)
        fitted.fit(Panel(tuple(s[:train] for s in panel)))
        return {s.id: from_everywhere(fitted, s, ends, longest) for s in panel}

    def error(forecasts: dict[str, np.ndarray], horizon: int) -> float:
        at = np.array(ends) + horizon - 1
        actual = np.stack([series.values[at] for series in panel])
        found = np.stack([forecasts[series.id][:, horizon - 1] for series in panel])
        return float(np.sqrt(((found - actual) ** 2).mean()) / actual.std())

    found, seconds = timed(run, seeds)
    last = {s.id: np.stack([naive(s.values[:e], longest, None) for e in ends]) for s in panel}
    for horizon in RATE_HORIZONS:
        best = error(last, horizon)
        yield Row(
            f"exchange_rate, {horizon} days", "rse", [error(f, horizon) for f in found],
            {"naive": best}, min(NAIVE_MARGIN * best, RATE_PUBLISHED[horizon]),
            f"RNN-GRU {RATE_PUBLISHED[horizon]}", seconds, RATES,
        )  # fmt: skip
