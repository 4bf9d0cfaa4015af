"""Numbers and times in the many ways people write them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.data import DataError, Series, as_panel, as_series, read_series

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def numbers(*cells: str, **options: str) -> Series:
    frame = pl.DataFrame({"ds": [str(2000 + k) for k in range(len(cells))], "y": cells})
    return as_series(frame, **options)  # type: ignore[arg-type]


def times(*cells: str, **options: object) -> Series:
    frame = pl.DataFrame({"ds": cells, "y": list(range(len(cells)))})
    return as_panel(frame, **options).series[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["12,5", "7"], [12.5, 7]),
        (["1.234,56", "1.234"], [1234.56, 1234]),
        (["1,234.56", "1,234"], [1234.56, 1234]),
        (["1,234", "2.5"], [1234, 2.5]),
        (["1,234,567", "2"], [1234567, 2]),
        (["1.234.567", "2"], [1234567, 2]),
        (["0,123", "1,234"], [0.123, 1.234]),
        (["1 234,5", "1\u00a0234\u00a0567,25"], [1234.5, 1234567.25]),
        (["-1,5", "+2,25"], [-1.5, 2.25]),
        (["1e3", " -2.5 "], [1000, -2.5]),
        (["1.234", "2.345"], [1.234, 2.345]),
        (["1", "N/A"], [1, np.nan]),
    ],
)
def test_ways_of_writing_numbers(cells: list[str], values: list[float]) -> None:
    np.testing.assert_array_equal(numbers(*cells).values, values)


def test_a_comma_that_may_be_either_is_refused_and_the_option_decides() -> None:
    message = (
        r"""column 'y', row 2: '1,234' may be 1.234 or 1234; .* decimal="," or decimal="\.\""""
    )
    with pytest.raises(DataError, match=message):
        numbers("2", "1,234")
    assert numbers("2", "1,234", decimal=",").values[1] == 1.234
    assert numbers("2", "1,234", decimal=".").values[1] == 1234
    assert numbers("2", "1.234", decimal=",").values[1] == 1234


def test_decimal_marks_are_noted_and_may_not_be_mixed() -> None:
    assert numbers("12,5").notes[-1] == "column 'y': numbers have a decimal comma, as in '12,5'"
    message = "'1,5' in row 2 has a decimal comma, '2.5' in row 1 a decimal point"
    with pytest.raises(DataError, match=message):
        numbers("2.5", "1,5")


@pytest.mark.parametrize(
    ("cells", "last"),
    [
        (["31/12/2023", "01/01/2024"], "2024-01-01T00:00:00"),
        (["01/01/2024", "13/01/2024"], "2024-01-13T00:00:00"),
        (["31.12.2023 22:00", "31.12.2023 23:00"], "2023-12-31T23:00:00"),
        (["12/30/2024", "12/31/2024"], "2024-12-31T00:00:00"),
        (["12/31/2024 11:00 PM", "01/01/2025 12:00 AM"], "2025-01-01T00:00:00"),
        (["Jan 2024", "Feb 2024"], "2024-02-01T00:00:00"),
        (["January 2024", "february 2024"], "2024-02-01T00:00:00"),
        (["30-Dec-2024", "31-Dec-2024"], "2024-12-31T00:00:00"),
        (["Dec 30, 2024", "Dec 31, 2024"], "2024-12-31T00:00:00"),
        (["2024年12月30日", "2024年12月31日"], "2024-12-31T00:00:00"),
        (["2024年1月", "2024年2月"], "2024-02-01T00:00:00"),
        (["2024-1-30", "2024-1-31"], "2024-01-31T00:00:00"),
        (["2024/01", "2024/02"], "2024-02-01T00:00:00"),
        (["12/2024", "01/2025"], "2025-01-01T00:00:00"),
        (["20240228", "20240229"], "2024-02-29T00:00:00"),
        (["2024-01-01", "2024-01-01 06:00:00"], "2024-01-01T06:00:00"),
        (["2024-01-01 00:00:00.000", "2024-01-01 00:00:01.000"], "2024-01-01T00:00:01"),
    ],
)
def test_ways_of_writing_times(cells: list[str], last: str) -> None:
    assert str(times(*cells).time[-1]) == last


def test_the_order_of_day_and_month_is_never_guessed() -> None:
    message = (
        r"column 'ds', row 1: '02/01/2024' may be 2024-01-02 or 2024-02-01; "
        r"say which with day_first=True or day_first=False"
    )
    with pytest.raises(DataError, match=message):
        times("02/01/2024", "03/01/2024")
    assert str(times("02/01/2024", "03/01/2024", day_first=True).frequency) == "daily"
    assert str(times("02/01/2024", "03/01/2024", day_first=False).frequency) == "monthly"
    assert times("12/01/2024", "13/01/2024").notes[-1] == (
        "column 'ds': the day stands first, as in '13/01/2024'"
    )
    with pytest.raises(
        DataError, match=r"'31/12/2024' in row 1 has the day first, '12/31/2024' in"
    ):
        times("31/12/2024", "12/31/2024")
    with pytest.raises(DataError, match=r"row 2: '13/13/2024' is not a date .*\(day first\)"):
        times("13/12/2024", "13/13/2024", day_first=True)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["2024-02-29", "2024-02-30"], "row 2: '2024-02-30' is not a date like the others"),
        (["31.12.24", "01.01.25"], "row 1: '31.12.24' has a year of two digits; write all four"),
        (["2024-01-01", "N/A"], "column 'ds', row 2: the time is missing"),
        (["2024-01-01T00:00Z", "2024-01-01T01:00"], "row 2: .* has no offset from UTC, unlike"),
        (["x", "y"], "column 'ds' holds no times: row 1 is 'x'; write dates as 2024-12-31"),
    ],
)
def test_times_that_are_refused(cells: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        times(*cells)


def test_offsets_become_utc() -> None:
    summer = ["2024-03-31T01:00:00+01:00", "2024-03-31T03:00:00+02:00", "2024-03-31T04:00+02:00"]
    series = times(*summer)
    assert str(series.frequency) == "hourly"
    assert str(series.time[0]) == "2024-03-31T00:00:00"
    assert series.notes[-1] == "column 'ds': times with an offset are turned into UTC"


AUTUMN = ["2024-10-27 01:00", "2024-10-27 02:00", "2024-10-27 02:00", "2024-10-27 03:00"]
SPRING = ["2024-03-31 00:00", "2024-03-31 01:00", "2024-03-31 03:00", "2024-03-31 04:00"]


@pytest.mark.parametrize("cells", [AUTUMN, SPRING])
def test_a_time_zone_closes_the_gaps_of_summer_time(cells: list[str]) -> None:
    with pytest.raises(DataError, match=r"clock changes, name its zone: timezone='Europe/Berlin'"):
        times(*cells)
    series = times(*cells, timezone="Europe/Berlin")
    assert str(series.frequency) == "hourly"
    assert series.notes[-1] == "column 'ds': clock times of Europe/Berlin are turned into UTC"


def test_quarters_of_the_repeated_hour_keep_their_order_in_each_series() -> None:
    hour = [f"2024-10-27 02:{minute:02d}" for minute in (0, 15, 30, 45)]
    frame = pl.DataFrame({"ds": (hour + hour) * 2, "id": ["a"] * 8 + ["b"] * 8, "y": range(16)})
    panel = as_panel(frame, id="id", timezone="Europe/Berlin")
    assert str(panel.frequency) == "every 15 minutes"
    assert str(panel["b"].time[0]) == "2024-10-27T00:00:00"
    assert str(panel["b"].time[-1]) == "2024-10-27T01:45:00"


def test_time_zones_that_do_not_fit() -> None:
    message = "row 2: in Europe/Berlin the clock never showed 2024-03-31 02:30:00"
    with pytest.raises(DataError, match=message):
        times("2024-03-31 01:00", "2024-03-31 02:30", timezone="Europe/Berlin")
    with pytest.raises(DataError, match="there is no time zone 'Mars'; write it as Europe/Berlin"):
        times("2024-03-31 01:00", "2024-03-31 02:30", timezone="Mars")


def test_days_of_a_zone_stay_days() -> None:
    days = ["2024-03-30T00:00+01:00", "2024-03-31T00:00+01:00", "2024-04-01T00:00+02:00"]
    series = times(*days, timezone="Europe/Berlin")
    assert str(series.frequency) == "daily"
    assert str(series.time[0]) == "2024-03-30T00:00:00"


def test_a_time_split_over_columns() -> None:
    parts = {"Year": [2024, 2024], "month": [12, 12], "day": [31, 31], "hour": [22, 23]}
    series = as_series(pl.DataFrame({"No": [1, 2], **parts, "level": [1, 2]}), target="level")
    assert str(series.time[1]) == "2024-12-31T23:00:00"
    assert series.notes == ("time: columns 'Year', 'month', 'day', 'hour' joined",)
    parts["day"] = [31, 32]
    with pytest.raises(DataError, match="row 2: there is no time with Year 2024, month 12, day 32"):
        as_series(pl.DataFrame({**parts, "level": [1, 2]}))


def day(moment: np.datetime64, style: str) -> str:
    year, month, date = str(moment)[:10].split("-")
    return {
        "iso": f"{year}-{month}-{date}",
        "digits": f"{year}{month}{date}",
        "day/month": f"{date}/{month}/{year}",
        "day.month": f"{date}.{month}.{year}",
        "month/day": f"{month}/{date}/{year}",
        "names": f"{date}-{MONTHS[int(month) - 1]}-{year}",
        "chinese": f"{year}年{int(month)}月{int(date)}日",
    }[style]


@given(
    values=st.lists(
        st.one_of(st.floats(-1e9, 1e9).map(lambda v: round(v, 2)), st.none()),
        min_size=2,
        max_size=20,
    ).filter(lambda values: any(value is not None for value in values)),
    start=st.integers(-20_000, 20_000),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    decimal=st.sampled_from([".", ","]),
    style=st.sampled_from(
        ["iso", "digits", "day/month", "day.month", "month/day", "names", "chinese"]
    ),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gb18030"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_a_table_is_read_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[float | None],
    start: int,
    separator: str,
    decimal: str,
    style: str,
    encoding: str,
    end: str,
) -> None:
    days = np.datetime64("1990-01-01", "s") + np.arange(len(values)) * np.timedelta64(1, "D")
    days = days + np.timedelta64(start, "D")
    cells = ["" if v is None else f"{v:.2f}".replace(".", decimal) for v in values]
    quote = '"' if separator == decimal else ""
    lines = [f"时间{separator}level"] + [
        f"{day(moment, style)}{separator}{quote}{cell}{quote}"
        for moment, cell in zip(days, cells, strict=True)
    ]
    path = tmp_path_factory.mktemp("round") / "table.csv"
    path.write_bytes((end.join(lines) + end).encode(encoding))
    order = {"day/month": True, "day.month": True, "month/day": False}.get(style)
    series = read_series(path, time="时间", day_first=order, decimal=decimal)
    expected = [np.nan if v is None else v for v in values]
    np.testing.assert_array_equal(series.values, expected)
    np.testing.assert_array_equal(series.time, days)
