"""headgate fit: a model folder from a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from .options import Count, Data, Json, Model, Table, shares
from .report import Report
from .threads import enough_threads

app = App(name="fit", help="Fit a model of one task and write its folder.")
TABLE, MODEL = Table(), Model()


@app.command
def forecast(
    data: Data,
    *,
    horizon: Count,
    out: Path,
    table: Table = TABLE,
    model: Model = MODEL,
    intervals: Annotated[tuple[float, ...], Parameter(consume_multiple=True, negative="")] = (
        80,
        95,
    ),
    calibrate: Annotated[bool, Parameter(negative="")] = False,
    as_json: Json = False,
) -> None:
    """Fit a forecaster to the series of a table.

    Parameters
    ----------
    data
        A table with a header: CSV with commas, semicolons or tabs, or Parquet; - for standard
        input.
    horizon
        Steps to forecast.
    out
        The model folder to write.
    intervals
        Per cent of the outcomes that each interval shall hold.
    calibrate
        Fit once before and forecast from past origins, so that the intervals hold what they say.
    as_json
        JSON lines instead of tables.
    """
    report, levels = Report(as_json), shares(intervals)
    panel = table.read(data)
    report.panel(panel)
    with enough_threads(panel, model.hidden_size):
        forecaster = model.forecaster(horizon)
        own = () if model.output == "point" else levels
        tested = forecaster.backtest(panel, intervals=own) if calibrate else None
        if tested:
            report.backtest(tested)
            report.coverage(tested, levels)
        forecaster.fit(panel)
    if tested:
        forecaster.calibrate(tested, levels)
    forecaster.save(out)
    report.written("Model", out)
