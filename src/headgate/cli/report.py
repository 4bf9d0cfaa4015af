"""What a verb says while it works: tables for people, JSON lines for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from headgate.data import Panel, Series
from headgate.data.calendar import show_time
from headgate.tasks import Backtest
from headgate.tasks.forecast import Forecast
from headgate.tasks.intervals import measured_coverage
from headgate.tasks.search import Found

COLUMNS = {"mae": "MAE", "rmse": "RMSE", "mape": "MAPE %", "smape": "sMAPE %", "mase": "MASE"}
SHOWN = 5
"""Series that are listed one by one."""


class Report:
    """Writes to standard output; `as_json` says how."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console()

    def panel(self, panel: Panel) -> None:
        """What was read, and what was guessed."""
        if len(panel) > SHOWN and not self.as_json:
            lengths = [len(series) for series in panel]
            missing = sum(series.missing for series in panel)
            holes = f", {missing} of them missing" if missing else ""
            self._say(
                f"{len(panel)} {panel.frequency} series of {min(lengths)} to {max(lengths)} "
                f"values, {sum(lengths)} in all{holes}"
            )
        else:
            for series in panel:
                self._series(series)
        for note in dict.fromkeys([*panel.notes, *(n for s in panel for n in s.notes)]):
            if self.as_json:
                self._line("note", text=note)
            else:
                self._say(f"  {note}")

    def _series(self, series: Series) -> None:
        first, last = show_time(series.time[0]), show_time(series.time[-1])
        name = series.id or series.name
        if self.as_json:
            self._line(
                "series", name=name, values=len(series), missing=series.missing,
                frequency=str(series.frequency), first=first, last=last,
            )  # fmt: skip
            return
        missing = f", {series.missing} of them missing" if series.missing else ""
        self._say(f"{name}: {len(series)} {series.frequency} values{missing}, {first} to {last}")

    def search(self, found: Found) -> None:
        """What was tried before the test."""
        if self.as_json:
            for trial in found.trials:
                self._line("trial", **trial)
            self._line("chosen", mase=found.mase, **found.best)
            return
        best = ", ".join(f"{name} {value}" for name, value in found.best.items())
        self._say(f"Search: {len(found.trials)} settings; the best, MASE {found.mase:.4g}: {best}")

    def backtest(self, tested: Backtest) -> None:
        """One row a model."""
        origins = len(tested.parts[0].origins)
        if self.as_json:
            for row in tested.table:
                self._line("backtest", origins=origins, series=len(tested.parts), **_clean(row))
            return
        places = f"{origins} origins" if origins > 1 else "one origin"
        fitted = "fitted anew at each" if tested.refitted else "fitted before the first"
        several = f", mean of {len(tested.parts)} series" if len(tested.parts) > 1 else ""
        self._say(f"Backtest: {tested.horizon} steps ahead from {places}, {fitted}{several}")
        table = Table()
        table.add_column("model")
        columns = {**COLUMNS, **({"crps": "CRPS"} if "crps" in tested.table[0] else {})}
        for heading in columns.values():
            table.add_column(heading, justify="right")
        for row in tested.table:
            cells = (f"{row[key]:.4g}" if key in row else "" for key in columns)
            table.add_row(str(row["model"]), *cells)
        self.console.print(table)

    def coverage(self, tested: Backtest, intervals: Sequence[float]) -> list[dict[str, float]]:
        """How much of the later origins the intervals hold that the earlier ones calibrated."""
        rows = measured_coverage(tested, intervals)
        for row in rows:
            if self.as_json:
                self._line("coverage", **row)
                continue
            self._say(
                f"Interval of {100 * row['interval']:g} %: held {100 * row['measured']:.1f} % of "
                f"{row['values']:.0f} values after the later origins, calibrated on those before"
            )
        if not rows and intervals and not self.as_json:
            self._say("Coverage: not measured; it needs at least two origins")
        return rows

    def forecast(self, ahead: Sequence[Forecast], notes: Sequence[str], out: Path) -> None:
        """The next values in short, and where everything is."""
        if self.as_json:
            for each in ahead:
                for k, (time, value) in enumerate(zip(each.time, each.values, strict=True)):
                    facts: dict[str, Any] = {"unique_id": each.id} if each.id else {}
                    facts |= {"time": show_time(time), "value": float(value)}
                    facts |= {f"q{100 * q:g}": float(v[k]) for q, v in each.quantiles.items()}
                    self._line("forecast", **facts)
            self._line("written", folder=str(out))
            return
        for each in ahead[:SHOWN]:
            called = f" of {each.id}" if each.id else ""
            self._say(
                f"Forecast{called} {show_time(each.time[0])} to {show_time(each.time[-1])}: "
                f"{each.values[0]:.6g} to {each.values[-1]:.6g}"
            )
        if len(ahead) > SHOWN:
            self._say(f"… and {len(ahead) - SHOWN} more series")
        for note in notes:
            self._say(f"  {note}")
        self._say(f"Written to {out}: report.html, forecast.csv, the pictures (*.png) and model/")

    def anomalies(self, found: pl.DataFrame) -> None:
        """How many, and the first."""
        if self.as_json:
            for row in found.iter_rows(named=True):
                self._line(
                    "anomaly", **{k: str(v) if k in _times(found) else v for k, v in row.items()}
                )
            return
        self._say(f"Anomalies: {len(found)} values outside their interval, in anomalies.csv")

    def written(self, what: str, path: Path) -> None:
        if self.as_json:
            self._line("written", path=str(path))
        else:
            self._say(f"{what} written to {path}")

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _line(self, event: str, **facts: object) -> None:
        print(json.dumps({"event": event, **facts}, ensure_ascii=False), flush=True)


def _clean(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if value != value else value for key, value in row.items()}


def _times(table: pl.DataFrame) -> list[str]:
    return [name for name, kind in table.schema.items() if kind.is_temporal()]
