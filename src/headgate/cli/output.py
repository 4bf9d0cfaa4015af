"""The files that `headgate forecast` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from headgate.data import Series, fill_missing
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
from headgate.tasks.metrics import naive

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
    folder: Path,
    series: Series,
    forecaster: Forecaster,
    backtest: Backtest,
    ahead: Series,
    unit: str | None,
) -> None:
    """Write every file of FILES into the folder; `unit` is that of the values."""
    _tables(folder, backtest, ahead)
    label = f"{series.name} ({unit})" if unit else series.name
    names: dict[str, Any] = {"name": label, "time_name": series.time_name}
    season = forecaster.settings_.season
    baseline = "seasonal naive" if season else "naive"
    repeated = naive(fill_missing(series.values), len(ahead), season)
    shown = max(100, 3 * len(ahead), SEASONS_SHOWN * (season or 1))
    recent = series[-shown:]
    figure = forecast_figure(
        recent.time,
        recent.values,
        ahead.time,
        ahead.values,
        baseline=(baseline, repeated),
        **names,
    )
    save_figure(figure, folder / "forecast.png")
    tested = series[max(0, backtest.origins[0] - 2 * len(ahead)) :]
    rows = backtest.forecasts
    best = {model: rows[model] for model in list(rows)[:2]}
    figure = backtest_figure(tested.time, tested.values, backtest.times, best, **names)
    save_figure(figure, folder / "backtest.png")
    _gates(folder, series[-(shown + forecaster.preprocessing_.lag) :], forecaster, names)
    losses = [epoch.train_loss for epoch in forecaster.report_.history]
    save_figure(loss_figure(losses), folder / "loss.png")
    forecaster.save(folder / "model")


def _tables(folder: Path, backtest: Backtest, ahead: Series) -> None:
    times = [show_time(moment) for moment in ahead.time]
    pl.DataFrame({ahead.time_name: times, ahead.name: ahead.values}).write_csv(
        folder / "forecast.csv"
    )
    pl.DataFrame(backtest.table).write_csv(folder / "backtest.csv")


def _gates(folder: Path, read: Series, forecaster: Forecaster, names: dict[str, Any]) -> None:
    lag = forecaster.preprocessing_.lag
    record = Record()
    forecaster.warm_up(read, record=record)
    last = forecaster.num_layers - 1
    gates = {name: record.at(name, last)[0].numpy() for name in record.names if name != "h"}
    figure = gates_figure(
        read.time[lag:],
        read.values[lag:],
        gates,
        cell=forecaster.name,
        **names,
    )
    save_figure(figure, folder / "gates.png")
