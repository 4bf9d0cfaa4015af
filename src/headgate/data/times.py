"""From a column, or several, to the times of a series."""

from __future__ import annotations

import re

import numpy as np
import polars as pl

from .cells import PLAIN, sample, trimmed
from .dates import check_zone, format_of, moments, no_times, to_utc
from .errors import DataError

TIME_NAME = re.compile(r"date|time|year|month|week|day|^ds$|^t$|period|index|step", re.IGNORECASE)
PARTS = ("year", "month", "day", "hour", "minute", "second")
YEARS = (1500, 2199)
WRITTEN_DAYS = (15_000_101, 21_991_231)
DAY_SECONDS = 86400


def holds_times(column: pl.Series) -> bool:
    """Whether most filled cells are dates, or whole numbers under a name of time."""
    if column.dtype.is_temporal():
        return column.dtype in (pl.Date, pl.Datetime)
    whole = _whole(sample(column))
    if whole is not None:
        return _within(whole, WRITTEN_DAYS) or bool(TIME_NAME.search(column.name))
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum):
        return False
    cells = sample(column)
    cells = cells.filter(~cells.str.contains(PLAIN)) if cells.len() else cells
    return 2 * sum(bool(format_of(cell)) for cell in cells) > sample(column).len()


def read_times(
    column: pl.Series,
    rows: np.ndarray,
    ids: pl.Series,
    *,
    day_first: bool | None = None,
    timezone: str | None = None,
) -> tuple[np.ndarray, list[str]]:
    """(T,) datetime64[s], or int64 where the column counts rows, and notes on what was guessed.

    `ids` (T,) are the series that the rows belong to. Raises DataError naming the row of the
    first cell that is missing or no time like the others.
    """
    name = column.name
    cells = trimmed(column)
    if cells.null_count():
        row = rows[int(cells.is_null().arg_max() or 0)]
        raise DataError(
            f"column '{name}', row {row}: the time is missing; every row needs its time"
        )
    whole = None if cells.dtype.is_temporal() else _whole(cells)
    if whole is not None and _within(whole, YEARS):
        return (whole.to_numpy() - 1970).astype("datetime64[Y]").astype("datetime64[s]"), []
    if whole is not None and not _within(whole, WRITTEN_DAYS):
        return whole.to_numpy().astype(np.int64), []
    if whole is not None:
        cells = whole.cast(pl.String)
    notes: list[str] = []
    if cells.dtype in (pl.Date, pl.Datetime):
        utc = getattr(cells.dtype, "time_zone", None) is not None
        found = cells.cast(pl.Datetime("ms"))
    else:
        if cells.dtype != pl.String or not _mostly_times(cells):
            raise no_times(cells[0], name, int(rows[0]))
        found, utc, notes = moments(cells, name, rows, day_first)
    if timezone is not None:
        found = _in_zone(found, timezone, utc, name, rows, ids, notes)
    elif utc:
        notes.append(f"column '{name}': times with an offset are turned into UTC")
    return found.dt.cast_time_unit("ms").to_numpy().astype("datetime64[s]"), notes


def _in_zone(
    found: pl.Series,
    zone: str,
    utc: bool,
    name: str,
    rows: np.ndarray,
    ids: pl.Series,
    notes: list[str],
) -> pl.Series:
    """Times as UTC; whole days of the zone stay days."""
    check_zone(zone)
    local = found
    if utc:
        local = found.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
        local = local.dt.replace_time_zone(None)
    if (local.dt.truncate("1d") == local).all():
        notes.append(f"column '{name}': the days are those of {zone}")
        return local
    notes.append(f"column '{name}': clock times of {zone} are turned into UTC")
    return found if utc else to_utc(local, zone, name, rows, ids)


def split_time(names: list[str]) -> list[str]:
    """The columns that hold year, month, day, hour, … of one time; empty without a month."""
    lower = {name.lower(): name for name in names}
    found: list[str] = []
    for part in PARTS:
        if part not in lower:
            break
        found.append(lower[part])
    return found if len(found) > 1 else []


def join_time(frame: pl.DataFrame, parts: list[str], rows: np.ndarray) -> pl.Series:
    """One column "time" from the columns that `split_time` found.

    Raises DataError naming the first row that holds no time.
    """
    whole = [trimmed(frame[name]).cast(pl.Float64, strict=False) for name in parts]
    texts = [column.cast(pl.Int64, strict=False).cast(pl.String).str.zfill(2) for column in whole]
    texts += [pl.Series(["01"]).new_from_index(0, frame.height)] * (3 - len(parts))
    texts += [pl.Series(["00"]).new_from_index(0, frame.height)] * (6 - max(3, len(parts)))
    table = pl.DataFrame(dict(zip(PARTS, texts, strict=True)))
    joined = table.select(pl.concat_str(PARTS, separator=" ")).to_series()
    found = joined.str.to_datetime("%Y %m %d %H %M %S", strict=False, time_unit="ms")
    if found.null_count():
        place = int(found.is_null().arg_max() or 0)
        shown = ", ".join(f"{name} {frame[name][place]!r}" for name in parts)
        raise DataError(f"row {rows[place]}: there is no time with {shown}; correct these columns")
    return found.alias("time")


def _mostly_times(cells: pl.Series) -> bool:
    few = sample(cells)
    return 2 * sum(bool(format_of(cell)) for cell in few) > few.len()


def _whole(cells: pl.Series) -> pl.Series | None:
    """The same as whole numbers; None where a cell is none."""
    if cells.dtype == pl.String:
        if not cells.len() or not cells.str.contains(r"^-?\d{1,18}(\.0)?$").all():
            return None
        return cells.str.strip_suffix(".0").cast(pl.Int64, strict=False)
    if cells.dtype.is_integer():
        return cells.cast(pl.Int64)
    if cells.dtype.is_float() and (cells == cells.floor()).all():
        return cells.cast(pl.Int64)
    return None


def _within(whole: pl.Series, limits: tuple[int, int]) -> bool:
    low, high = whole.min(), whole.max()
    return isinstance(low, int) and isinstance(high, int) and limits[0] <= low <= high <= limits[1]
