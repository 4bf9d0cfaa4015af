"""Mending on request: resample, aggregate and fill."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.data import DataError, Panel, as_panel, as_series


def panel(times: list[str], values: Sequence[float | None], **options: str) -> Panel:
    return as_panel(pl.DataFrame({"ds": times, "y": values}), **options)  # type: ignore[arg-type]


DAYS = ["2024-01-01", "2024-01-05", "2024-01-02", "2024-01-03"]


def test_uneven_times_are_refused_until_mended() -> None:
    times, values = ["2024-01-01", "2024-01-02", "2024-01-05", "2024-01-06"], [1, 2, 5, 6]
    with pytest.raises(DataError, match=r"not evenly spaced: from row 2 .* resample='auto'"):
        panel(times, values)
    mended = panel(times, values, resample="auto")
    np.testing.assert_array_equal(mended.series[0].values, [1, 2, np.nan, np.nan, 5, 6])
    assert mended.notes[-1] == "resample: the step is daily; 2 absent steps were added"


def test_resample_sorts() -> None:
    with pytest.raises(DataError, match=r"row 3 .* comes before row 2 .*sort the table by 'ds'"):
        panel(DAYS, [1, 5, 2, 3])
    mended = panel(DAYS, [1, 5, 2, 3], resample="D")
    np.testing.assert_array_equal(mended.series[0].values, [1, 2, 3, np.nan, 5])
    assert "resample: the rows were sorted by time" in mended.notes


@pytest.mark.parametrize(
    ("aggregate", "values"),
    [
        ("mean", [2, np.nan, 4]),
        ("sum", [4, np.nan, 4]),
        ("last", [3, np.nan, 4]),
        ("first", [1, np.nan, 4]),
        ("min", [1, np.nan, 4]),
        ("max", [3, np.nan, 4]),
    ],
)
def test_values_of_one_step_are_combined(aggregate: str, values: list[float]) -> None:
    times = ["2024-01-01 03:00", "2024-01-01 09:00", "2024-01-01 10:00"]
    times += ["2024-01-02 01:00", "2024-01-02 02:00", "2024-01-03 01:00"]
    read: list[float | None] = [1, 3, None, None, None, 4]
    with pytest.raises(DataError, match=r"rows 1 and 2 fall into one step, 2024-01-01; .*'mean'"):
        panel(times, read, resample="D")
    mended = panel(times, read, resample="D", aggregate=aggregate)
    np.testing.assert_array_equal(mended.series[0].values, values)
    assert f"resample: 6 rows became 3 by aggregate='{aggregate}'" in mended.notes


@pytest.mark.parametrize(
    ("rule", "times", "first", "frequency"),
    [
        ("W", ["2024-01-03", "2024-01-12"], "2024-01-01", "weekly"),
        ("W", ["2024-01-06", "2024-01-20"], "2024-01-06", "weekly"),
        ("auto", ["2024-01-31", "2024-02-29", "2024-04-30"], "2024-01-31", "monthly"),
        ("MS", ["2024-01-15", "2024-03-01"], "2024-01-01", "monthly"),
        ("MS", ["2024-01-15", "2024-03-15"], "2024-01-15", "monthly"),
        ("QS", ["2024-02-20", "2024-07-01"], "2024-01-01", "quarterly"),
        ("YS", ["2023-02-20", "2024-07-01"], "2023-01-01", "yearly"),
        ("15min", ["2024-01-01 00:17", "2024-01-01 01:00"], "2024-01-01T00:15", "every 15 minutes"),
        ("1h", ["2024-01-01 00:30", "2024-01-01 02:30"], "2024-01-01T00:30", "hourly"),
        ("auto", ["3", "7", "5", "11"], "3", "every 2 steps"),
    ],
)
def test_the_grid_follows_the_calendar_unless_all_times_stand_on_another(
    rule: str, times: list[str], first: str, frequency: str
) -> None:
    series = panel(times, list(range(len(times))), resample=rule).series[0]
    assert str(series.time[0]).startswith(first)
    assert str(series.frequency) == frequency
    assert series.missing == len(series) - len(times)


def test_every_series_keeps_its_own_start_and_end_and_known_lie_ahead() -> None:
    frame = pl.DataFrame(
        {
            "unique_id": list("aabbbb"),
            "ds": [*DAYS[:2], "2024-01-07", "2024-01-08", "2024-01-10", "2024-01-11"],
            "y": [1, 5, 7, 8, None, None],
            "price": [1.0, 5.0, 7.0, 8.0, 10.0, 11.0],
        }
    )
    mended = as_panel(frame, known=["price"], resample="D")
    assert [len(each) for each in mended] == [5, 3]
    np.testing.assert_array_equal(mended["b"].values, [7, 8, np.nan])
    np.testing.assert_array_equal(mended["b"].covariates.known["price"], [7, 8, np.nan, 10, 11])
    linear = as_panel(frame, known=["price"], resample="D", fill="linear")
    np.testing.assert_array_equal(linear["b"].covariates.known["price"], [7, 8, 9, 10, 11])


@pytest.mark.parametrize(
    ("fill", "values", "count"),
    [
        ("linear", [2, 2, 3, 4, 4], 3),
        ("forward", [np.nan, 2, 2, 4, 4], 2),
        ("zero", [0, 2, 0, 4, 0], 3),
        ("mask", [np.nan, 2, np.nan, 4, np.nan], 0),
    ],
)
def test_missing_values_are_filled(fill: str, values: list[float], count: int) -> None:
    filled = as_panel({"a": [None, 2, None, 4, None]}, fill=fill)
    np.testing.assert_array_equal(filled["a"].values, values)
    assert filled.notes == (f"fill='{fill}': {count} of 3 missing values were filled",)
    np.testing.assert_array_equal(as_series([None, 2, None, 4, None], fill=fill).values, values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resample": "often"}, r"resample='often' names no step; write 'auto', or a number and"),
        ({"resample": "0h"}, r"resample='0h' names no step"),
        ({"aggregate": "sum"}, r"say the step too: resample='auto'"),
        ({"resample": "D", "aggregate": "median"}, r"aggregate='median' is unknown; choose one of"),
        (
            {"fill": "spline"},
            r"fill='spline' is unknown; choose one of 'linear', 'forward', 'zero'",
        ),
        ({"decimal": ";"}, r"decimal=';' is unknown; choose one of '\.', ','"),
        ({"resample": "1s"}, r"resample='1s' would make .* rows; choose a longer step"),
    ],
)
def test_options_that_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        panel(["1900-01-01", "2024-01-02"], [1, 2], **options)


def test_steps_need_dates_or_two_times() -> None:
    with pytest.raises(DataError, match=r"resample='D' needs dates, and column 'ds' counts rows"):
        panel(["1", "2"], [1, 2], resample="D")
    with pytest.raises(DataError, match=r"resample='auto' found no two times; name the step"):
        panel(["2024-01-01"], [1], resample="auto")


@given(
    keep=st.lists(st.booleans(), min_size=8, max_size=40),
    seed=st.integers(0, 1000),
    hours=st.sampled_from([1, 3, 24]),
)
def test_absent_and_shuffled_rows_come_back_in_their_places(
    keep: list[bool], seed: int, hours: int
) -> None:
    keep = [True, True, *keep, True]
    start = np.datetime64("2024-02-27T00:00:00", "s")
    times = start + np.arange(len(keep)) * np.timedelta64(3600 * hours, "s")
    values = np.where(keep, np.arange(len(keep), dtype=float), np.nan)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(keep))
    frame = pl.DataFrame({"ds": times[order].astype("datetime64[ms]"), "y": values[order]})
    series = as_series(frame, resample=f"{hours}h")
    np.testing.assert_array_equal(series.time, times)
    np.testing.assert_array_equal(series.values, values)
