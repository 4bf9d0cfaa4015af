"""From a file or a data frame to a Series; every complaint names the row and the column.

Rows count from 1, the first one below the header.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import polars as pl

from .calendar import Frequency, grid_of
from .errors import DataError
from .series import Series, check_values

MISSING = {"", "na", "n/a", "nan", "null", "none", "-", "."}
TIME_NAME = re.compile(r"date|time|year|month|week|day|^ds$|^t$|period|index|step", re.IGNORECASE)


def read_series(path: str | Path, *, time: str | None = None, target: str | None = None) -> Series:
    """Read one series from a comma-separated file with a header ("-": standard input) or Parquet.

    `time` and `target` name the columns; where one is not named and only one column can be meant,
    it is taken, and `Series.notes` says so. Times may be ISO dates and times, yyyy-mm, yyyymmdd,
    years, or row numbers. Empty cells are missing values. Raises DataError with one line that says
    what is wrong where.
    """
    try:
        return from_frame(_read_table(path), time=time, target=target)
    except DataError as error:
        raise DataError(f"{'standard input' if str(path) == '-' else path}: {error}") from None


def as_series(data: object, *, time: str | None = None, target: str | None = None) -> Series:
    """A Series from a Series, a list, array or column of numbers, or a data frame.

    Frames and columns may be Polars, pandas or Arrow; `time` and `target` name their columns.
    Raises DataError where the data is none of these, holds no value, or holds an infinite one.
    """
    if isinstance(data, Series):
        return data
    if getattr(getattr(getattr(data, "index", None), "dtype", None), "kind", None) == "M":
        raise DataError("the times are in the frame's index; make them a column: .reset_index()")
    if is_frame(data):
        return from_frame(data, time=time, target=target)
    column = nw.from_native(data, allow_series=True, pass_through=True)
    if isinstance(column, nw.Series):
        data = column.to_list()
    if isinstance(data, (str, bytes)) or not isinstance(data, (Sequence, np.ndarray)):
        raise DataError(
            f"a series was expected: numbers, a data frame or headgate.data.read_series(path); "
            f"got {type(data).__name__}"
        )
    try:
        if not isinstance(data, np.ndarray):
            data = [np.nan if _is_missing(value) else value for value in data]
        values = np.array(data, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"a series was expected to hold numbers only: {error}") from None
    if values.ndim != 1:
        raise DataError(
            f"one series is one-dimensional, (T,); got an array of shape {values.shape}: "
            f"choose one of its columns"
        )
    check_values(values, "value")
    return Series(values, np.arange(len(values), dtype=np.int64))


def is_frame(data: object) -> bool:
    return isinstance(nw.from_native(data, pass_through=True), nw.DataFrame | nw.LazyFrame)


def from_frame(data: Any, *, time: str | None = None, target: str | None = None) -> Series:
    """A Series from a Polars, pandas or Arrow frame; see `read_series`."""
    frame = nw.from_native(data)
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    columns = {name: frame[name].to_list() for name in frame.columns}
    if not len(frame):
        raise DataError("the table has no rows below its header")
    for name in (time, target):
        if name is not None and name not in columns:
            raise DataError(f"there is no column '{name}'; the columns are {_listed(columns)}")
    notes: list[str] = []
    time = time or _guess_time(columns, target, notes)
    target = target or _guess_target(columns, time, notes)
    values = np.array(
        [_number(cell, row, target) for row, cell in enumerate(columns[target], 1)], np.float64
    )
    check_values(values, target)
    if time is None:
        return Series(
            values, np.arange(len(values)), Frequency(), target, "step", notes=tuple(notes)
        )
    moments = _times(columns[time], time)
    return Series(values, moments, grid_of(moments, time), target, time, notes=tuple(notes))


def _read_table(path: str | Path) -> pl.DataFrame:
    if str(path) == "-":
        return _parse_csv(sys.stdin.buffer.read())
    path = Path(path)
    if path.is_dir():
        raise DataError("this is a folder; a CSV or Parquet file was expected")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError("there is no such file") from None
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}") from None
    if not content.strip():
        raise DataError("the file is empty")
    if path.suffix.lower() in (".parquet", ".pq") or content[:4] == b"PAR1":
        try:
            return pl.read_parquet(content)
        except Exception as error:
            raise DataError(f"this is not a Parquet table: {_first_line(error)}") from None
    return _parse_csv(content)


def _parse_csv(content: bytes) -> pl.DataFrame:
    if not content.strip():
        raise DataError("there is nothing to read")
    if b"\0" in content[:4096]:
        raise DataError("this is not text: a comma-separated table (CSV) or Parquet was expected")
    try:
        table = pl.read_csv(content, infer_schema=False)
    except Exception as error:
        raise DataError(f"this is not a comma-separated table: {_first_line(error)}") from None
    if table.width == 1:
        for mark, word in ((";", "semicolons"), ("\t", "tabs")):
            if mark in table.columns[0]:
                raise DataError(
                    f"the columns seem to be separated by {word}; "
                    f"a comma-separated table was expected: write it with commas"
                )
    return table


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _guess_time(columns: dict[str, list[Any]], target: str | None, notes: list[str]) -> str | None:
    choices = [name for name in columns if name != target and _holds_times(name, columns[name])]
    if len(choices) > 1:
        raise DataError(
            f"{len(choices)} columns could be the time: {_listed(choices)}; name one with time="
        )
    notes.append(f"time: column '{choices[0]}'" if choices else "no time column: rows are numbered")
    return choices[0] if choices else None


def _guess_target(columns: dict[str, list[Any]], time: str | None, notes: list[str]) -> str:
    rest = [name for name in columns if name != time]
    choices = [name for name in rest if _mostly(columns[name], _to_number)]
    if len(rest) == 1:
        choices = rest
    if len(choices) != 1:
        found = f"{len(choices)} columns hold numbers: {_listed(choices)}"
        if not choices:
            found = f"no column holds numbers; the columns are {_listed(columns)}"
        raise DataError(f"{found}; name the one to forecast with target=")
    notes.append(f"target: column '{choices[0]}'")
    return choices[0]


def _listed(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _mostly(cells: list[Any], parse: Any) -> bool:
    filled = [cell for cell in cells if not _is_missing(cell)]
    return bool(filled) and sum(parse(cell) is not None for cell in filled) > len(filled) / 2


def _is_missing(cell: Any) -> bool:
    if isinstance(cell, str):
        return cell.strip().lower() in MISSING
    return cell is None or cell is getattr(sys.modules.get("pandas"), "NA", None) or cell != cell


def _to_number(cell: Any) -> float | None:
    try:
        return None if isinstance(cell, (bool, date)) else float(cell)
    except (TypeError, ValueError):
        return None


def _number(cell: Any, row: int, column: str) -> float:
    if _is_missing(cell):
        return np.nan
    value = _to_number(cell)
    if value is None:
        raise DataError(
            f"column '{column}', row {row}: {str(cell)!r} is not a number; "
            f"leave the cell empty if the value is missing"
        )
    return value


def _holds_times(name: str, cells: list[Any]) -> bool:
    if _mostly(cells, _to_date):
        return not _mostly(cells, _whole) or _mostly(cells, _eight_digits) or _named_time(name)
    return _named_time(name) and _mostly(cells, _whole)


def _named_time(name: str) -> bool:
    return bool(TIME_NAME.search(name))


def _whole(cell: Any) -> int | None:
    number = _to_number(cell)
    return int(number) if number is not None and number.is_integer() else None


def _eight_digits(cell: Any) -> bool | None:
    number = _whole(cell)
    return True if number is not None and 10_000_000 <= number <= 99_999_999 else None


def _to_date(cell: Any) -> np.datetime64 | None:
    """A date or time from what a cell holds, or None where it is not one."""
    if isinstance(cell, datetime):
        return np.datetime64(cell.replace(tzinfo=None), "s")
    if isinstance(cell, date):
        return np.datetime64(cell, "s")
    text = str(cell).strip().removesuffix(".0")
    try:
        if re.fullmatch(r"(1[5-9]|2[01])\d\d", text):
            return np.datetime64(text, "s")
        if re.fullmatch(r"\d{4}[-/]\d{1,2}", text):
            year, month = re.split("[-/]", text)
            return np.datetime64(f"{year}-{int(month):02d}", "s")
        if re.fullmatch(r"\d{8}|\d{4}[-/]\d\d[-/]\d\d.*", text):
            moment = datetime.fromisoformat(text.replace("/", "-"))
            return np.datetime64(moment.replace(tzinfo=None), "s")
    except ValueError:
        return None
    return None


def _times(cells: list[Any], column: str) -> np.ndarray:
    """(T,) datetime64[s], or int64 where the column counts rows."""
    as_dates = _mostly(cells, _to_date)
    parse = _to_date if as_dates else _whole
    if not as_dates and not _mostly(cells, _whole):
        raise DataError(
            f"column '{column}' holds no times: row 1 is {str(cells[0])!r}; "
            f"write dates as 2024-12-31, 2024-12 or 20241231"
        )
    parsed = []
    for row, cell in enumerate(cells, 1):
        moment = None if _is_missing(cell) else parse(cell)
        if moment is None:
            kind = "a date like the others" if as_dates else "a whole number"
            found = "the time is missing" if _is_missing(cell) else f"{str(cell)!r} is not {kind}"
            raise DataError(f"column '{column}', row {row}: {found}; every row needs its time")
        parsed.append(moment)
    return np.array(parsed, "datetime64[s]" if as_dates else np.int64)
