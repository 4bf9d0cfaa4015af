"""headgate forecast: read, backtest, fit, calibrate, forecast, and draw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from headgate.tasks import search_settings
from headgate.tasks.folder import whole_folder
from headgate.tasks.forecast import Forecasts

from . import output
from .options import Count, Data, Json, Model, Table, shares
from .report import Report
from .threads import enough_threads

TABLE, MODEL = Table(), Model()


def forecast(
    data: Data,
    *,
    horizon: Count,
    table: Table = TABLE,
    model: Model = MODEL,
    unit: str | None = None,
    intervals: Annotated[tuple[float, ...], Parameter(consume_multiple=True, negative="")] = (
        80,
        95,
    ),
    origins: Count | None = None,
    stride: Count | None = None,
    refit: Annotated[bool, Parameter(negative="")] = False,
    search: Count | None = None,
    anomalies: Annotated[bool, Parameter(negative="")] = False,
    out: Path = Path("forecast-output"),
    as_json: Json = False,
) -> None:
    """Forecast the series of a table, beside naive forecasts that the network has to beat.

    The network is tested from several past origins, which also calibrate its intervals, then fitted
    on everything. The folder receives tables (CSV), pictures, one page with all of them
    (report.html) and the model.

    Parameters
    ----------
    data
        A table with a header: CSV with commas, semicolons or tabs, or Parquet; - for standard
        input.
    horizon
        Steps to forecast.
    unit
        The unit of the values, for the pictures' axes.
    intervals
        Per cent of the outcomes that each interval shall hold.
    origins
        Past origins of the test; by default as many as fit into the last quarter, at most 10.
    stride
        Steps between them; by default the horizon.
    refit
        Fit anew at each origin.
    search
        Try so many settings first, on origins before those of the test (needs Optuna).
    anomalies
        Also write anomalies.csv: the values outside an interval of 99 % around what was forecast
        one step before.
    out
        The folder to write.
    as_json
        JSON lines instead of tables.
    """
    report = Report(as_json)
    with whole_folder(out, output.FILES) as folder:
        panel = table.read(data)
        report.panel(panel)
        levels = shares(intervals)
        with enough_threads(panel, model.hidden_size):
            forecaster = model.forecaster(horizon)
            if search:
                found = search_settings(forecaster, panel, trials=search, origins=origins)
                report.search(found)
                forecaster.set_params(**found.best)
            tested = forecaster.backtest(
                panel,
                origins=origins,
                stride=stride,
                refit=refit,
                intervals=model_levels(model, levels),
            )
            report.backtest(tested)
            coverage = report.coverage(tested, levels)
            forecaster.fit(panel).calibrate(tested, levels)
            predicted = forecaster.predict(intervals=levels)
            ahead = list(predicted) if isinstance(predicted, Forecasts) else [predicted]
            odd = forecaster.anomalies(panel) if anomalies else None
        results = output.Results(panel, forecaster, tested, coverage, ahead, levels, odd, unit)
        output.write(folder, results)
    report.forecast(results.ahead, forecaster.margins_.notes, out)
    if odd is not None:
        report.anomalies(odd)


def model_levels(model: Model, levels: tuple[float, ...]) -> tuple[float, ...]:
    """The intervals that the network itself gives."""
    return () if model.output == "point" else levels
