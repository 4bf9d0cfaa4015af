"""Mending on request: a regular grid out of any times, and values for the missing ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from .calendar import SECONDS, Frequency, at_month_ends, in_months, in_seconds, show_time
from .errors import DataError
from .options import step_of
from .preprocessing import fill_forward, fill_missing

ToTimes = Callable[[np.ndarray], np.ndarray]
MONDAY = 4 * 86400  # the first one of 1970
MOST_ROWS = 200_000_000


@dataclass(frozen=True)
class Rows:
    """A table sorted by series: for each row its series' number `code`, its `time` and its `row`.

    All are (T,), and so is each array of `values` and `covariates`, float64, NaN where missing.
    """

    code: np.ndarray
    time: np.ndarray
    row: np.ndarray
    values: dict[str, np.ndarray]
    covariates: dict[str, np.ndarray]

    def take(self, order: np.ndarray) -> Rows:
        """These rows in this order."""
        return Rows(
            self.code[order],
            self.time[order],
            self.row[order],
            {name: column[order] for name, column in self.values.items()},
            {name: column[order] for name, column in self.covariates.items()},
        )

    def bounds(self) -> np.ndarray:
        """Where each series starts, and the end of the last."""
        inner = np.flatnonzero(np.diff(self.code)) + 1
        return np.concatenate([[0], inner, [len(self.code)]])


def put_on_grid(
    rows: Rows, rule: str, aggregate: str | None, name: str, notes: list[str]
) -> tuple[Rows, Frequency]:
    """Every series on the grid of `rule`, absent steps missing, and the grid's step.

    Values of one step are combined by `aggregate`, covariates by their mean. The grid follows the
    calendar (midnights, Mondays, the first of a month) unless all times already stand on one of
    the same step. Raises DataError where several rows share a step and `aggregate` is None.
    """
    if not _sorted(rows):
        rows = rows.take(np.lexsort((rows.time, rows.code)))
        notes.append("resample: the rows were sorted by time")
    step = _usual_step(rows) if rule == "auto" else step_of(rule)
    if (step.unit == "step") != (rows.time.dtype.kind != "M"):
        raise DataError(
            f"resample={rule!r} needs dates, and column '{name}' counts rows; use resample='auto'"
        )
    place, times = _steps(rows.time, step)
    before = len(place)
    rows, place = _combined(rows, place, aggregate, name, times, notes)
    bounds = rows.bounds()
    starts = place[bounds[:-1]]
    lengths = place[bounds[1:] - 1] - starts + 1
    total = int(lengths.sum())
    if total > max(MOST_ROWS, 2 * before):
        raise DataError(f"resample={rule!r} would make {total:,} rows; choose a longer step")
    ends = np.cumsum(lengths)
    series = np.repeat(np.arange(len(starts)), np.diff(bounds))
    index = (ends - lengths)[series] + place - starts[series]
    code = np.repeat(rows.code[bounds[:-1]], lengths)
    grid = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    spread = {
        kind: {key: _spread(column, index, total) for key, column in getattr(rows, kind).items()}
        for kind in ("values", "covariates")
    }
    row = np.zeros(total, np.int64)
    row[index] = rows.row
    notes.append(f"resample: the step is {step}; {total - len(place)} absent steps were added")
    return Rows(code, times(grid), row, **spread), step


def _sorted(rows: Rows) -> bool:
    later = np.diff(rows.time.astype(np.int64)) >= 0
    return bool(np.all(later | (np.diff(rows.code) != 0)))


def _spread(column: np.ndarray, index: np.ndarray, total: int) -> np.ndarray:
    result = np.full(total, np.nan)
    result[index] = column
    return result


def _usual_step(rows: Rows) -> Frequency:
    """The most usual distance between neighbours of one series."""
    steps = np.diff(rows.time.astype(np.int64))
    steps = steps[(np.diff(rows.code) == 0) & (steps > 0)]
    if not len(steps):
        raise DataError("resample='auto' found no two times; name the step: resample='D'")
    usual = _mode(steps)
    if rows.time.dtype.kind != "M":
        return Frequency("step", usual)
    if in_months(rows.time, usual):
        months = np.diff(rows.time.astype("datetime64[M]").astype(np.int64))
        return Frequency("month", _mode(months[(np.diff(rows.code) == 0) & (months > 0)]))
    return in_seconds(usual)


def _mode(steps: np.ndarray) -> int:
    values, counts = np.unique(steps, return_counts=True)
    return int(values[np.argmax(counts)])


def _steps(time: np.ndarray, step: Frequency) -> tuple[np.ndarray, ToTimes]:
    """The number of the step that each time falls in, and the way back to times."""
    if step.unit == "month":
        months = time.astype("datetime64[M]")
        within = time - months.astype("datetime64[s]")
        first = _phase(months.astype(np.int64), step.count, 0)
        ends = at_month_ends(time)
        offset = within[0] if np.all(within == within[0]) else np.timedelta64(0, "s")

        def of_month(place: np.ndarray) -> np.ndarray:
            month = (first + place * step.count).astype("datetime64[M]")
            if ends:
                return (month + 1).astype("datetime64[s]") - np.timedelta64(86400, "s")
            return month.astype("datetime64[s]") + offset

        return (months.astype(np.int64) - first) // step.count, of_month
    length = step.count * (1 if step.unit == "step" else SECONDS[step.unit])
    whole = time.astype(np.int64)
    origin = int(whole.min()) if step.unit == "step" else MONDAY * (step.unit == "week")
    first = _phase(whole, length, origin)
    return (whole - first) // length, lambda place: (first + place * length).astype(time.dtype)


def _phase(whole: np.ndarray, length: int, origin: int) -> int:
    """Where steps start: at `origin`, or where all already stand."""
    rest = (whole - origin) % length
    return origin + int(rest[0]) if rest.min() == rest.max() else origin


def _combined(
    rows: Rows,
    place: np.ndarray,
    aggregate: str | None,
    name: str,
    times: ToTimes,
    notes: list[str],
) -> tuple[Rows, np.ndarray]:
    """One row a step."""
    fresh = np.concatenate([[True], (np.diff(place) != 0) | (np.diff(rows.code) != 0)])
    if fresh.all():
        return rows, place
    if aggregate is None:
        again = int((~fresh).argmax())
        raise DataError(
            f"column '{name}': rows {rows.row[again - 1]} and {rows.row[again]} fall into one "
            f"step, {show_time(times(place[again : again + 1])[0])}; say how to combine them: "
            f"aggregate='mean', 'sum', 'last', 'first', 'min' or 'max'"
        )
    groups = np.cumsum(fresh)
    notes.append(
        f"resample: {len(place)} rows became {groups[-1]} by aggregate='{aggregate}'"
        + (", covariates by their mean" if rows.covariates else "")
    )
    kept = np.flatnonzero(fresh)
    first = Rows(rows.code[kept], rows.time[kept], rows.row[kept], {}, {})
    values = {key: _aggregate(v, groups, aggregate) for key, v in rows.values.items()}
    covariates = {key: _aggregate(v, groups, "mean") for key, v in rows.covariates.items()}
    return replace(first, values=values, covariates=covariates), place[kept]


def _aggregate(column: np.ndarray, groups: np.ndarray, how: str) -> np.ndarray:
    """The values of each group as one, missing ones aside; NaN where all are missing."""
    value = pl.col("value").fill_nan(None)
    combined = {
        "mean": value.mean(),
        "sum": pl.when(value.count() > 0).then(value.sum()),
        "last": value.drop_nulls().last(),
        "first": value.drop_nulls().first(),
        "min": value.min(),
        "max": value.max(),
    }[how]
    frame = pl.DataFrame({"group": groups, "value": column})
    found = frame.group_by("group", maintain_order=True).agg(combined)
    return found["value"].fill_null(np.nan).to_numpy()


def filled(values: np.ndarray, how: str) -> np.ndarray:
    """(T,) with its missing values mended: "linear", "forward", "zero", or "mask": left missing.

    "linear" takes the nearest value at either end; "forward" leaves the missing first ones.
    """
    gaps = np.isnan(values)
    if how == "mask" or not gaps.any() or (gaps.all() and how != "zero"):
        return values
    if how == "linear":
        return fill_missing(values)
    if how == "zero":
        return np.where(gaps, 0.0, values)
    return fill_forward(values, np.nan)
