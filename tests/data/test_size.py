"""Large tables stay within their memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headgate.data import as_panel

MEASURE = """
import resource, sys
import headgate.data
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
panel = headgate.data.read_panel(sys.argv[1])
print(len(panel.series[0]), peak() - before)
"""


@pytest.mark.slow
def test_two_million_rows_need_no_more_than_their_columns(tmp_path: Path) -> None:
    count = 2_000_000
    minutes = pl.Series(np.arange(count, dtype=np.int64) * 60_000).cast(pl.Datetime("ms"))
    frame = pl.DataFrame({"ds": minutes.dt.strftime("%Y-%m-%d %H:%M:%S"), "y": np.arange(count)})
    frame.write_csv(tmp_path / "long.csv")
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "long.csv")]
    rows, mebibytes = subprocess.run(command, capture_output=True, text=True).stdout.split()
    assert int(rows) == count
    assert float(mebibytes) < 410  # a fifth of 2 GiB, which ten million rows may take


def test_thousands_of_series_keep_their_own_rows() -> None:
    count, steps = 3000, 10
    frame = pl.DataFrame(
        {
            "unique_id": np.tile(np.arange(count), steps),
            "ds": np.repeat(np.arange(steps), count),
            "y": np.arange(count * steps, dtype=float),
        }
    )
    panel = as_panel(frame)
    assert len(panel) == count
    np.testing.assert_array_equal(panel.series[7].values, np.arange(steps) * count + 7)
