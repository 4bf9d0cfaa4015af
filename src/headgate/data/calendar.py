"""The grid a series stands on: its step, its usual season, and the times that come next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import DataError

SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
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
        return ADVERBS.get((self.unit, self.count), f"every {self.count} {self.unit}s")

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


def grid_of(time: np.ndarray, name: str) -> Frequency:
    """The one step between all neighbours of `time`, dates (datetime64[s]) or integers.

    Raises DataError naming the row where times repeat, go backwards or leave the grid.
    """
    if len(time) < 2:
        return Frequency()
    steps = np.diff(time.astype(np.int64))
    _check_order(steps, time, name)
    if time.dtype.kind != "M":
        _check_equal(steps, time, name)
        return Frequency("step", int(steps[0]))
    months = time.astype("datetime64[M]")
    offsets = time.astype(np.int64) - months.astype("datetime64[s]").astype(np.int64)
    month_end = (time + np.timedelta64(1, "D")).astype("datetime64[s]")
    at_end = np.all(month_end == month_end.astype("datetime64[M]").astype("datetime64[s]"))
    distance = np.diff(months.astype(np.int64))
    if (np.all(offsets == offsets[0]) or at_end) and np.all(distance > 0):
        _check_equal(distance, time, name, "months")
        return Frequency("month", int(distance[0]))
    _check_equal(steps, time, name, "seconds")
    unit = max((u for u in SECONDS if steps[0] % SECONDS[u] == 0), key=lambda u: SECONDS[u])
    return Frequency(unit, int(steps[0]) // SECONDS[unit])


def _check_order(steps: np.ndarray, time: np.ndarray, name: str) -> None:
    bad = np.flatnonzero(steps <= 0)
    if not bad.size:
        return
    row = int(bad[0]) + 2
    here, before = show_time(time[row - 1]), show_time(time[row - 2])
    if here == before:
        raise DataError(
            f"column '{name}': rows {row - 1} and {row} hold the same time {here}; "
            f"a single series has one value a time: remove or add up the repeated rows"
        )
    raise DataError(
        f"column '{name}': row {row} ({here}) comes before row {row - 1} ({before}); "
        f"sort the table by '{name}'"
    )


def _check_equal(steps: np.ndarray, time: np.ndarray, name: str, unit: str = "steps") -> None:
    values, counts = np.unique(steps, return_counts=True)
    usual = int(values[np.argmax(counts)])
    bad = np.flatnonzero(steps != usual)
    if not bad.size:
        return
    row = int(bad[0]) + 2
    raise DataError(
        f"column '{name}': the times are not evenly spaced: from row {row - 1} "
        f"({show_time(time[row - 2])}) to row {row} ({show_time(time[row - 1])}) are "
        f"{_amount(int(steps[row - 2]), unit)}, elsewhere {_amount(usual, unit)}; "
        f"add the missing times as rows with an empty value, or aggregate to a regular step"
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
