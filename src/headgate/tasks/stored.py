"""A forecaster to and from its model folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headgate.data import Frequency, Preprocessing, Series
from headgate.nn import Recurrent

from .folder import WEIGHTS, ModelError, read_model, write_model
from .network import ForecastNetwork
from .settings import Resolved

if TYPE_CHECKING:
    from .forecaster import Forecaster

TASK = "forecaster"


def save(forecaster: Forecaster, path: str | Path) -> None:
    parameters = forecaster.get_params(deep=False)
    parameters["cell"] = parameters["cell"] if isinstance(parameters["cell"], str) else None
    name, time_name = forecaster.names_
    config = {
        "parameters": parameters,
        "settings": forecaster.settings_.to_dict(),
        "recurrent": forecaster.network_.recurrent.config(),
        "frequency": asdict(forecaster.frequency_),
        "name": name,
        "time_name": time_name,
    }
    history = forecaster.history_
    parts = {
        "config.json": config,
        "preprocessing.json": forecaster.preprocessing_.to_dict(),
        "history.json": {
            "dates": history.time.dtype.kind == "M",
            "time": [str(t) for t in history.time],
            "values": [None if np.isnan(v) else v for v in history.values],
        },
        "metrics.json": _metrics(forecaster),
    }
    write_model(path, TASK, forecaster.network_, parts)


def _metrics(forecaster: Forecaster) -> dict[str, Any]:
    if not hasattr(forecaster, "backtest_"):
        return forecaster.metrics_
    rows = forecaster.backtest_.table
    clean = [{key: None if v != v else v for key, v in row.items()} for row in rows]
    return {**forecaster.metrics_, "backtest": clean}


def load(kind: type[Forecaster], path: str | Path) -> Forecaster:
    parts, weights = read_model(path, TASK)
    config = parts["config.json"]
    try:
        recurrent = Recurrent.from_config(config["recurrent"])
        parameters = dict(config["parameters"])
        parameters["cell"] = parameters["cell"] or recurrent.program
        if isinstance(parameters["hidden_size"], list):
            parameters["hidden_size"] = tuple(parameters["hidden_size"])
        forecaster = kind(**parameters)
        forecaster.settings_ = Resolved(**config["settings"])
        forecaster.preprocessing_ = Preprocessing.from_dict(parts["preprocessing.json"])
        forecaster.frequency_ = Frequency(**config["frequency"])
        forecaster.names_ = (config["name"], config["time_name"])
        forecaster.history_ = _history(parts["history.json"], forecaster)
        forecaster.metrics_ = parts["metrics.json"]
        forecaster.network_ = ForecastNetwork(recurrent, forecaster._outputs)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: the model's description is broken: {error!r}") from None
    try:
        forecaster.network_.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: {WEIGHTS} does not fit config.json: {reason}") from None
    return forecaster


def _history(stored: dict[str, Any], forecaster: Forecaster) -> Series:
    values = np.array([np.nan if v is None else v for v in stored["values"]], np.float64)
    if stored["dates"]:
        time = np.array(stored["time"], "datetime64[s]")
    else:
        time = np.array([int(t) for t in stored["time"]], np.int64)
    return Series(values, time, forecaster.frequency_, *forecaster.names_)
