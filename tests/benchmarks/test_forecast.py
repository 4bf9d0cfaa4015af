from __future__ import annotations

import json

import pytest

from benchmarks import forecast


def test_the_held_out_months_are_forecast_beside_the_naive_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(forecast, "CHOSEN", {**forecast.CHOSEN, "epochs": 1, "hidden_size": 2})
    forecast.main(["air_passengers", "--seeds", "2", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert list(result["rows"]) == ["lstm", "seasonal naive", "naive"]
    assert len(result["mape_of_each_seed"]) == 2
    assert result["rows"]["seasonal naive"]["mape"] == pytest.approx(15.52, abs=0.01)
    forecast.main(["air_passengers", "--seeds", "1"])
    assert "seasonal naive" in capsys.readouterr().out


def test_choosing_never_sees_the_held_out_months(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lengths = []
    monkeypatch.setattr(forecast, "GRID", {"epochs": (1,), "window": (6, 12)})
    monkeypatch.setattr(forecast, "choose", lambda training: lengths.append(len(training)))
    forecast.main(["air_passengers", "--choose"])
    assert lengths == [120]
    assert max(forecast.CHOOSING_ORIGINS) + forecast.HELD_OUT <= 120
    assert capsys.readouterr().out == ""
