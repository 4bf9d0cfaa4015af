"""Series from data that is no file: arrays, lists, mappings and frames of any library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import narwhals as nw
import numpy as np
import polars as pl

from .cells import is_missing
from .errors import DataError
from .series import Series, check_values
from .table import Table, without_empty_rows


def is_frame(data: object) -> bool:
    """Whether this is a frame of Polars, pandas, Arrow or another library that Narwhals knows."""
    return isinstance(nw.from_native(data, pass_through=True), nw.DataFrame | nw.LazyFrame)


def table_of_frame(data: Any) -> Table:
    """The table that a frame holds; raises DataError where its times are its index."""
    if getattr(getattr(getattr(data, "index", None), "dtype", None), "kind", None) == "M":
        raise DataError("the times are in the frame's index; make them a column: .reset_index()")
    frame = nw.from_native(data)
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    columns = {name: _column(frame[name]) for name in frame.columns}
    return without_empty_rows(pl.DataFrame(columns))


def _column(column: nw.Series[Any]) -> pl.Series:
    """One column in Polars; one of mixed objects as text."""
    try:
        found = column.to_polars()
        if found.dtype != pl.Object:
            return found
    except Exception:  # any of the libraries' own complaints about mixed objects
        pass
    cells = [None if is_missing(cell) else cell for cell in column.to_list()]
    try:
        return pl.Series(column.name, cells)
    except (TypeError, pl.exceptions.PolarsError):
        return pl.Series(column.name, [None if c is None else str(c) for c in cells])


def one_series(data: object) -> Series:
    """A Series from a list, array or column of numbers."""
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
            data = [np.nan if is_missing(value) else value for value in data]
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


def several_series(data: object) -> list[Series]:
    """The series of an array, (T,) or (T, M), a list of arrays or Series, or a mapping from ids."""
    if isinstance(data, Series):
        return [data]
    if isinstance(data, np.ndarray) and data.ndim == 2:
        names = [f"value_{place + 1}" for place in range(data.shape[1])]
        return [
            replace(_called(name, column), name=name)
            for name, column in zip(names, data.T, strict=True)
        ]
    if isinstance(data, Mapping):
        return [_called(str(id), each) for id, each in data.items()]
    if isinstance(data, (list, tuple)) and any(_holds_many(each) for each in data):
        ids = [each.id if isinstance(each, Series) else "" for each in data]
        own = all(ids) and len(set(ids)) == len(ids)
        return [
            _called(ids[place] if own else str(place + 1), each) for place, each in enumerate(data)
        ]
    if isinstance(data, np.ndarray) and data.ndim > 2:
        raise DataError(
            f"several series are an array (T, M), one a column; got one of shape {data.shape}"
        )
    return [one_series(data)]


def series_of_rows(lines: list[list[str]], notes: list[str]) -> list[Series]:
    """A Series from each line of fields: its id, then its values; empty fields at its end are none.

    A first line without a number is a header. Raises DataError naming the row and the field.
    """
    if len(lines) > 1 and all(_number(cell) is None for cell in lines[0][1:]):
        lines = lines[1:]
    else:
        notes.append("no header: every line is a series")
    result = []
    for row, (id, *cells) in enumerate(lines, 1):
        while cells and is_missing(cells[-1]):
            cells.pop()
        values = [np.nan if is_missing(cell) else _number(cell) for cell in cells]
        if None in values:
            place = values.index(None)
            raise DataError(
                f"row {row} ('{id}'), field {place + 2}: {cells[place]!r} is not a number; "
                f"leave it empty if the value is missing"
            )
        result.append(_called(id, np.array(values, np.float64)))
    return result


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _holds_many(each: object) -> bool:
    return isinstance(each, (Series, Sequence, np.ndarray)) and not isinstance(each, (str, bytes))


def _called(id: str, data: object) -> Series:
    try:
        return replace(data if isinstance(data, Series) else one_series(data), id=id)
    except DataError as error:
        raise DataError(f"series '{id}': {error}") from None
