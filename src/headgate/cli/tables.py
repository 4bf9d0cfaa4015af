"""Tables that a verb writes: CSV or Parquet, to a file or to standard output."""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

import polars as pl

from headgate.tasks.folder import whole_file
from headgate.tasks.forecast import CLOCK


def write_table(table: pl.DataFrame, out: Path | None) -> None:
    """Write a table to a file, Parquet where its name ends so, or as CSV to standard output.

    Raises ModelError, in one line, where the file cannot be written.
    """
    if out is None:
        sys.stdout.write(table.write_csv(datetime_format=CLOCK))
        sys.stdout.flush()
        return
    with whole_file(out) as made:
        if out.suffix.lower() in (".parquet", ".pq"):
            content = BytesIO()
            table.write_parquet(content)
            made.write_bytes(content.getvalue())
        else:
            made.write_text(table.write_csv(datetime_format=CLOCK), encoding="utf-8")
