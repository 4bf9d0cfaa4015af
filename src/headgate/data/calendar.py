"""The grid a series stands on: its step, its usual season, and the times that come next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import DataError

SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
SHORTEST_MONTH = 28 * 86400
SAMPLE_STEPS = 10_000
YEAR_SECONDS = 365.2425 * 86400
ADVERBS = {
    ("step", 1): "numbered",
    ("hour", 1): "hourly",
    ("day", 1): "daily",
    ("week", 1): "weekly",
    ("month", 1): "monthly",
    ("month", 3): "quarterly",
    ("month", 12): "yearly",
}
SEASONS = {"hourly": 24, "daily": 7, "weekly": 52, "monthly": 12, "quarterly": 4}


@dataclass(frozen=True)
class Frequency:
    """The constant distance between two values: `count` times `unit`.

    `unit` is "step" (numbered rows), "second", "minute", "hour", "day", "week" or "month"; a
    quarter is three months and a year twelve.
    """

    unit: str = "step"
    count: int = 1

    def __str__(self) -> str:
        every = f"every {self.unit}" if self.count == 1 else f"every {self.count} {self.unit}s"
        return ADVERBS.get((self.unit, self.count), every)

    @property
    def season(self) -> int | None:
        """The usual season in steps, such as 12 for monthly values; None if there is none."""
        return SEASONS.get(str(self))

    def positions(self, time: np.ndarray) -> np.ndarray:
        """Whole steps from a fixed origin to each time: neighbours differ by one."""
        if self.unit == "step":
            return time.astype(np.int64) // self.count
        if self.unit == "month":
            return time.astype("datetime64[M]").astype(np.int64) // self.count
        return time.astype("datetime64[s]").astype(np.int64) // (SECONDS[self.unit] * self.count)

    def future(self, last: np.generic, steps: int) -> np.ndarray:
        """The `steps` times that follow `last`."""
        ahead = np.arange(1, steps + 1) * self.count
        if self.unit == "step":
            return np.int64(last) + ahead
        moment = np.asarray(last).astype("datetime64[s]")[()]
        if self.unit != "month":
            return moment + (ahead * SECONDS[self.unit]).astype("timedelta64[s]")
        month = moment.astype("datetime64[M]")
        first = (month + ahead.astype("timedelta64[M]")).astype("datetime64[s]")
        if moment + np.timedelta64(1, "D") == (month + 1).astype("datetime64[s]"):
            following = month + (ahead + 1).astype("timedelta64[M]")
            return following.astype("datetime64[s]") - np.timedelta64(1, "D")
        return first + (moment - month.astype("datetime64[s]"))

    def phase(self, time: np.ndarray, season: int) -> np.ndarray:
        """Where in its season each time stands, from 0 up to 1.

        A season of about a year (52 weeks, 12 months) follows the calendar, so that leap days
        and the 52.18 weeks of a year do not shift it; any other season counts steps.
        """
        if self.unit not in ("step", "month"):
            length = season * SECONDS[self.unit] * self.count
            if abs(length / YEAR_SECONDS - 1) < 0.01:
                year = time.astype("datetime64[Y]")
                start = year.astype("datetime64[s]").astype(np.int64)
                end = (year + 1).astype("datetime64[s]").astype(np.int64)
                return (time.astype("datetime64[s]").astype(np.int64) - start) / (end - start)
        return (self.positions(time) % season) / season


def grid_of(
    time: np.ndarray, name: str, rows: np.ndarray | None = None, *, repeated: str = ""
) -> Frequency:
    """The one step between all neighbours of `time` (T,), dates (datetime64[s]) or integers.

    `rows` (T,) are the rows of the table that the times come from; left out, 1 to T. Raises
    DataError naming the row where times repeat (with the advice `repeated`), go backwards or leave
    the grid.
    """
    if len(time) < 2:
        return Frequency()
    steps = np.diff(time.view(np.int64) if time.dtype.itemsize == 8 else time.astype(np.int64))
    rows = np.arange(1, len(time) + 1) if rows is None else rows
    _check_order(steps, time, name, rows, repeated)
    if time.dtype.kind != "M":
        _check_equal(steps, time, name, rows)
        return Frequency("step", int(steps[0]))
    if in_months(time, int(np.median(steps[:SAMPLE_STEPS]))):
        distance = np.diff(time.astype("datetime64[M]").astype(np.int64))
        if np.all(distance > 0):
            _check_equal(distance, time, name, rows, "months")
            return Frequency("month", int(distance[0]))
    _check_equal(steps, time, name, rows, "seconds")
    return in_seconds(int(steps[0]))


def in_seconds(step: int) -> Frequency:
    """A step of so many seconds in its largest whole unit."""
    unit = max((u for u in SECONDS if step % SECONDS[u] == 0), key=lambda u: SECONDS[u])
    return Frequency(unit, step // SECONDS[unit])


def in_months(time: np.ndarray, step: int) -> bool:
    """Whether dates (T,) all stand at one place in their months, or all at the months' ends.

    `step` is a usual distance in seconds: times closer than a month do not count months.
    """
    if step < SHORTEST_MONTH:
        return False
    months = time.astype("datetime64[M]")
    offsets = time.astype(np.int64) - months.astype("datetime64[s]").astype(np.int64)
    return bool(np.all(offsets == offsets[0])) or at_month_ends(time)


def at_month_ends(time: np.ndarray) -> bool:
    """Whether dates (T,) are all the last days of their months."""
    following = (time + np.timedelta64(1, "D")).astype("datetime64[s]")
    return bool(np.all(following == following.astype("datetime64[M]").astype("datetime64[s]")))


def _check_order(
    steps: np.ndarray, time: np.ndarray, name: str, rows: np.ndarray, repeated: str
) -> None:
    if steps.min() > 0:
        return
    place = int((steps <= 0).argmax())
    before, here = rows[place], rows[place + 1]
    if steps[place] == 0:
        raise DataError(
            f"column '{name}': rows {before} and {here} hold the same time "
            f"{show_time(time[place])}; a single series has one value a time: remove or add up the "
            f"repeated rows, or ask for resample='auto' with aggregate='mean' or 'sum'{repeated}"
            f"{_clock_change(time[place])}"
        )
    raise DataError(
        f"column '{name}': row {here} ({show_time(time[place + 1])}) comes before row {before} "
        f"({show_time(time[place])}); sort the table by '{name}'"
        f", or ask for resample='auto'{_clock_change(time[place])}"
    )


def _clock_change(moment: np.generic) -> str:
    """Advice where clocks of Europe or America may have been put forward or back."""
    if not isinstance(moment, np.datetime64):
        return ""
    day = moment.astype("datetime64[D]")
    sunday = (day.astype(np.int64) + 4) % 7 == 0
    night = moment.astype("datetime64[h]").astype(np.int64) % 24 <= 4
    if not (sunday and night and int(str(day)[5:7]) in (3, 4, 9, 10, 11)):
        return ""
    return "; if this is where the clock changes, name its zone: timezone='Europe/Berlin'"


def _check_equal(
    steps: np.ndarray, time: np.ndarray, name: str, rows: np.ndarray, unit: str = "steps"
) -> None:
    if steps.min() == steps.max():
        return
    values, counts = np.unique(steps, return_counts=True)
    usual = int(values[np.argmax(counts)])
    place = int((steps != usual).argmax())
    raise DataError(
        f"column '{name}': the times are not evenly spaced: from row {rows[place]} "
        f"({show_time(time[place])}) to row {rows[place + 1]} ({show_time(time[place + 1])}) are "
        f"{_amount(int(steps[place]), unit)}, elsewhere {_amount(usual, unit)}; "
        f"add the missing times as rows with an empty value, or aggregate to a regular step, or "
        f"ask for resample='auto'{_clock_change(time[place])}"
    )


def _amount(steps: int, unit: str) -> str:
    if unit == "seconds":
        whole = max((u for u in SECONDS if steps % SECONDS[u] == 0), key=lambda u: SECONDS[u])
        steps, unit = steps // SECONDS[whole], whole + "s"
    return f"{steps} {unit if steps != 1 else unit[:-1]}"


def show_time(moment: np.generic) -> str:
    """A time as people write it: the date alone where the clock says midnight."""
    text = str(moment)
    return text.removesuffix("T00:00:00").replace("T", " ")
