"""headgate evaluate: how good a model folder's forecasts are on later data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from headgate.tasks import Forecaster

from .options import Count, Data, Json, Table, shares
from .report import Report

TABLE = Table()


def evaluate(
    model: Path,
    data: Data,
    *,
    horizon: Count | None = None,
    table: Table = TABLE,
    origins: Count | None = None,
    stride: Count | None = None,
    intervals: Annotated[tuple[float, ...], Parameter(consume_multiple=True, negative="")] = (),
    as_json: Json = False,
) -> None:
    """Forecast from several past origins of a table with a model as it is, beside naive forecasts.

    Parameters
    ----------
    model
        A folder that `headgate fit forecast` or `headgate forecast` wrote.
    data
        A table whose last values came after those of the fit.
    horizon
        Steps to forecast; by default those of the fit.
    origins
        Past origins; by default as many as fit into the last quarter, at most 10.
    stride
        Steps between them; by default the horizon.
    intervals
        Per cent of the outcomes that each interval shall hold.
    as_json
        JSON lines instead of tables.
    """
    report = Report(as_json)
    forecaster = Forecaster.load(model)
    panel = table.read(data)
    report.panel(panel)
    report.backtest(
        forecaster.evaluate(
            panel, horizon, origins=origins, stride=stride, intervals=shares(intervals) or None
        )
    )
