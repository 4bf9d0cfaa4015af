"""What a verb says while it works: tables for people, JSON lines for machines."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from headgate.data import Series
from headgate.data.calendar import show_time
from headgate.tasks import Backtest

COLUMNS = {"mae": "MAE", "rmse": "RMSE", "mape": "MAPE %", "mase": "MASE"}


class Report:
    """Writes to standard output; `as_json` says how."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console()

    def series(self, series: Series) -> None:
        """What was read, and what was guessed."""
        first, last = show_time(series.time[0]), show_time(series.time[-1])
        if self.as_json:
            self._line(
                "series",
                name=series.name,
                values=len(series),
                missing=series.missing,
                frequency=str(series.frequency),
                first=first,
                last=last,
                notes=list(series.notes),
            )
            return
        missing = f", {series.missing} of them missing" if series.missing else ""
        self._say(
            f"{series.name}: {len(series)} {series.frequency} values{missing}, {first} to {last}"
        )
        for note in series.notes:
            self._say(f"  {note}")

    def backtest(self, series: Series, backtest: Backtest) -> None:
        """One row a model."""
        if self.as_json:
            for row in backtest.table:
                clean = {key: None if value != value else value for key, value in row.items()}
                self._line("backtest", origins=len(backtest.origins), **clean)
            return
        origins, horizon = backtest.actual.shape
        first = show_time(series.time[backtest.origins[0] - 1])
        places = f"{origins} origins" if origins > 1 else "one origin"
        self._say(f"Backtest: {horizon} steps ahead from {places}, fitted up to {first}")
        table = Table()
        table.add_column("model")
        for heading in COLUMNS.values():
            table.add_column(heading, justify="right")
        for row in backtest.table:
            table.add_row(str(row["model"]), *(f"{row[key]:.4g}" for key in COLUMNS))
        self.console.print(table)

    def forecast(self, ahead: Series, out: Path) -> None:
        """The next values in short, and where everything is."""
        if self.as_json:
            for time, value in zip(ahead.time, ahead.values, strict=True):
                self._line("forecast", time=show_time(time), value=float(value))
            self._line("written", folder=str(out))
            return
        self._say(
            f"Forecast {show_time(ahead.time[0])} to {show_time(ahead.time[-1])}: "
            f"{ahead.values[0]:.6g} to {ahead.values[-1]:.6g}"
        )
        self._say(f"Written to {out}: forecast.csv, the pictures (*.png), backtest.csv and model/")

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _line(self, event: str, **facts: object) -> None:
        print(json.dumps({"event": event, **facts}, ensure_ascii=False), flush=True)
