"""From cells to numbers: missing values, decimal commas and thousands marks."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import polars as pl

from .dates import format_of
from .errors import DataError

MISSING = ["", "na", "n/a", "nan", "null", "none", "-", "."]
LONGEST_MISSING = 4
SAMPLE_CELLS = 1000

PLAIN = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
# What each decimal mark makes of a cell: groups of three digits are parted by the other mark.
POINT = r"^[+-]?\d{1,3}(,\d{3})+(\.\d+)?$"
COMMA = r"^[+-]?(\d{1,3}(\.\d{3})+|\d+)(,\d+)?([eE][+-]?\d+)?$|^[+-]?,\d+$"
# Cells that only one of the two marks explains.
ONLY_POINT = r"^[+-]?\d{1,3}(,\d{3})+\.\d+$|^[+-]?\d{1,3}(,\d{3}){2,}$"
ONLY_COMMA = (
    r"^[+-]?\d*,(\d{1,2}|\d{4,})$|^[+-]?(0|\d{4,})?,\d+$|^[+-]?\d{1,3}(\.\d{3})+,\d+$"
    r"|^[+-]?\d{1,3}(\.\d{3}){2,}$"
)
EITHER = r"^[+-]?[1-9]\d{0,2},\d{3}$"
GAPS = "[ \u00a0\u202f'’]"


def is_missing(cell: Any) -> bool:
    """Whether a cell says that there is no value."""
    if isinstance(cell, str):
        return cell.strip().lower() in MISSING
    return cell is None or cell is getattr(sys.modules.get("pandas"), "NA", None) or cell != cell


def looks_like_cell(cell: str) -> bool:
    """Whether this is a number or a time rather than the name of a column."""
    return bool(pl.Series([cell]).str.contains(PLAIN + "|" + COMMA).any() or format_of(cell))


def trimmed(column: pl.Series) -> pl.Series:
    """Text without spaces around it, null where a value is missing; other columns as they are."""
    if column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    if column.dtype != pl.String:
        return column.fill_nan(None) if column.dtype.is_float() else column
    if column.len() and column.str.contains(r"^\s|\s$").any():
        column = column.str.strip_chars()
    short = column.str.len_bytes() <= LONGEST_MISSING
    suspects = column.filter(short).unique()
    marks = [cell for cell in suspects if cell is not None and is_missing(cell)]
    if not marks:
        return column
    keep = ~column.is_in(marks)
    return column.to_frame("cell").select(pl.when(keep).then(pl.col("cell"))).to_series()


def sample(column: pl.Series) -> pl.Series:
    """At most a thousand of the filled cells, spread evenly over the column."""
    filled = trimmed(column.gather_every(max(1, column.len() // (20 * SAMPLE_CELLS)))).drop_nulls()
    if not filled.len():
        filled = trimmed(column).drop_nulls()
    return filled.gather_every(max(1, filled.len() // SAMPLE_CELLS))


def holds_numbers(column: pl.Series) -> bool:
    """Whether more than half of the filled cells are numbers."""
    if column.dtype.is_numeric():
        return True
    if column.dtype != pl.String:
        return False
    cells = sample(column).str.replace_all(GAPS, "")
    found = cells.str.contains(f"{PLAIN}|{POINT}|{COMMA}")
    return bool(2 * (found.sum() or 0) > cells.len())


def numbers(
    column: pl.Series, name: str, rows: np.ndarray, decimal: str | None = None
) -> tuple[np.ndarray, list[str]]:
    """(T,) float64, NaN where a value is missing, and notes on how numbers were read.

    Raises DataError naming the row of the first cell that is no number, an infinite value, or
    commas that may be decimal or thousands marks.
    """
    notes: list[str] = []
    if column.dtype in (pl.Categorical, pl.Enum, pl.Null):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        cells = trimmed(column)
        values = _parsed(cells, decimal, name, rows, notes)
    else:
        cells = column.fill_nan(None) if column.dtype.is_float() else column
        known = cells.dtype.is_numeric() or cells.dtype in (pl.Boolean, pl.Object)
        values = (
            cells.cast(pl.Float64, strict=False)
            if known and cells.dtype != pl.Object
            else pl.Series([None] * len(cells), dtype=pl.Float64)
        )
    if values.null_count() > cells.null_count():
        bad = int((values.is_null() & cells.is_not_null()).arg_max() or 0)
        raise DataError(
            f"column '{name}', row {rows[bad]}: {str(cells[bad])!r} is not a number; "
            f"leave the cell empty if the value is missing"
        )
    result = values.fill_null(np.nan).to_numpy()
    if np.isinf(result).any():
        bad = int(np.isinf(result).argmax())
        raise DataError(
            f"column '{name}', row {rows[bad]}: the value is infinite; "
            f"leave the cell empty if it is missing"
        )
    return result, notes


def _parsed(
    cells: pl.Series, decimal: str | None, name: str, rows: np.ndarray, notes: list[str]
) -> pl.Series:
    """Numbers from trimmed text, null where it is none."""
    values = cells.cast(pl.Float64, strict=False)
    if decimal != "," and values.null_count() == cells.null_count():
        return values
    cells = cells.str.replace_all(rf"(\d){GAPS}(\d{{3}})\b", "${1}${2}")
    cells = cells.str.replace_all(rf"(\d){GAPS}(\d{{3}})\b", "${1}${2}")
    mark = decimal or _decimal_mark(cells, name, rows, notes)
    if mark == ",":
        fits = cells.str.contains(COMMA)
        changed = cells.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    else:
        fits = cells.str.contains(POINT) | cells.str.contains(PLAIN)
        changed = cells.str.replace_all(",", "", literal=True)
    return pl.select(pl.when(fits).then(changed)).to_series().cast(pl.Float64, strict=False)


def _decimal_mark(cells: pl.Series, name: str, rows: np.ndarray, notes: list[str]) -> str:
    """Which mark stands before the decimals, from the cells that only one of them explains."""
    if not cells.str.contains(",", literal=True).any() and not cells.str.contains(ONLY_COMMA).any():
        return "."
    comma = cells.str.contains(ONLY_COMMA)
    point = cells.str.contains(ONLY_POINT) | cells.str.contains(r"^[+-]?\d*\.(\d{1,2}|\d{4,})$")
    found = [int(kind.arg_max() or 0) if kind.any() else None for kind in (comma, point)]
    if found[0] is not None and found[1] is not None:
        raise DataError(
            f"column '{name}': {cells[found[0]]!r} in row {rows[found[0]]} has a decimal comma, "
            f"{cells[found[1]]!r} in row {rows[found[1]]} a decimal point; write all alike"
        )
    either = cells.str.contains(EITHER)
    if found == [None, None] and either.any():
        place = int(either.arg_max() or 0)
        cell = cells[place]
        raise DataError(
            f"column '{name}', row {rows[place]}: {cell!r} may be {cell.replace(',', '.')} or "
            f'{cell.replace(",", "")}; say which with decimal="," or decimal="."'
        )
    place = found[0] if found[0] is not None else found[1]
    if place is not None:
        word = "comma" if found[0] is not None else "point"
        notes.append(f"column '{name}': numbers have a decimal {word}, as in {cells[place]!r}")
    return "," if found[0] is not None else "."
