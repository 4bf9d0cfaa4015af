"""A search over a few settings, on origins before those of the test."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headgate.data import Panel

from .backtest import before_end, place_origins
from .settings import season_and_horizon

if TYPE_CHECKING:
    from .forecaster import Forecaster


@dataclass(frozen=True)
class Found:
    """`best` settings, their mean MASE over the inner origins, and every trial's."""

    best: dict[str, Any]
    mase: float
    trials: tuple[dict[str, Any], ...]


def search_settings(
    forecaster: Forecaster,
    data: Panel,
    *,
    trials: int = 20,
    origins: int | None = None,
    stride: int | None = None,
) -> Found:
    """Settings whose backtest has the lowest MASE, judged before a later test sees anything.

    `origins` and `stride` are those of the test to come: what follows its first origin is cut off
    before the search. The first trial is the forecaster as it is. Tree-structured Parzen estimator
    (Bergstra et al. 2011), with the forecaster's seed. Raises ValueError without Optuna.
    """
    try:
        import optuna
    except ImportError:
        raise ValueError(
            "search: Optuna is not installed; install it with pip install 'headgate[search]'"
        ) from None
    shortest = min(map(len, data))
    _, horizon = season_and_horizon(forecaster.get_params(deep=False), data.frequency)
    past = before_end(data, shortest - place_origins(shortest, horizon, origins, stride)[0])

    def score(trial: Any) -> float:
        settings = _suggest(trial, forecaster)
        candidate = type(forecaster)(**{**forecaster.get_params(deep=False), **settings})
        trial.set_user_attr("settings", settings)
        mase = candidate.backtest(past, origins=origins, stride=stride).table[0]["mase"]
        return mase if math.isfinite(mase) else math.inf

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=forecaster.seed))
    study.enqueue_trial(_as_it_is(forecaster), skip_if_exists=True)
    study.optimize(score, n_trials=trials)
    done = tuple({**t.user_attrs["settings"], "mase": t.value} for t in study.trials)
    return Found(study.best_trial.user_attrs["settings"], study.best_value, done)


CHOICES: dict[str, tuple[Any, ...]] = {
    "hidden_size": (8, 16, 32, 64),
    "difference": ("auto", "none", "first"),
    "epochs": (10, 20, 40),
    "learning_rate": (0.003, 0.01, 0.03),
}
"""What is tried."""


def _suggest(trial: Any, forecaster: Forecaster) -> dict[str, Any]:
    given = forecaster.get_params(deep=False)
    return {
        name: trial.suggest_categorical(name, tuple(dict.fromkeys((given[name], *choices))))
        for name, choices in CHOICES.items()
    }


def _as_it_is(forecaster: Forecaster) -> dict[str, Any]:
    given = forecaster.get_params(deep=False)
    return {name: given[name] for name in CHOICES}
