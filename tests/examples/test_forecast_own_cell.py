from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "forecast_own_cell.py"


def test_it_prints_a_backtest_and_a_year(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    said = capsys.readouterr().out
    assert "mgu" in said
    assert "seasonal naive" in said
    assert "1961-12" in said
