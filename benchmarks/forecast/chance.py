"""How much of the outcomes calibrated intervals hold, on origins that calibrated nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headgate.data import Panel
from headgate.tasks import Forecaster
from headgate.tasks.intervals import measured_coverage

from . import data
from .cases import M4, Row, Rows, timed

INTERVALS = (0.8, 0.95)
POINTS = 3.0
BEIJING: dict[str, Any] = {"horizon": 24, "output": "quantiles", "window": 72, "epochs": 3}
MELBOURNE: dict[str, Any] = {"horizon": 14, "output": "quantiles", "window": 60, "epochs": 5}
HOURS: dict[str, Any] = {**M4, "horizon": 48, "output": "quantiles", "epochs": 3}
BEIJING_ORIGINS, MELBOURNE_ORIGINS, HOURS_ORIGINS = (360, 48), (200, 14), (4, 48)
"""Origins and the steps between them: at least a year before those judged, where there is one."""


def coverage(seeds: int, folder: Path | None) -> Rows:
    """The later half of the origins is judged, each by those before it; one fit before them all."""
    cases: dict[str, tuple[Callable[[], Panel], dict[str, Any], tuple[int, int]]] = {
        "beijing_pm25": (lambda: Panel((data.beijing(folder),)), BEIJING, BEIJING_ORIGINS),
        "melbourne_min_temp": (
            lambda: Panel((data.melbourne(folder),)),
            MELBOURNE,
            MELBOURNE_ORIGINS,
        ),
        "m4 hourly": (lambda: data.ahead_of(*data.m4_hourly(folder)), HOURS, HOURS_ORIGINS),
    }
    for name, (load, settings, (origins, stride)) in cases.items():
        panel = load()

        def run(
            seed: int,
            panel: Panel = panel,
            settings: dict[str, Any] = settings,
            origins: int = origins,
            stride: int = stride,
        ) -> dict[float, float]:
            forecaster = Forecaster(seed=seed, **settings)
            tested = forecaster.backtest(panel, origins=origins, stride=stride, intervals=INTERVALS)
            return {
                row["interval"]: row["measured"] for row in measured_coverage(tested, INTERVALS)
            }

        found, seconds = timed(run, seeds)
        for level in INTERVALS:
            off = [100 * abs(each[level] - level) for each in found]
            held = 100 * np.mean([each[level] for each in found])
            yield Row(
                f"{name}, interval of {100 * level:g} %", "points off", off, {}, POINTS,
                f"held {held:.1f} %", seconds, settings,
            )  # fmt: skip
