"""A forecaster to and from its model folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from headgate.data import Covariates, DataError, Frequency, Panel, Preprocessing, Series
from headgate.nn import Recurrent

from .encoder import Encoder
from .folder import WEIGHTS, ModelError, read_model, write_model
from .intervals import Margins
from .network import ForecastNetwork, LocalHead
from .settings import Resolved

if TYPE_CHECKING:
    from .forecaster import Forecaster

TASK = "forecaster"
TUPLES = ("hidden_size", "levels", "calendar", "lags")


def save(forecaster: Forecaster, path: str | Path) -> None:
    parameters = forecaster.get_params(deep=False)
    parameters["cell"] = parameters["cell"] if isinstance(parameters["cell"], str) else None
    head = forecaster.network_.head
    config = {
        "parameters": parameters,
        "settings": forecaster.settings_.to_dict(),
        "encoder": forecaster.encoder_.to_dict(),
        "recurrent": forecaster.network_.recurrent.config(),
        "features": head.features.in_features if isinstance(head, LocalHead) else 0,
        "networks": len(forecaster.networks_),
    }
    parts = {
        "config.json": config,
        "preprocessing.json": {
            "series": {id: steps.to_dict() for id, steps in forecaster.preprocessings_.items()},
            "margins": forecaster.margins_.to_dict(),
        },
        "history.json": {"series": [_series_to_dict(s) for s in forecaster.history_]},
        "metrics.json": _metrics(forecaster),
    }
    write_model(path, TASK, nn.ModuleList(forecaster.networks_), parts)


def _metrics(forecaster: Forecaster) -> dict[str, Any]:
    if not hasattr(forecaster, "backtest_"):
        return forecaster.metrics_
    rows = forecaster.backtest_.table
    clean = [{key: None if v != v else v for key, v in row.items()} for row in rows]
    return {**forecaster.metrics_, "backtest": clean}


def load(kind: type[Forecaster], path: str | Path) -> Forecaster:
    parts, weights = read_model(path, TASK)
    config, constants = parts["config.json"], parts["preprocessing.json"]
    try:
        recurrent = Recurrent.from_config(config["recurrent"])
        parameters = dict(config["parameters"])
        parameters["cell"] = parameters["cell"] or recurrent.program
        for name in TUPLES:
            if isinstance(parameters[name], list):
                parameters[name] = tuple(parameters[name])
        forecaster = kind(**parameters)
        forecaster.settings_ = Resolved(**config["settings"])
        forecaster.encoder_ = Encoder.from_dict(config["encoder"])
        forecaster.preprocessings_ = {
            id: Preprocessing.from_dict(steps) for id, steps in constants["series"].items()
        }
        forecaster.margins_ = Margins.from_dict(constants["margins"])
        forecaster.frequency_ = forecaster.encoder_.frequency
        forecaster.history_ = Panel(
            tuple(_series(s, forecaster.frequency_) for s in parts["history.json"]["series"])
        )
        forecaster.metrics_ = parts["metrics.json"]
        sizes = forecaster._outputs, forecaster._output.parameters, config["features"]
        forecaster.networks_ = [ForecastNetwork(recurrent, *sizes)]
        for _ in range(1, config["networks"]):
            other = Recurrent.from_config(config["recurrent"])
            forecaster.networks_.append(ForecastNetwork(other, *sizes))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: the model's description is broken: {error!r}") from None
    try:
        nn.ModuleList(forecaster.networks_).load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: {WEIGHTS} does not fit config.json: {reason}") from None
    return forecaster


def _series_to_dict(series: Series) -> dict[str, Any]:
    given = series.covariates
    return {
        "id": series.id,
        "name": series.name,
        "time_name": series.time_name,
        "dates": series.time.dtype.kind == "M",
        "time": [str(t) for t in series.time],
        "values": _numbers(series.values),
        "known": {name: _numbers(v) for name, v in given.known.items()},
        "past": {name: _numbers(v) for name, v in given.past.items()},
        "static": {
            name: v if isinstance(v, str) else _numbers([v])[0] for name, v in given.static.items()
        },
    }


def _series(stored: dict[str, Any], frequency: Frequency) -> Series:
    if stored["dates"]:
        time = np.array(stored["time"], "datetime64[s]")
    else:
        time = np.array([int(t) for t in stored["time"]], np.int64)
    covariates = Covariates(
        {name: _array(v) for name, v in stored["known"].items()},
        {name: _array(v) for name, v in stored["past"].items()},
        {name: np.nan if v is None else v for name, v in stored["static"].items()},
    )
    return Series(
        _array(stored["values"]), time, frequency, stored["name"], stored["time_name"],
        id=stored["id"], covariates=covariates,
    )  # fmt: skip


def _numbers(values: Any) -> list[float | None]:
    return [None if v != v else float(v) for v in values]


def _array(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], np.float64)


def continued(history: Panel, panel: Panel) -> Panel:
    """Each series of `panel` with what its end in `history` holds before it."""
    known = {series.id: series for series in history}
    found = []
    for series in panel:
        if series.id not in known:
            raise DataError(
                f"update: series '{series.id}' is new to this model; fit it, or forecast it with "
                "series="
            )
        found.append(_joined(known[series.id], series))
    return Panel(tuple(found))


def _joined(old: Series, new: Series) -> Series:
    called = f"series '{new.id or new.name}'"
    if new.frequency != old.frequency and len(new) > 1:
        raise DataError(f"update: {called} is {new.frequency}, the model's {old.frequency}")
    kept = old.time < new.time[0]
    if kept.any() and old[: int(kept.sum())].future(1)[0] != new.time[0]:
        raise DataError(
            f"update: {called} starts at {new.time[0]}, but the model's ends at {old.time[-1]}; "
            "give all values after that one"
        )
    if new.time[-1] <= old.time[-1]:
        raise DataError(
            f"update: {called} ends at {new.time[-1]}, no later than the model's, at "
            f"{old.time[-1]}; give values that came after it"
        )
    if not kept.any():
        return replace(new, frequency=old.frequency)
    part, count = old[: int(kept.sum())], int(kept.sum())
    known = {
        name: np.concatenate([part.covariates.known[name][:count], values])
        for name, values in new.covariates.known.items()
    }
    past = {
        name: np.concatenate([part.covariates.past[name], values])
        for name, values in new.covariates.past.items()
    }
    return replace(
        new,
        values=np.concatenate([part.values, new.values]),
        time=np.concatenate([part.time, new.time]),
        frequency=old.frequency,
        covariates=Covariates(known, past, new.covariates.static or old.covariates.static),
    )
