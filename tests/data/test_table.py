"""Files as they come: encodings, separators, headers, uneven lines."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headgate.data import DataError, read_panel, read_series

PLAIN = "day,level\n2024-01-01,1\n2024-01-02,2.5\n2024-01-03,\n"


def written(tmp_path: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (PLAIN.encode("utf-8-sig"), None),
        (PLAIN.encode("utf-16"), "the text is UTF-16"),
        (PLAIN.replace("\n", "\r\n").encode(), None),
        (PLAIN.replace("\n", "\r").encode(), None),
        (gzip.compress(PLAIN.encode(), mtime=0), None),
        (PLAIN.replace(",", ";").encode(), "the columns are separated by semicolons"),
        (PLAIN.replace(",", "\t").encode(), "the columns are separated by tabs"),
        (PLAIN.replace(",", "|").encode(), "the columns are separated by pipes"),
        (PLAIN.replace(",", " , ").encode(), None),
        ((PLAIN + "\n,\n  \n\n").encode(), None),
        (PLAIN.replace("2024-01-01", '"2024-01-01"').encode(), None),
    ],
)
def test_the_same_table_however_it_is_written(
    tmp_path: Path, content: bytes, note: str | None
) -> None:
    series = read_series(written(tmp_path, content))
    np.testing.assert_array_equal(series.values, [1, 2.5, np.nan])
    assert str(series.time[-1]) == "2024-01-03T00:00:00"
    assert series.notes[-2:] == ("time: column 'day'", "target: column 'level'")
    assert series.notes[:-2] == ((note,) if note else ())


def test_chinese_text_that_is_not_utf8(tmp_path: Path) -> None:
    text = "日期,销量\n2024年12月30日,1\n2024年12月31日,2\n"
    series = read_series(written(tmp_path, text.encode("gb18030")))
    assert series.name == "销量"
    assert str(series.time[1])[:10] == "2024-12-31"
    assert "the text is not UTF-8: it is read as GB18030" in series.notes
    with pytest.raises(DataError, match="neither UTF-8 nor GB18030; save it as UTF-8"):
        read_series(written(tmp_path, b"day,\xff\xff\n2024,1\n"))


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Piped:
        buffer = io.BytesIO(PLAIN.encode())

    monkeypatch.setattr(sys, "stdin", Piped)
    assert len(read_panel("-").series[0]) == 3
    Piped.buffer = io.BytesIO(b"day,level\nx,y\n")
    with pytest.raises(DataError, match=r"^standard input: "):
        read_panel("-")


def test_a_file_of_numbers_alone_has_no_header(tmp_path: Path) -> None:
    panel = read_panel(written(tmp_path, "0.5,0.25\n0.75,0.125\n"), target="*")
    assert [each.id for each in panel] == ["value_1", "value_2"]
    np.testing.assert_array_equal(panel["value_1"].values, [0.5, 0.75])
    assert panel.notes[0] == "no header: the columns are named value_1 to value_2"


def test_rows_are_counted_with_the_empty_ones(tmp_path: Path) -> None:
    text = "ds,y\n2024-01-01,1\n\n,\n2024-01-02,x\n"
    with pytest.raises(DataError, match="column 'y', row 4: 'x' is not a number"):
        read_series(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,a,b\n1,2,3\n", "2 columns are called 'a'; give each its own name"),
        ("H1,5,5\nH2,6,7\n", "2 columns are called '5'.*if each line is a series, layout='rows'"),
        (",ds,y\n0,2024,1\n", r"column 1 of the header has no name.*to_csv\(index=False\)"),
        ("ds,y\n2024,1\n2025\n", "line 3 has 1 fields, the header has 2"),
        ("ds;y\n2024;1\n\n2025;1;2\n", "semicolon-separated table: line 4 has 3 fields"),
        ('ds,y\n"2024",1\n"2025,2\n', "line 3 has 1 fields, the header has 2"),
        (b"\x1f\x8b and no more", "the compressed file is damaged"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_panel(written(tmp_path, text))
    assert "table.csv: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    hours = pl.datetime_range(
        pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 1, 3), "1h", time_unit="ns", eager=True
    )
    frame = pl.DataFrame({"at": hours, "shop": ["a"] * 4, "sold": [1, 2, None, 4]})
    frame.write_parquet(tmp_path / "t.parquet")
    panel = read_panel(tmp_path / "t.parquet", id="shop")
    assert str(panel.frequency) == "hourly"
    np.testing.assert_array_equal(panel["a"].values, [1, 2, np.nan, 4])


def test_one_series_a_row(tmp_path: Path) -> None:
    text = '"V1","V2","V3","V4"\n"H1",1,2,3\n"H2",4,,6.5\n"H3",7\n'
    panel = read_panel(written(tmp_path, text), layout="rows")
    assert [(each.id, len(each)) for each in panel] == [("H1", 3), ("H2", 3), ("H3", 1)]
    np.testing.assert_array_equal(panel["H2"].values, [4, np.nan, 6.5])
    with pytest.raises(DataError, match=r"row 2 \('b'\), field 3: 'x' is not a number"):
        read_panel(written(tmp_path, "a,1,2\nb,1,x\n"), layout="rows")
    with pytest.raises(DataError, match="time= says something about a table"):
        read_panel(written(tmp_path, "a,1,2\n"), layout="rows", time="V1")
    with pytest.raises(DataError, match="layout='long' is unknown; choose 'columns' or 'rows'"):
        read_panel(written(tmp_path, "a,1,2\n"), layout="long")
