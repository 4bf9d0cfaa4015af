"""Time and memory: beside NeuralForecast, for many series, and for one forecast."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from headgate.data import DataError
from headgate.tasks import Forecaster

from . import data
from .cases import AIR_PASSENGERS, Row, Rows

OURS = """
import torch
torch.set_num_threads(1)
from headgate import Forecaster
from headgate.data import read_series
series = read_series({path!r})
print(*Forecaster(horizon=24, seed={seed}, **{settings!r}).fit(series[:-24]).predict().values)
"""
THEIRS = """
import logging, warnings
warnings.filterwarnings("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
import pandas as pd
from neuralforecast import NeuralForecast
from neuralforecast.models import LSTM
table = pd.read_csv({path!r})
table.columns = ["ds", "y"]
table["ds"], table["unique_id"] = pd.to_datetime(table["ds"]), "air"
model = LSTM(h=24, max_steps=500, random_seed={seed}, logger=False, enable_progress_bar=False,
             enable_model_summary=False, enable_checkpointing=False)
forecast = NeuralForecast(models=[model], freq="MS")
forecast.fit(table.iloc[:-24])
print(*forecast.predict()["LSTM"])
"""


def neuralforecast(seeds: int, folder: Path | None) -> Rows:
    """The last 24 months of air_passengers; both from a fresh interpreter, in turn.

    HEADGATE_NEURALFORECAST names a Python that has NeuralForecast.
    """
    peer = os.environ.get("HEADGATE_NEURALFORECAST")
    if not peer:
        raise DataError(
            "neuralforecast: name a Python that has it with HEADGATE_NEURALFORECAST; it is not a "
            "dependency of this project"
        )
    path, series = data.BUNDLED / "air_passengers.csv", data.air_passengers()
    actual = series.values[-24:]
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    errors: dict[str, list[float]] = {"ours": [], "theirs": []}
    for seed in range(seeds):
        for name, python, code in (("ours", sys.executable, OURS), ("theirs", peer, THEIRS)):
            code = code.format(path=str(path), seed=seed, settings=AIR_PASSENGERS)
            started = time.perf_counter()
            with tempfile.TemporaryDirectory() as scratch:
                done = subprocess.run(
                    [python, "-c", code], capture_output=True, text=True, check=True, cwd=scratch
                )
            times[name].append(time.perf_counter() - started)
            values = np.array(done.stdout.strip().split("\n")[-1].split(), np.float64)
            errors[name].append(float(100 * np.mean(np.abs(values - actual) / actual)))
    ours, theirs = (statistics.median(times[name]) for name in ("ours", "theirs"))
    yield Row(
        "air_passengers beside NeuralForecast", "mape", errors["ours"],
        {"NeuralForecast": float(np.mean(errors["theirs"]))}, 5.96, "", ours, AIR_PASSENGERS,
    )  # fmt: skip
    yield Row(
        "air_passengers, wall time with imports", "share of NeuralForecast's",
        [a / b for a, b in zip(times["ours"], times["theirs"], strict=True)],
        {"NeuralForecast, s": theirs}, 0.1, "", ours,
    )  # fmt: skip


MEMORY = """
import resource, sys, time
import numpy as np
from headgate import Forecaster
from headgate.data import Frequency, Panel, Series
count, length = 1000, 1000
rng = np.random.default_rng(0)
panel = Panel(tuple(
    Series(10 + np.sin(np.arange(length) / 4) + rng.normal(0, 0.3, length),
           np.arange(length), Frequency(), id=str(k))
    for k in range(count)
))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
model = Forecaster(horizon=24, season=24, hidden_size=32, batch_size=64, samples=16384, epochs=1)
model.fit(panel)
fitted = time.perf_counter()
model.predict()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, fitted - started,
      model.settings_.window, time.perf_counter() - fitted)
"""


def many_series(seeds: int, folder: Path | None) -> Rows:
    """1,000 series of 1,000 steps, one model, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True
    ).stdout.split()
    peak, seconds, window, ahead = (float(value) for value in done)
    yield Row("1,000 series × 1,000 steps", "peak GiB", [peak / 2**20], {}, 2.0, "", seconds)
    steps = 16384 * window / seconds
    yield Row("the same, training", "series-steps a second", [steps], {}, None, "", seconds)
    yield Row("the same, forecast of all", "s", [ahead], {})


def predict(seeds: int, folder: Path | None) -> Rows:
    """One series from a loaded model, in Python and by the command."""
    series = data.air_passengers()
    with tempfile.TemporaryDirectory() as scratch:
        Forecaster(horizon=12, epochs=1).fit(series).save(Path(scratch) / "model")
        model = Forecaster.load(Path(scratch) / "model")
        times = []
        for _ in range(200):
            started = time.perf_counter()
            model.predict(series=series)
            times.append(1e3 * (time.perf_counter() - started))
        yield Row("one forecast from a loaded model", "ms", [statistics.median(times)], {}, 5.0)
        command = [sys.executable, "-m", "headgate.cli", "predict", str(Path(scratch) / "model")]
        whole = []
        for _ in range(5):
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            whole.append(time.perf_counter() - started)
        yield Row("headgate predict, start to end", "s", [statistics.median(whole)], {}, 3.0)
