"""The files that `headgate forecast` writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from headgate.data import Panel, Series, fill_missing
from headgate.inspection import (
    Section,
    backtest_figure,
    coverage_figure,
    forecast_figure,
    gates_figure,
    horizon_figure,
    loss_figure,
    page,
    panel_figure,
    save_figure,
)
from headgate.nn import Record
from headgate.tasks import Backtest, Forecaster
from headgate.tasks.forecast import CLOCK, Forecast, ends, table
from headgate.tasks.metrics import naive

FILES = (
    "forecast.csv",
    "forecast.png",
    "backtest.csv",
    "backtest_by_series.csv",
    "backtest_by_step.csv",
    "backtest.png",
    "horizon.png",
    "coverage.png",
    "anomalies.csv",
    "gates.png",
    "loss.png",
    "report.html",
    "model",
)
SEASONS_SHOWN = 5
SERIES_SHOWN = 12


@dataclass(frozen=True)
class Results:
    """All that a forecast found; `unit` is that of the values."""

    panel: Panel
    forecaster: Forecaster
    tested: Backtest
    coverage: Sequence[dict[str, float]]
    ahead: Sequence[Forecast]
    intervals: Sequence[float]
    anomalies: pl.DataFrame | None = None
    unit: str | None = None

    @property
    def first(self) -> Series:
        return self.panel.series[0]

    @property
    def label(self) -> str:
        name = self.first.id or self.first.name
        return f"{name} ({self.unit})" if self.unit else name

    @property
    def names(self) -> dict[str, Any]:
        return {"name": self.label, "time_name": self.first.time_name}

    @property
    def shown(self) -> int:
        """Steps of the past that pictures show."""
        season = self.forecaster.settings_.season
        return max(100, 3 * self.tested.horizon, SEASONS_SHOWN * (season or 1))


def write(folder: Path, results: Results) -> None:
    """Write those of FILES that there is something to say in."""
    _tables(folder, results)
    figures = _figures(results)
    for name, (figure, _) in figures.items():
        save_figure(figure, folder / f"{name}.png")
    (folder / "report.html").write_text(_page(results, figures), encoding="utf-8")
    results.forecaster.save(folder / "model")


def _tables(folder: Path, results: Results) -> None:
    tested = results.tested

    def csv(frame: pl.DataFrame, name: str) -> None:
        frame.write_csv(folder / f"{name}.csv", datetime_format=CLOCK)

    csv(table(results.ahead), "forecast")
    csv(pl.DataFrame(tested.table), "backtest")
    csv(pl.DataFrame(tested.by_step), "backtest_by_step")
    if len(results.panel) > 1:
        csv(pl.DataFrame(tested.by_series, infer_schema_length=None), "backtest_by_series")
    if results.anomalies is not None:
        csv(results.anomalies, "anomalies")


def _figures(results: Results) -> dict[str, tuple[Figure, str]]:
    """Each picture by its file's name, with what it shows."""
    tested, forecaster = results.tested, results.forecaster
    figures = {
        "forecast": (_forecast(results), "The last values and the forecast, with its intervals."),
        "backtest": (_backtest(results), "What was forecast from past origins, and what came."),
    }
    if tested.horizon > 1:
        steps, rows = np.arange(1, tested.horizon + 1), tested.by_step
        errors = {
            model: np.array([row["mae"] for row in rows if row["model"] == model])
            for model in tested.parts[0].forecasts
        }
        figures["horizon"] = (
            horizon_figure(steps, errors, unit=results.unit),
            "The error at each step of the horizon.",
        )
    if results.coverage:
        nominal = 100 * np.array([row["interval"] for row in results.coverage])
        measured = 100 * np.array([row["measured"] for row in results.coverage])
        figures["coverage"] = (
            coverage_figure(nominal, measured),
            "How many values the intervals held after the later origins.",
        )
    figures["gates"] = (_gates(results), "The gates of the last layer over the last steps.")
    losses = [epoch.train_loss for epoch in forecaster.report_.history]
    figures["loss"] = (loss_figure(losses), "The training loss.")
    return figures


def _bands(forecast: Forecast, intervals: Sequence[float]) -> dict[str, Any]:
    return {
        f"{100 * level:g} %": forecast.interval(level)
        for level in intervals
        if ends(level)[0] in forecast.quantiles
    }


def _forecast(results: Results) -> Figure:
    if len(results.panel) > 1:
        shown = max(60, 8 * results.tested.horizon)
        rows = [
            {
                "id": series.id,
                "time": series.time[-shown:],
                "values": series.values[-shown:],
                "forecast_time": forecast.time,
                "forecast": forecast.values,
                "bands": _bands(forecast, results.intervals),
            }
            for series, forecast in zip(results.panel, results.ahead, strict=True)
        ]
        return panel_figure(
            rows[:SERIES_SHOWN],  # type: ignore[arg-type]
            name=results.unit or "value",
            time_name=results.first.time_name,
        )
    series, ahead = results.first, results.ahead[0]
    season = results.forecaster.settings_.season
    recent = series[-results.shown :]
    return forecast_figure(
        recent.time,
        recent.values,
        ahead.time,
        ahead.values,
        baseline=(
            "seasonal naive" if season else "naive",
            naive(fill_missing(series.values), len(ahead), season),
        ),
        bands=_bands(ahead, results.intervals),
        **results.names,
    )


def _backtest(results: Results) -> Figure:
    part, series = results.tested.parts[0], results.first
    seen = series[max(0, part.origins[0] - 2 * results.tested.horizon) :]
    best = {model: part.forecasts[model] for model in list(part.forecasts)[:2]}
    return backtest_figure(seen.time, seen.values, part.times, best, **results.names)


def _gates(results: Results) -> Figure:
    forecaster, series = results.forecaster, results.first
    lag, record = forecaster.preprocessing_.lag, Record()
    read = series[-(results.shown + lag) :]
    forecaster.warm_up(read, record=record)
    last = forecaster.num_layers - 1
    gates = {name: record.at(name, last)[0].numpy() for name in record.names if name != "h"}
    return gates_figure(
        read.time[lag:], read.values[lag:], gates, cell=forecaster.name, **results.names
    )


def _page(results: Results, figures: dict[str, tuple[Figure, str]]) -> str:
    tested = results.tested
    origins = len(tested.parts[0].origins)
    several = f"{len(results.panel)} series, " if len(results.panel) > 1 else ""
    sections = [
        Section(
            "Forecast",
            figures["forecast"][1],
            figures["forecast"][0],
            table=table(results.ahead[:SERIES_SHOWN]).to_dicts(),
        ),
        Section(
            "Backtest",
            f"{tested.horizon} steps ahead from {origins} past origins, beside naive forecasts.",
            figures["backtest"][0],
            table=tested.table,
        ),
    ]
    if "horizon" in figures:
        figure, text = figures["horizon"]
        sections.append(Section("Error by step", text, figure, table=tested.by_step))
    if "coverage" in figures:
        figure, text = figures["coverage"]
        sections.append(Section("Intervals", text, figure, table=list(results.coverage)))
    if results.anomalies is not None:
        text = f"{len(results.anomalies)} values lay outside the interval forecast one step before."
        sections.append(Section("Anomalies", text, table=results.anomalies.to_dicts()))
    if len(results.panel) > 1:
        sections.append(Section("Each series", "", table=tested.by_series))
    for name, heading in (("gates", "Gates"), ("loss", "Training")):
        figure, text = figures[name]
        sections.append(Section(heading, text, figure))
    lead = f"{several}{results.panel.frequency}, by a {results.forecaster.name} network."
    return page(f"Forecast of {results.label}", sections, lead=lead)
