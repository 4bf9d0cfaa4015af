"""Which column is what: long and wide tables, arrays, covariates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headgate.data import DataError, Panel, as_panel, as_series, read_panel, read_series

LONG = pl.DataFrame(
    {
        "unique_id": ["b", "a", "b", "a", "b"],
        "ds": ["2024-01-01", "2024-01-05", "2024-01-02", "2024-01-06", "2024-01-03"],
        "y": [1.0, 10.0, 2.0, 11.0, None],
        "price": [5.0, 6.0, 5.5, 6.5, 7.0],
        "kind": ["x", "z", "x", "z", "x"],
        "size": [3, 4, 3, 4, 3],
    }
)
WIDE = pl.DataFrame({"day": ["2024-01-01", "2024-01-02"], "north": [1, 2], "south": [3, None]})


def ids(panel: Panel) -> list[str]:
    return [each.id for each in panel]


def test_a_long_table_of_series_that_start_and_end_at_their_own_times() -> None:
    panel = as_panel(LONG)
    assert ids(panel) == ["b", "a"]
    np.testing.assert_array_equal(panel["b"].values, [1, 2, np.nan])
    np.testing.assert_array_equal(panel["a"].values, [10, 11])
    assert str(panel["a"].time[0])[:10] == "2024-01-05"
    assert panel.notes == ("id: column 'unique_id'", "time: column 'ds'", "target: column 'y'")
    assert panel["a"].notes == panel.notes


def test_columns_are_named_or_guessed_where_one_can_be_meant() -> None:
    shops = LONG.select(shop="unique_id", day="ds", sold="y")
    both = pl.concat([shops.head(1), shops.head(1).with_columns(shop=pl.lit("c"))])
    assert as_panel(both).notes[-1] == "id: column 'shop'"
    named = as_panel(shops, id="shop", time="day", target="sold")
    assert ids(named) == ["b", "a"]
    assert named.notes == ()
    with pytest.raises(
        DataError, match="there is no column 'store'; the columns are 'shop', 'day'"
    ):
        as_panel(shops, id="store")
    with pytest.raises(DataError, match="column 'sold' is named twice, as target= and known="):
        as_panel(shops, target="sold", known=["sold"])


def test_numbered_shops_are_not_guessed_but_asked_for() -> None:
    frame = pl.DataFrame({"shop": [1, 2, 1, 2], "day": ["2024", "2024", "2025", "2025"]})
    frame = frame.with_columns(sold=pl.lit(3))
    with pytest.raises(DataError, match=r"2 columns hold numbers: 'shop', 'sold'; name .* target="):
        as_panel(frame)
    with pytest.raises(DataError, match=r"rows 1 and 2 hold the same time.* read_panel\(…, id=\)"):
        as_panel(frame, target="sold")
    assert ids(as_panel(frame, target="sold", id="shop")) == ["1", "2"]


def test_a_missing_id_is_refused_and_namibia_is_none() -> None:
    frame = pl.DataFrame({"unique_id": ["NA", ""], "ds": ["2024", "2024"], "y": [1, 2]})
    with pytest.raises(DataError, match="column 'unique_id', row 2: the id is missing"):
        as_panel(frame)
    assert ids(as_panel(frame.head(1))) == ["NA"]


def test_a_wide_table() -> None:
    with pytest.raises(DataError, match=r"2 columns hold numbers.* or all with target='\*'"):
        as_panel(WIDE)
    for target in ("*", ["north", "south"]):
        panel = as_panel(WIDE, target=target)
        assert [(each.id, each.name) for each in panel] == [("north", "north"), ("south", "south")]
        np.testing.assert_array_equal(panel["south"].values, [3, np.nan])
    assert as_panel(WIDE, target="north").series[0].id == ""
    with pytest.raises(DataError, match="target= names no column; name at least one"):
        as_panel(WIDE, target=[])


def test_several_targets_of_several_series() -> None:
    panel = as_panel(LONG, target=["y", "price"])
    assert ids(panel) == ["b/y", "b/price", "a/y", "a/price"]
    assert panel["a/price"].name == "price"


def test_known_covariates_reach_beyond_the_last_value() -> None:
    panel = as_panel(LONG, known=["price"], past=["size"], static=["kind"])
    np.testing.assert_array_equal(panel["b"].values, [1, 2])
    np.testing.assert_array_equal(panel["b"].covariates.known["price"], [5, 5.5, 7])
    np.testing.assert_array_equal(panel["b"].covariates.past["size"], [3, 3])
    assert panel["b"].covariates.static == {"kind": "x"}
    assert len(panel["b"].time) == 2
    np.testing.assert_array_equal(panel["a"].covariates.known["price"], [6, 6.5])


def test_a_missing_known_covariate_stays_missing_and_leaves_its_row_a_value() -> None:
    frame = pl.DataFrame({"ds": [2020, 2021, 2022, 2023], "y": [1, None, None, None]})
    frame = frame.with_columns(p=pl.Series([1.0, None, None, 4.0]))
    series = as_panel(frame, known=["p"]).series[0]
    np.testing.assert_array_equal(series.values, [1, np.nan, np.nan])
    np.testing.assert_array_equal(series.covariates.known["p"], [1, np.nan, np.nan, 4])


def test_static_covariates_are_numbers_or_categories_and_do_not_change() -> None:
    panel = as_panel(LONG, static=["kind", "size"])
    assert panel["a"].covariates.static == {"kind": "z", "size": 4}
    changing = LONG.with_columns(kind=pl.Series(["x", "z", "x", "w", "x"]))
    message = "series 'a': column 'kind', row 4: 'w' was 'z' above; a static covariate keeps one"
    with pytest.raises(DataError, match=message):
        as_panel(changing, static=["kind"])


def test_text_in_a_covariate_is_refused() -> None:
    with pytest.raises(DataError, match="column 'kind', row 1: 'x' is not a number"):
        as_panel(LONG, past=["kind"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 0], "series 'b': column 'ds': rows 1 and 2 hold the same time 2024-01-01"),
        ([2, 0], r"series 'b': column 'ds': row 2 \(2024-01-01\) comes before row 1"),
        ([1, 4], "series 'b': column 'y' holds no values"),
    ],
)
def test_what_is_wrong_names_the_series(rows: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_panel(LONG[rows])


def test_rows_are_those_of_the_table_not_of_the_series() -> None:
    frame = pl.DataFrame({"unique_id": list("abab"), "ds": [1, 1, 2, 1], "y": [1, 2, 3, 4]})
    with pytest.raises(DataError, match="series 'b': column 'ds': rows 2 and 4 hold the same time"):
        as_panel(frame)


def test_one_series_is_not_read_from_a_table_of_several(tmp_path: Path) -> None:
    LONG.write_csv(tmp_path / "long.csv")
    message = r"long.csv: the table holds 2 series \('b', 'a'\).* read them with read_panel"
    with pytest.raises(DataError, match=message):
        read_series(tmp_path / "long.csv", target="y")
    assert len(read_panel(tmp_path / "long.csv")) == 2


def test_arrays_lists_and_mappings() -> None:
    one = as_panel(np.arange(3.0))
    assert (ids(one), len(one.series[0])) == ([""], 3)
    grid = as_panel(np.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(grid["value_2"].values, [1, 3, 5])
    assert ids(as_panel([np.arange(3), [1, None]])) == ["1", "2"]
    assert ids(as_panel({"x": np.arange(3), "z": as_series([1, 2])})) == ["x", "z"]
    assert ids(as_panel(list(grid))) == ["value_1", "value_2"]
    assert as_panel(grid).series == grid.series
    series = as_series([1, 2])
    assert as_panel(series).series == (series,)
    assert ids(as_panel(LONG.lazy())) == ["b", "a"]


def test_what_is_no_panel() -> None:
    with pytest.raises(DataError, match=r"an array \(T, M\), one a column; got .*\(2, 2, 2\)"):
        as_panel(np.zeros((2, 2, 2)))
    with pytest.raises(DataError, match="series 'z': a series was expected to hold numbers only"):
        as_panel({"x": [1], "z": ["two"]})
    with pytest.raises(DataError, match="got str"):
        as_panel("table.csv")
    with pytest.raises(DataError, match="a panel needs at least one series"):
        as_panel({})
    with pytest.raises(DataError, match="resample= says something about a table; this is no table"):
        as_panel(as_series([1, 2]), resample="D")
