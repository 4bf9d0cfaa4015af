"""Forecasts of bundled series against published results.

    python -m benchmarks.forecast air_passengers             five seeds, the last 24 months held out
    python -m benchmarks.forecast air_passengers --choose    how the settings were chosen

Choosing sees the training part only: forecasts of 24 months from origins inside it. The held-out
months are compared with once, in the run that reports.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import headgate
from headgate.data import Series, read_series
from headgate.tasks import Forecaster
from headgate.tasks.metrics import measures, naive, seasonal_scale

DATA = Path(__file__).parents[1] / "examples" / "data"
HELD_OUT = 24
SEASON = 12
CHOOSING_ORIGINS = (72, 84, 96)
CHOOSING_SEEDS = 5
GRID: dict[str, tuple[Any, ...]] = {
    "strategy": ("direct", "closed-loop"),
    "difference": ("first", "seasonal"),
    "hidden_size": (16, 32),
    "window": (12, 24),
    "epochs": (20, 40),
}
CHOSEN: dict[str, Any] = {
    "strategy": "direct",
    "difference": "seasonal",
    "hidden_size": 32,
    "window": 12,
    "epochs": 20,
}


def mape(actual: np.ndarray, forecast: np.ndarray) -> float:
    return measures(actual, forecast, 1.0)["mape"]


def ahead(training: Series, seed: int, settings: dict[str, Any]) -> np.ndarray:
    """(24,) one fit on `training`, one forecast from its end."""
    forecaster = Forecaster(horizon=HELD_OUT, seed=seed, **settings).fit(training)
    return forecaster.predict().values


def choose(training: Series) -> None:
    """Print every setting's mean MAPE over the inner origins and seeds, best first."""
    rows = []
    for values in itertools.product(*GRID.values()):
        settings = dict(zip(GRID, values, strict=True))
        scores = [
            mape(training.values[o : o + HELD_OUT], ahead(training[:o], seed, settings))
            for o in CHOOSING_ORIGINS
            for seed in range(CHOOSING_SEEDS)
        ]
        rows.append((float(np.mean(scores)), settings))
    for score, settings in sorted(rows, key=lambda row: row[0]):
        print(f"{score:6.2f} %  {settings}")


def report(series: Series, seeds: int) -> dict[str, Any]:
    """The held-out months forecast by the network, over seeds, and by the naive rows."""
    training, actual = series[:-HELD_OUT], series.values[-HELD_OUT:]
    scale = seasonal_scale(training.values, SEASON)
    started = time.perf_counter()
    runs = [measures(actual, ahead(training, seed, CHOSEN), scale) for seed in range(seeds)]
    seconds = time.perf_counter() - started
    rows: dict[str, dict[str, float]] = {}
    keys = ("mape", "mae", "rmse", "mase")
    rows["lstm"] = {key: float(np.mean([run[key] for run in runs])) for key in keys}
    for name, season in (("seasonal naive", SEASON), ("naive", None)):
        rows[name] = measures(actual, naive(training.values, HELD_OUT, season), scale)
    return {
        "data": "air_passengers",
        "held_out": HELD_OUT,
        "settings": CHOSEN,
        "rows": rows,
        "mape_of_each_seed": [run["mape"] for run in runs],
        "mape_spread": float(np.std([run["mape"] for run in runs])),
        "seconds": seconds,
        "versions": {
            "headgate": headgate.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
        },
    }


def show(result: dict[str, Any]) -> None:
    print(f"{result['data']}: last {result['held_out']} months held out, one fit on the rest")
    print(f"{'':16}{'MAPE %':>8}{'MAE':>8}{'RMSE':>8}{'MASE':>8}")
    for name, row in result["rows"].items():
        print(f"{name:16}" + "".join(f"{row[key]:8.2f}" for key in ("mape", "mae", "rmse", "mase")))
    each = ", ".join(f"{value:.2f}" for value in result["mape_of_each_seed"])
    print(f"lstm, each seed: {each}; standard deviation {result['mape_spread']:.2f}")
    print(f"{result['seconds']:.1f} s for all fits; settings {result['settings']}")
    print(", ".join(f"{name} {version}" for name, version in result["versions"].items()))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.forecast", description="Forecasts against published results."
    )
    parser.add_argument("data", choices=["air_passengers"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--choose", action="store_true", help="search settings, training part only")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # networks this small gain nothing from more
    series = read_series(DATA / f"{options.data}.csv")
    if options.choose:
        choose(series[:-HELD_OUT])
        return
    result = report(series, options.seeds)
    if options.json:
        print(json.dumps(result))
    else:
        show(result)


if __name__ == "__main__":
    main()
