"""headgate forecast: read, backtest, fit, forecast, and draw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
from cyclopts import Parameter
from cyclopts.validators import Number

from headgate.cells import get
from headgate.data import read_series
from headgate.tasks import Forecaster
from headgate.tasks.folder import whole_folder

from . import output
from .report import Report

Count = Annotated[int, Parameter(validator=Number(gte=1))]


def _is_built_in(kind: object, name: str) -> None:
    get(name)


def forecast(
    data: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    horizon: Count,
    time: str | None = None,
    target: str | None = None,
    season: Annotated[int | None, Parameter(validator=Number(gte=2))] = None,
    unit: str | None = None,
    cell: Annotated[str, Parameter(validator=_is_built_in)] = "lstm",
    hidden_size: Count = 16,
    strategy: Literal["direct", "closed-loop"] = "direct",
    difference: Literal["auto", "none", "first", "seasonal"] = "auto",
    transform: Literal["auto", "none", "log"] = "auto",
    epochs: Count = 20,
    seed: int = 0,
    out: Path = Path("forecast-output"),
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Forecast one series from a table, beside naive forecasts that it has to beat.

    The network is tested from several past origins, then fitted on everything. The folder receives
    forecast.csv, forecast.png, backtest.csv, backtest.png, gates.png, loss.png and the model.

    Parameters
    ----------
    data
        A comma-separated file with a header, or Parquet; - for standard input (CSV).
    horizon
        Steps to forecast.
    time
        The column of times; guessed where only one is possible.
    target
        The column to forecast; guessed where only one is possible.
    season
        Steps of the season; by default what the frequency suggests (12 for monthly values).
    unit
        The unit of the values, for the pictures' axes.
    cell
        A built-in cell: lstm, gru, rnn, lstm_peephole, …
    hidden_size
        Units of the recurrent layer.
    strategy
        All steps at once from the last state, or one by one, each fed back.
    difference
        What is subtracted from each value: nothing, the one before, or the one a season before.
    transform
        log evens out swings that grow with the level.
    epochs
        Passes over the training windows.
    seed
        Fixes everything random.
    out
        The folder to write.
    as_json
        JSON lines instead of tables.
    """
    torch.set_num_threads(1)  # networks this small gain nothing from more
    report = Report(as_json)
    with whole_folder(out, output.FILES) as folder:
        series = read_series(data, time=time, target=target)
        report.series(series)
        forecaster = Forecaster(
            cell,
            hidden_size=hidden_size,
            horizon=horizon,
            season="auto" if season is None else season,
            strategy=strategy,
            difference=difference,
            transform=transform,
            epochs=epochs,
            seed=seed,
        )
        backtest = forecaster.backtest(series)
        report.backtest(series, backtest)
        forecaster.fit(series)
        ahead = forecaster.predict()
        output.write(folder, series, forecaster, backtest, ahead, unit)
    report.forecast(ahead, out)
