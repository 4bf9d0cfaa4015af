"""The files that `headgate forecast` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from headgate.data import Series
from headgate.data.calendar import show_time
from headgate.inspect import (
    backtest_figure,
    forecast_figure,
    gates_figure,
    loss_figure,
    save_figure,
)
from headgate.nn import Record
from headgate.tasks import Backtest, Forecaster

FILES = (
    "forecast.csv",
    "forecast.png",
    "backtest.csv",
    "backtest.png",
    "gates.png",
    "loss.png",
    "model",
)
SEASONS_SHOWN = 5


def write(
    folder: Path, series: Series, forecaster: Forecaster, backtest: Backtest, ahead: Series
) -> None:
    """Write every file of FILES into the folder."""
    _tables(folder, backtest, ahead)
    names: dict[str, Any] = {"name": series.name, "time_name": series.time_name}
    shown = max(100, 3 * len(ahead), SEASONS_SHOWN * (forecaster.settings_.season or 1))
    recent = series[-shown:]
    figure = forecast_figure(recent.time, recent.values, ahead.time, ahead.values, **names)
    save_figure(figure, folder / "forecast.png")
    tested = series[max(0, backtest.origins[0] - 2 * len(ahead)) :]
    rows = backtest.forecasts
    best = {model: rows[model] for model in list(rows)[:2]}
    figure = backtest_figure(tested.time, tested.values, backtest.times, best, **names)
    save_figure(figure, folder / "backtest.png")
    _gates(folder, series, forecaster, shown)
    losses = [epoch.train_loss for epoch in forecaster.report_.history]
    save_figure(loss_figure(losses), folder / "loss.png")
    forecaster.save(folder / "model")


def _tables(folder: Path, backtest: Backtest, ahead: Series) -> None:
    times = [show_time(moment) for moment in ahead.time]
    pl.DataFrame({ahead.time_name: times, ahead.name: ahead.values}).write_csv(
        folder / "forecast.csv"
    )
    pl.DataFrame(backtest.table).write_csv(folder / "backtest.csv")


def _gates(folder: Path, series: Series, forecaster: Forecaster, shown: int) -> None:
    lag = forecaster.preprocessing_.lag
    read = series[-(shown + lag) :]
    record = Record()
    forecaster.warm_up(read, record=record)
    last = forecaster.num_layers - 1
    gates = {name: record.at(name, last)[0].numpy() for name in record.names if name != "h"}
    figure = gates_figure(
        read.time[lag:],
        read.values[lag:],
        {name: np.asarray(value) for name, value in gates.items()},
        name=series.name,
        time_name=series.time_name,
        cell=forecaster.name,
    )
    save_figure(figure, folder / "gates.png")
