"""From bytes to a table of text cells: compression, encoding, separator and header."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import sys
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from .cells import looks_like_cell
from .errors import DataError

SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "pipes", ",": "commas"}
SAMPLE_LINES = 50
SAMPLE_BYTES = 1 << 18


@dataclass(frozen=True)
class Table:
    """`frame` without its empty rows; `rows` (T,), the row of each, 1 the first below the header.

    `notes` say what was guessed while reading.
    """

    frame: pl.DataFrame
    rows: np.ndarray
    notes: tuple[str, ...] = ()


def read_table(path: str | Path) -> Table:
    """The table of a CSV file (also .gz), a Parquet file, or "-", standard input.

    Cells of a CSV file stay text. Raises DataError where it cannot be read as one table.
    """
    content = read_bytes(path)
    if content[:4] == b"PAR1" or str(path).lower().endswith((".parquet", ".pq")):
        try:
            return without_empty_rows(pl.read_parquet(content))
        except Exception as error:
            raise DataError(f"this is not a Parquet table: {_first_line(error)}") from None
    return _parse_csv(*decode(content))


def read_bytes(path: str | Path) -> bytes:
    """What the file holds, unpacked; raises DataError where there is nothing."""
    if str(path) == "-":
        content = sys.stdin.buffer.read()
    elif Path(path).is_dir():
        raise DataError("this is a folder; a CSV or Parquet file was expected")
    else:
        try:
            content = Path(path).read_bytes()
        except FileNotFoundError:
            raise DataError("there is no such file") from None
        except OSError as error:
            raise DataError(f"the file cannot be read: {error.strerror}") from None
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"the compressed file is damaged: {_first_line(error)}") from None
    if not content.strip():
        raise DataError("there is nothing to read" if str(path) == "-" else "the file is empty")
    return content


def decode(content: bytes) -> tuple[bytes, list[str]]:
    """The same text as UTF-8 without a byte-order mark, lines ended by \\n, and what was guessed.

    Raises DataError where the bytes are no text, or none is left.
    """
    notes: list[str] = []
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            content = content.decode("utf-16").encode()
        except UnicodeDecodeError as error:
            raise DataError(f"the text is damaged UTF-16: {error.reason}") from None
        notes.append("the text is UTF-16")
    if b"\0" in content[:4096]:
        raise DataError("this is not text: a comma-separated table (CSV) or Parquet was expected")
    content = content.removeprefix(codecs.BOM_UTF8)
    if not content.isascii() and not _is_utf8(content):
        try:
            content = content.decode("gb18030").encode()
        except UnicodeDecodeError:
            raise DataError("the text is neither UTF-8 nor GB18030; save it as UTF-8") from None
        notes.append("the text is not UTF-8: it is read as GB18030")
    if b"\n" not in content:
        content = content.replace(b"\r", b"\n")
    if not content.strip():
        raise DataError("the file is empty")
    return content, notes


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def read_lines(path: str | Path, notes: list[str]) -> list[list[str]]:
    """The fields of every line that is not empty, as many as it has, trimmed."""
    content, found = decode(read_bytes(path))
    notes.extend(found)
    mark = _separator(_sample(content))
    try:
        records = list(csv.reader(io.StringIO(content.decode(), newline=""), delimiter=mark))
    except csv.Error as error:
        raise DataError(f"this is not a table: {error}") from None
    return [[" ".join(cell.split()) for cell in record] for record in records if record]


def without_empty_rows(frame: pl.DataFrame, notes: list[str] | None = None) -> Table:
    """Rows where no cell is filled are left out; in a table of one column, at its end only.

    There an empty row is a missing value.
    """
    rows = np.arange(1, frame.height + 1)
    if not frame.width:
        raise DataError("the table has no columns")
    filled = frame.select(pl.any_horizontal(_filled(frame))).to_series()
    if not filled.all():
        if frame.width == 1:
            last = int(filled.arg_true().last() or 0) if filled.any() else -1  # type: ignore[arg-type]
            filled = pl.Series(rows <= last + 1)
        frame, rows = frame.filter(filled), rows[filled.to_numpy()]
    if not frame.height:
        raise DataError("the table has no rows below its header")
    return Table(frame, rows, tuple(notes or ()))


def _filled(frame: pl.DataFrame) -> list[pl.Expr]:
    """Which cells hold anything; those of text without its spaces."""
    return [
        pl.col(name).is_not_null() & (pl.col(name).str.strip_chars() != "")
        if kind == pl.String
        else pl.col(name).is_not_null()
        for name, kind in frame.schema.items()
    ]


def _parse_csv(content: bytes, notes: list[str]) -> Table:
    sample = _sample(content)
    mark = _separator(sample)
    if mark != ",":
        notes.append(f"the columns are separated by {SEPARATORS[mark]}")
    header, lines = _header(content, mark)
    if header and all(looks_like_cell(cell) for cell in header):
        header, lines = [f"value_{place}" for place in range(1, len(header) + 1)], 0
        notes.append(f"no header: the columns are named value_1 to value_{len(header)}")
    _check_header(header)
    _check_lines(content, mark, len(header))
    try:
        frame = pl.read_csv(
            content,
            separator=mark,
            has_header=False,
            skip_lines=lines,
            schema=dict.fromkeys(header, pl.String),
            raise_if_empty=False,
        )
    except Exception as error:
        _count_fields(content, mark, len(header))
        raise DataError(f"this is not a comma-separated table: {_first_line(error)}") from None
    return without_empty_rows(frame, notes)


def _sample(content: bytes) -> str:
    length = max(SAMPLE_BYTES, content.find(b"\n") + 1)
    return content[:length].decode(errors="ignore")


def _header(content: bytes, mark: str) -> tuple[list[str], int]:
    """The first line's fields, trimmed, and how many lines lie before the rows."""
    reader = csv.reader(io.StringIO(_sample(content), newline=""), delimiter=mark)
    for record in reader:
        if record and (record[0].strip() or record[1:]):
            return [" ".join(name.split()) for name in record], reader.line_num
    raise DataError("the table has no header")


def _separator(sample: str) -> str:
    """The mark that cuts every one of the first lines into the same number of fields.

    Where no mark does so, the one that cuts the first line into most.
    """
    lines = [line for line in re.split(r"[\r\n]", sample) if line.strip()][:SAMPLE_LINES]
    if len(lines) > 2:
        lines = lines[:-1]  # the sample may end within its last line
    if not lines:
        raise DataError("the file is empty")
    try:
        counts = {
            mark: [len(record) for record in csv.reader(lines, delimiter=mark) if record]
            for mark in SEPARATORS
        }
    except csv.Error as error:
        raise DataError(f"this is not a table: {error}") from None
    even = [mark for mark, found in counts.items() if found[0] > 1 and len(set(found)) == 1]
    if even:
        return even[0]
    return max(reversed(SEPARATORS), key=lambda mark: counts[mark][0])


def _check_header(header: list[str]) -> None:
    for name, times in Counter(header).items():
        if not name:
            place = header.index(name) + 1
            raise DataError(
                f"column {place} of the header has no name; give it one, or write the table "
                f"without row numbers (pandas: to_csv(index=False))"
            )
        if times > 1:
            rows = "; or, if each line is a series, layout='rows'" if looks_like_cell(name) else ""
            raise DataError(f"{times} columns are called '{name}'; give each its own name{rows}")


def _check_lines(content: bytes, mark: str, width: int) -> None:
    """Raise DataError where lines have more or fewer fields than the header.

    Counting marks is quick and finds too few; where the count leaves a doubt, lines are read.
    """
    lines = content.count(b"\n") + (not content.endswith(b"\n"))
    if b'"' not in content and content.count(mark.encode()) == (width - 1) * lines:
        return
    _count_fields(content, mark, width)


def _count_fields(content: bytes, mark: str, width: int) -> None:
    """Raise DataError naming the first line with more or fewer fields than the header."""
    text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="")
    reader = csv.reader(text, delimiter=mark)
    try:
        for record in reader:
            blank = len(record) < 2 and not "".join(record).strip()
            if len(record) != width and not blank:
                raise DataError(
                    f"this is not a {SEPARATORS[mark][:-1]}-separated table: line "
                    f"{reader.line_num} has {len(record)} fields, the header has {width}"
                )
    except csv.Error as error:
        raise DataError(f"line {reader.line_num}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
