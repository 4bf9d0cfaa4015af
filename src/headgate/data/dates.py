"""From cells to times: many ways of writing a date, offsets from UTC, and local clocks."""

from __future__ import annotations

import re
import zoneinfo
from dataclasses import dataclass

import numpy as np
import polars as pl

from .errors import DataError

MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
LONG_MONTH = (
    r"(?:january|february|march|april|june|july|august|september|october|november|december)"
)
# A pattern of the date and the strptime formats it may stand for; {0}, {1}, … are its marks.
DATES = [
    (r"\d{4}([-/.])\d{1,2}\1\d{1,2}", ["%Y{0}%m{0}%d"]),
    (r"(?:1[5-9]|2[01])\d{6}", ["%Y%m%d"]),
    (r"\d{4}年\d{1,2}月\d{1,2}[日号]", ["%Y年%m月%d"]),
    (r"\d{1,2}([-/.])\d{1,2}\1\d{4}", ["%d{0}%m{0}%Y", "%m{0}%d{0}%Y"]),
    (r"\d{1,2}([-/. ]|\. )MONTH\.?([-/ ])\d{4}", ["%d{0}NAME{1}%Y"]),
    (r"MONTH\.? \d{1,2}(, ?| )\d{4}", ["NAME %d{0}%Y"]),
    (r"\d{4}([-/ ])MONTH\1\d{1,2}", ["%Y{0}NAME{0}%d"]),
    (r"MONTH\.?([-/ ]|, )\d{4}", ["NAME{0}%Y"]),
    (r"\d{4}([-/ ])MONTH", ["%Y{0}NAME"]),
    (r"\d{4}([-/])\d{1,2}", ["%Y{0}%m"]),
    (r"\d{4}年\d{1,2}月", ["%Y年%m月"]),
    (r"\d{1,2}([-/])\d{4}", ["%m{0}%Y"]),
    (r"(?:1[5-9]|2[01])\d\d(?:\.0)?", ["%Y"]),
]
CLOCK = re.compile(
    r"(?P<gap>T|,? +)(?P<hour>\d{1,2}):\d\d(?P<second>:\d\d)?(?P<part>\.\d+)?(?P<noon> ?[ap]m)?"
    r"(?P<zone> ?(?:Z|UTC|GMT|[+-]\d\d:?\d\d))?",
    re.IGNORECASE,
)
ADVICE = "write dates as 2024-12-31, 2024-12 or 20241231"


@dataclass(frozen=True)
class Style:
    """How cells write a time: a strptime `format`, a `tail` that makes a month or year a day."""

    format: str
    tail: str = ""

    @property
    def has_offset(self) -> bool:
        return self.format.endswith(("%z", "Z", "UTC", "GMT"))

    @property
    def day_first(self) -> bool | None:
        """Whether the day stands before the month; None where the format leaves no doubt."""
        start = re.match(r"%([dm])[-/.]%[dm]", self.format)
        return start and start[1] == "d"


def format_of(cell: str) -> list[Style]:
    """The styles a cell may be written in: one, two where day and month may be exchanged, or none.

    A style may still fail: 2024-02-30 is written like a date.
    """
    for pattern, formats in _PATTERNS:
        match = pattern.match(cell)
        if match:
            rest = _clock(cell[match.end() :])
            if rest is not None:
                marks = [mark for mark in match.groups() if mark is not None]
                return [_style(text, marks, rest, match[0]) for text in formats]
    return []


def _style(text: str, marks: list[str], clock: str, date: str) -> Style:
    if "NAME" in text:
        name = "%B" if re.search(LONG_MONTH, date, re.IGNORECASE) else "%b"
        dotted = re.search(MONTH + r"\.", date, re.IGNORECASE)
        text = text.replace("NAME", name + ("." if dotted else ""))
    text = text.format(*marks)
    if date.endswith(("日", "号")):
        text += date[-1]
    if text == "%Y":
        return Style(("%Y.0" if date.endswith(".0") else "%Y") + " %m-%d" + clock, " 01-01")
    if "%d" not in text:
        return Style(text + " %d" + clock, " 01")
    return Style(text + clock)


def _clock(rest: str) -> str | None:
    """The format of what follows the date; None where it is no time of day."""
    if not rest:
        return ""
    match = CLOCK.fullmatch(rest)
    if not match:
        return None
    hour = "%I" if match["noon"] else "%H"
    text = match["gap"] + hour + ":%M" + (":%S" if match["second"] else "")
    text += "%.f" if match["part"] else ""
    if match["noon"]:
        text += match["noon"][:-2] + "%p"
    zone = match["zone"] or ""
    return text + re.sub(r"[+-]\d\d:?\d\d", "%z", zone)


_PATTERNS = [
    (
        re.compile(
            pattern.replace("MONTH", f"(?:{LONG_MONTH}|{MONTH})") + r"(?!\d)", re.IGNORECASE
        ),
        formats,
    )
    for pattern, formats in DATES
]


def moments(
    cells: pl.Series, name: str, rows: np.ndarray, day_first: bool | None
) -> tuple[pl.Series, bool, list[str]]:
    """Times (Datetime, null where a cell is) of trimmed text, whether they are UTC, and notes.

    Raises DataError naming the first row that is no time like the others, or where no cell says
    whether the day or the month stands first.
    """
    notes: list[str] = []
    found = pl.Series([None] * len(cells), dtype=pl.Datetime("ms"))
    style: Style | None = None
    while found.null_count() > cells.null_count():
        place = _first(found.is_null() & cells.is_not_null())
        styles = format_of(cells[place])
        if len(styles) == 2 and day_first is None:
            day_first = _day_first(cells, styles, name, rows, notes)
        styles = [s for s in styles if s.day_first in (None, day_first)]
        styles = [s for s in styles if _parse(cells[place : place + 1], s)[0]]
        if not styles:
            raise DataError(_no_time(cells[place], name, int(rows[place]), day_first))
        if style and style.has_offset != styles[0].has_offset:
            raise DataError(
                f"column '{name}', row {rows[place]}: {cells[place]!r} has "
                f"{'no' if style.has_offset else 'an'} offset from UTC, unlike the rows above; "
                f"write all times alike"
            )
        found = _complete(found, cells, styles[0]) if style else _parse(cells, styles[0])
        style = styles[0]
    return found, bool(style and style.has_offset), notes


def _complete(found: pl.Series, cells: pl.Series, style: Style) -> pl.Series:
    """`found`, and where it is null what `style` makes of the cell."""
    places = (found.is_null() & cells.is_not_null()).arg_true()
    return found.scatter(places, _parse(cells.gather(places), style))


def _parse(cells: pl.Series, style: Style) -> pl.Series:
    text = cells + style.tail if style.tail else cells
    parsed = text.str.to_datetime(style.format, strict=False, time_unit="ms")
    return parsed.dt.replace_time_zone(None)


def _first(where: pl.Series) -> int:
    return int(where.arg_max() or 0)


def no_times(cell: object, name: str, row: int) -> DataError:
    """What to say of a column where most cells are no times, such as this one."""
    if _short_year(str(cell)):
        return DataError(_no_time(str(cell), name, row, None))
    return DataError(f"column '{name}' holds no times: row {row} is {str(cell)!r}; {ADVICE}")


def _short_year(cell: str) -> bool:
    return bool(re.fullmatch(r"\d{1,2}([-/.])(\d{1,2}|[A-Za-z]{3})\1\d\d|[A-Za-z]{3}-\d\d", cell))


def _no_time(cell: str, name: str, row: int, day_first: bool | None) -> str:
    if _short_year(cell):
        return f"column '{name}', row {row}: {cell!r} has a year of two digits; write all four"
    order = {True: " (day first)", False: " (month first)", None: ""}[day_first]
    return (
        f"column '{name}', row {row}: {cell!r} is not a date like the others{order}; "
        f"every row needs its time"
    )


def _day_first(
    cells: pl.Series, styles: list[Style], name: str, rows: np.ndarray, notes: list[str]
) -> bool:
    """What the cells that only one order explains say; there is none where all are up to 12."""
    parts = cells.str.extract_groups(r"^(\d{1,2})[-/.](\d{1,2})[-/.]\d{4}")
    first, second = (parts.struct.field(str(k)).cast(pl.Int16) > 12 for k in (1, 2))
    if first.any() and not second.any():
        notes.append(f"column '{name}': the day stands first, as in {cells[_first(first)]!r}")
        return True
    if second.any() and not first.any():
        notes.append(f"column '{name}': the month stands first, as in {cells[_first(second)]!r}")
        return False
    if first.any():
        places = [_first(first), _first(second)]
        raise DataError(
            f"column '{name}': {cells[places[0]]!r} in row {rows[places[0]]} has the day first, "
            f"{cells[places[1]]!r} in row {rows[places[1]]} the month; write all alike"
        )
    place = _first(parts.struct.field("1") != parts.struct.field("2"))
    shown = {s.day_first: str(_parse(cells[place : place + 1], s)[0])[:10] for s in styles}
    raise DataError(
        f"column '{name}', row {rows[place]}: {cells[place]!r} may be {shown[True]} or "
        f"{shown[False]}; say which with day_first=True or day_first=False"
    )


def to_utc(local: pl.Series, zone: str, name: str, rows: np.ndarray, ids: pl.Series) -> pl.Series:
    """Clock times of a zone as UTC; `ids` (T,) says which series a time belongs to.

    An hour that autumn repeats is the second one where its series has already been there. Raises
    DataError naming the row of a time that spring leaves out.
    """
    check_zone(zone)
    frame = pl.DataFrame({"local": local, "id": ids})
    utc = frame.select(
        **{
            which: pl.col("local")
            .dt.replace_time_zone(zone, ambiguous=which, non_existent="null")
            .dt.convert_time_zone("UTC")
            .dt.replace_time_zone(None)
            for which in ("earliest", "latest")
        },
        repeated=pl.col("local") <= pl.col("local").cum_max().shift(1).over("id"),
    )
    gap = utc["earliest"].is_null() & local.is_not_null()
    if gap.any():
        place = _first(gap)
        raise DataError(
            f"column '{name}', row {rows[place]}: in {zone} the clock never showed "
            f"{str(local[place])[:19]} (summer time began); correct the time, or leave timezone= "
            f"out if the times are not of that zone"
        )
    later = pl.col("repeated").fill_null(False)
    return utc.select(pl.when(later).then("latest").otherwise("earliest")).to_series()


def check_zone(zone: str) -> None:
    """Raise DataError where there is no such time zone."""
    try:
        zoneinfo.ZoneInfo(zone)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise DataError(
            f"there is no time zone '{zone}'; write it as Europe/Berlin or Asia/Shanghai"
        ) from None
