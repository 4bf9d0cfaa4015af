from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.forecast import cases, gather
from benchmarks.forecast.__main__ import main


def test_held_out_months_are_forecast_beside_the_naive_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = {**cases.AIR_PASSENGERS, "epochs": 1, "hidden_size": 2}
    monkeypatch.setattr(cases, "AIR_PASSENGERS", quick)
    main(["air_passengers", "--seeds", "2", "--json", str(tmp_path / "found.json")])
    mape, mase = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert (mape["measure"], mase["measure"]) == ("mape", "mase")
    assert len(mape["ours"]) == 2
    assert mape["others"]["seasonal naive"] == pytest.approx(15.52, abs=0.01)
    assert "seasonal naive" in capsys.readouterr().out
    run = json.loads((tmp_path / "found.json").read_text())
    gathered = gather.page([run])
    assert f"| air_passengers, last 24 months | mape | {np.mean(mape['ours']):.4g} ± " in gathered
    assert gathered.count("`hidden_size=2`") == 1  # of two rows with the same settings
    assert run["date"] in gathered


def test_rolling_forecasts_are_judged_by_their_last_month(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {**cases.AIR_PASSENGERS_ROLLING, "epochs": 1, "hidden_size": 2}
    monkeypatch.setattr(cases, "AIR_PASSENGERS_ROLLING", quick)
    mape, _ = cases.air_passengers_rolling(1, None)
    assert mape.others["seasonal naive"] == pytest.approx(8.83, abs=0.01)


def test_data_that_is_not_there_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HEADGATE_DATA", raising=False)
    main(["sunspots"])
    assert "sunspots: skipped: sunspots: no such data anywhere; name the" in capsys.readouterr().err
    main(["m4_hourly", "--data", str(tmp_path)])
    assert f"m4: no such data in {tmp_path}" in capsys.readouterr().err
