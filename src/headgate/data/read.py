"""From a file, a data frame or arrays to series; every complaint names the row and the column.

Rows count from 1, the first one below the header.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .arrays import is_frame, one_series, series_of_rows, several_series, table_of_frame
from .assemble import mended, panel_of
from .errors import DataError
from .options import Options
from .series import Panel, Series
from .table import read_lines, read_table

Names = Sequence[str]


def read_panel(
    path: str | Path,
    *,
    time: str | None = None,
    target: str | Names | None = None,
    id: str | None = None,
    known: Names = (),
    past: Names = (),
    static: Names = (),
    day_first: bool | None = None,
    decimal: str | None = None,
    timezone: str | None = None,
    resample: str | None = None,
    aggregate: str | None = None,
    fill: str | None = None,
    layout: str = "columns",
) -> Panel:
    """Read series from a CSV file (also .csv.gz; "-": standard input) or Parquet.

    A *long* table has a column `id`, and each of its values names a series; a *wide* one has one
    series a column: `target` is then a list of columns, or "*" for all that hold numbers. The
    names unique_id, ds and y are understood; another column is guessed only where no other can be
    meant, and `Panel.notes` says so. A year, month, day, … column each are joined to one time.

    `known`, `past`: columns of numbers beside the values; rows after a series' last value in which
    all `known` are filled are steps ahead: they lengthen `known` and are no values. `static`:
    numbers or categories that stay the same within a series.

    `day_first`, `decimal` ("." or ",") say how 01/02/2024 and 1,234 are meant where no cell does.
    Times with an offset become UTC, and so do clock times of `timezone`, such as Europe/Berlin.

    `resample` ("15min", "1h", "D", "W", "MS", …, or "auto": the most usual step) sorts the rows and
    puts them on a regular grid: absent steps become missing, and values within one step are
    combined by `aggregate` ("mean", "sum", "last", "first", "min", "max"), covariates by their
    mean. `fill` mends what is missing: "linear", "forward", "zero", or "mask" to leave it.

    `layout="rows"`: each line is one series, its id first and then its values, as in the files of
    the M4 competition; only `fill` has a meaning there.

    Raises DataError with one line that says what is wrong where, and which option helps: no table,
    text in a column of numbers, infinite values, times that are missing, repeated, unsorted or
    uneven, a static column that changes, or a choice between two meanings.
    """
    options = Options(
        time, target, id, known, past, static,
        day_first, decimal, timezone, resample, aggregate, fill,
    )  # fmt: skip
    if layout not in ("columns", "rows"):
        raise DataError(f"layout={layout!r} is unknown; choose 'columns' or 'rows'")
    return _read(path, options) if layout == "columns" else _read_rows(path, options)


def as_panel(
    data: object,
    *,
    time: str | None = None,
    target: str | Names | None = None,
    id: str | None = None,
    known: Names = (),
    past: Names = (),
    static: Names = (),
    day_first: bool | None = None,
    decimal: str | None = None,
    timezone: str | None = None,
    resample: str | None = None,
    aggregate: str | None = None,
    fill: str | None = None,
) -> Panel:
    """Series from a data frame, arrays, Series or a Panel; the options are those of `read_panel`.

    Frames may be Polars (also lazy), pandas or Arrow. An array is one series, (T,), or M of them,
    (T, M); a list of arrays or Series, and a mapping from ids to them, hold one series each. For
    these only `fill` has a meaning. Raises DataError as `read_panel` does, or where the data is
    none of these.
    """
    options = Options(
        time, target, id, known, past, static,
        day_first, decimal, timezone, resample, aggregate, fill,
    )  # fmt: skip
    return _panel(data, options)


def read_series(
    path: str | Path,
    *,
    time: str | None = None,
    target: str | None = None,
    known: Names = (),
    past: Names = (),
    day_first: bool | None = None,
    decimal: str | None = None,
    timezone: str | None = None,
    resample: str | None = None,
    aggregate: str | None = None,
    fill: str | None = None,
) -> Series:
    """Read one series from a file; the options are those of `read_panel`.

    Where `time` or `target` is not named and only one column can be meant, it is taken, and
    `Series.notes` says so. Times may be dates and times in many styles, years, or row numbers.
    Empty cells are missing values. Raises DataError with one line that says what is wrong where,
    or that the table holds several series.
    """
    options = Options(
        time, target, None, known, past, (),
        day_first, decimal, timezone, resample, aggregate, fill,
    )  # fmt: skip
    panel = _read(path, options)
    try:
        return _only(panel)
    except DataError as error:
        raise DataError(f"{_shown(path)}: {error}") from None


def as_series(
    data: object,
    *,
    time: str | None = None,
    target: str | None = None,
    known: Names = (),
    past: Names = (),
    day_first: bool | None = None,
    decimal: str | None = None,
    timezone: str | None = None,
    resample: str | None = None,
    aggregate: str | None = None,
    fill: str | None = None,
) -> Series:
    """A Series from a Series, a list, array or column of numbers, or a data frame.

    Frames and columns may be Polars, pandas or Arrow; the options are those of `read_panel`.
    Raises DataError where the data is none of these, holds no value, or holds an infinite one.
    """
    if isinstance(data, Series):
        return data
    options = Options(
        time, target, None, known, past, (),
        day_first, decimal, timezone, resample, aggregate, fill,
    )  # fmt: skip
    if is_frame(data):
        return _only(_panel(data, options))
    series = one_series(data)
    return mended([series], fill, [])[0] if fill else series


def _read(path: str | Path, options: Options) -> Panel:
    try:
        return panel_of(read_table(path), options)
    except DataError as error:
        raise DataError(f"{_shown(path)}: {error}") from None


def _read_rows(path: str | Path, options: Options) -> Panel:
    options.refuse_beyond(("fill",), "a file with one series a row")
    notes: list[str] = []
    try:
        series = series_of_rows(read_lines(path, notes), notes)
        if options.fill:
            series = mended(series, options.fill, notes)
        return Panel(tuple(replace(each, notes=tuple(notes)) for each in series), tuple(notes))
    except DataError as error:
        raise DataError(f"{_shown(path)}: {error}") from None


def _shown(path: str | Path) -> str:
    return "standard input" if str(path) == "-" else str(path)


def _panel(data: Any, options: Options) -> Panel:
    if is_frame(data):
        return panel_of(table_of_frame(data), options)
    if isinstance(data, Panel):
        options.refuse_beyond(("fill",), "a panel")
        series = list(data.series)
    else:
        options.refuse_beyond(("fill",), "no table")
        series = several_series(data)
    notes = list(data.notes) if isinstance(data, Panel) else []
    if options.fill:
        series = mended(series, options.fill, notes)
    return Panel(tuple(series), tuple(notes))


def _only(panel: Panel) -> Series:
    if len(panel) == 1:
        return panel.series[0]
    shown = ", ".join(f"'{each.id}'" for each in panel.series[:3])
    raise DataError(
        f"the table holds {len(panel)} series ({shown}{', …' if len(panel) > 3 else ''}), and one "
        f"was expected; read them with read_panel"
    )
