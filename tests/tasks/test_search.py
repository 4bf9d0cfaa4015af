from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

from headgate import Forecaster
from headgate.data import as_panel
from headgate.tasks import search, search_settings

SMALL = {"hidden_size": (2, 3), "epochs": (1, 2)}


def forecaster() -> Forecaster:
    return Forecaster(hidden_size=2, epochs=1, window=8, horizon=4)


def values() -> np.ndarray:
    return np.sin(np.arange(80.0)) + np.random.default_rng(0).normal(0, 0.1, 80)


def test_the_best_of_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "CHOICES", SMALL)
    found = search_settings(forecaster(), as_panel(values()), trials=5, origins=2)
    assert len(found.trials) == 5
    assert found.trials[0] == {
        "hidden_size": 2,
        "epochs": 1,
        "mase": pytest.approx(found.trials[0]["mase"]),
    }
    assert found.mase == min(trial["mase"] for trial in found.trials)
    assert set(found.best) == set(SMALL)


def test_the_test_period_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "CHOICES", SMALL)
    changed = values()
    changed[-8:] = 1e6
    one, two = (
        search_settings(forecaster(), as_panel(v), trials=3, origins=2) for v in (values(), changed)
    )
    assert one == two


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "optuna":
            raise ImportError
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install 'headgate\[search\]'"):
        search_settings(forecaster(), as_panel(values()))
