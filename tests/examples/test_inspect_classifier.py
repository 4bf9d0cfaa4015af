from __future__ import annotations

import runpy
import sys
from pathlib import Path

import polars as pl
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "inspect_classifier.py"


def test_it_learns_and_writes_what_it_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "seen"
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(out)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    said = capsys.readouterr().out
    assert int(said.split("right for ")[1].split("%")[0]) > 90
    values = pl.read_parquet(out / "values.parquet")
    assert values.height == 3 * 60 * 2 * 6 * 16  # rows, steps, directions, values, units
    assert (out / "units.png").stat().st_size > 10_000
    assert "A classifier reads a" in (out / "steps.html").read_text(encoding="utf-8")
