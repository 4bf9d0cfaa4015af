"""headgate predict: what a model folder says comes next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from headgate.tasks import Forecaster
from headgate.tasks.forecast import Forecasts
from headgate.tasks.forecast import table as table_of

from .options import Count, Data, Table, shares
from .tables import write_table

TABLE = Table()


def predict(
    model: Path,
    data: Data | None = None,
    *,
    horizon: Count | None = None,
    table: Table = TABLE,
    intervals: Annotated[tuple[float, ...], Parameter(consume_multiple=True, negative="")] = (),
    out: Path | None = None,
) -> None:
    """Forecast with a model folder; a table on standard output, or in a file.

    Parameters
    ----------
    model
        A folder that `headgate fit forecast` or `headgate forecast` wrote.
    data
        A table whose series are forecast, read as it is for fitting; by default those of the fit.
    horizon
        Steps to forecast; by default those of the fit.
    intervals
        Per cent of the outcomes that each interval shall hold; by default 80 and 95 where the model
        has them.
    out
        A file to write, .csv or .parquet.
    """
    forecaster = Forecaster.load(model)
    series = None if data is None else table.read(data)
    found = forecaster.predict(horizon, series=series, intervals=shares(intervals) or None)
    rows = table_of(list(found) if isinstance(found, Forecasts) else [found])
    write_table(rows, out)
