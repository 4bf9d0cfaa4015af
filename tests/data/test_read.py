from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headgate.data import DataError, as_series, read_series

BUNDLED = Path(__file__).parents[2] / "examples" / "data"


def csv(tmp_path: Path, text: str, name: str = "table.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_weekly_co2_with_its_missing_weeks() -> None:
    series = read_series(BUNDLED / "co2_weekly.csv")
    assert len(series) == 2284
    assert series.missing == 59
    assert str(series.frequency) == "weekly"
    assert series.time[0] == np.datetime64("1958-03-29")
    assert series.values[0] == 316.1
    assert np.isnan(series.values[6])
    assert series.notes == ("time: column 'date'", "target: column 'co2'")


def test_monthly_air_passengers() -> None:
    series = read_series(BUNDLED / "air_passengers.csv", target="Passengers")
    assert str(series.frequency) == "monthly"
    assert series.frequency.season == 12
    assert list(series.future(2).astype("datetime64[M]").astype(str)) == ["1961-01", "1961-02"]
    assert series.notes == ("time: column 'Month'",)


@pytest.mark.parametrize(
    ("cells", "frequency"),
    [
        (["2024-01-31", "2024-02-29", "2024-03-31"], "monthly"),
        (["2024-01", "2024-04", "2024-07"], "quarterly"),
        (["1999", "2000", "2001"], "yearly"),
        (["2024-02-28", "2024-02-29", "2024-03-01"], "daily"),
        (["2024-01-01 00:00", "2024-01-01 03:00", "2024-01-01 06:00"], "every 3 hours"),
        (
            ["2024-01-01T00:00:00Z", "2024-01-01T00:15:00Z", "2024-01-01T00:30:00Z"],
            "every 15 minutes",
        ),
        (["7", "8", "9"], "numbered"),
    ],
)
def test_kinds_of_time(tmp_path: Path, cells: list[str], frequency: str) -> None:
    path = csv(tmp_path, "date,y\n" + "".join(f"{cell},{i}\n" for i, cell in enumerate(cells)))
    assert str(read_series(path).frequency) == frequency


def test_month_ends_continue_at_month_ends(tmp_path: Path) -> None:
    series = read_series(csv(tmp_path, "date,y\n2023-11-30,1\n2023-12-31,2\n2024-01-31,3\n"))
    assert [str(t)[:10] for t in series.future(2)] == ["2024-02-29", "2024-03-31"]


def test_rows_are_numbered_without_a_time_column(tmp_path: Path) -> None:
    series = read_series(csv(tmp_path, "level\n3\n\n5\n"))
    assert series.notes == ("no time column: rows are numbered", "target: column 'level'")
    assert list(series.time) == list(range(len(series)))


def test_parquet_frame_and_csv_agree(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"day": [date(2024, 1, d) for d in range(1, 6)], "y": [1.0, None, 3.0, 4.0, 5.0]}
    )
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_csv(tmp_path / "t.csv")
    read = [read_series(tmp_path / "t.parquet"), read_series(tmp_path / "t.csv"), as_series(frame)]
    for series in read:
        np.testing.assert_array_equal(series.values, [1, np.nan, 3, 4, 5])
        assert str(series.frequency) == "daily"
        assert series.name == "y"


def test_plain_numbers_are_a_series() -> None:
    np.testing.assert_array_equal(as_series([1, None, 3]).values, [1, np.nan, 3])
    assert as_series(np.arange(4)).frequency.season is None


HEADER = "date,y\n2024-01-01,1\n"
MESSY = {
    "": "the file is empty",
    "date,y\n": "the table has no rows below its header",
    HEADER + "2024-01-02,abc\n": r"column 'y', row 2: 'abc' is not a number; leave the cell empty",
    HEADER + "2024-01-02,1e999\n": "column 'y', row 2: the value is infinite",
    "date,y\n2024-01-01,\n2024-01-02,NA\n": "column 'y' holds no values",
    HEADER + ",2\n2024-01-03,3\n": "column 'date', row 2: the time is missing",
    HEADER + "2024-01-02,2\nsoon,3\n": "column 'date', row 3: 'soon' is not a date like the others",
    HEADER + "2024-01-01,2\n": "column 'date': rows 1 and 2 hold the same time 2024-01-01",
    HEADER
    + "2023-12-31,2\n": r"row 2 \(2023-12-31\) comes before row 1 .*sort the table by 'date'",
    HEADER + "2024-01-02,2\n2024-01-05,3\n2024-01-06,4\n": (
        r"not evenly spaced: from row 2 \(2024-01-02\) to row 3 \(2024-01-05\) are 3 days, "
        r"elsewhere 1 day; add the missing times as rows with an empty value"
    ),
    "date,a,b\n2024-01-01,1,2\n": "2 columns hold numbers: 'a', 'b'; name .* target=",
    "a,b\nx,y\np,q\n": "no column holds numbers",
    "start,end,y\n2024-01-01,2024-01-02,1\n": "2 columns could be the time: 'start', 'end'",
    HEADER + "2024-01-02,2,3,4\n": "line 3 has 4 fields, the header has 2",
}


@pytest.mark.parametrize("text", MESSY)
def test_messy_files_say_what_is_wrong_and_where(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=MESSY[text]) as caught:
        read_series(csv(tmp_path, text))
    assert "table.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_paths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        read_series(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="this is a folder"):
        read_series(tmp_path)
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    with pytest.raises(DataError, match="this is not text"):
        read_series(tmp_path / "picture.csv")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="not a Parquet table"):
        read_series(tmp_path / "broken.parquet")


def test_missing_column_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'sales'; the columns are 'date', 'y'"):
        read_series(csv(tmp_path, HEADER), target="sales")
    with pytest.raises(DataError, match=r"column 'shop' holds no times: row 1 is 'x'"):
        read_series(csv(tmp_path, "shop,y\nx,1\nz,2\n"), time="shop")


def test_what_is_no_series() -> None:
    with pytest.raises(DataError, match=r"a series was expected.*got str"):
        as_series("co2.csv")
    with pytest.raises(DataError, match=r"one-dimensional, \(T,\); got an array of shape \(3, 2\)"):
        as_series(np.zeros((3, 2)))
    with pytest.raises(DataError, match="numbers only"):
        as_series([1, "two"])
