"""Forecaster: one series ahead."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from headgate.data import Series, Windows, as_series, cut_windows, fill_missing
from headgate.nn import Record, Recurrent
from headgate.program import Cell, Program
from headgate.training import ArrayBatches, FitConfig, fit
from headgate.training.config import Cosine

from . import stored
from .backtest import Backtest, place_origins, roll
from .features import step_inputs
from .metrics import measures, seasonal_scale
from .network import ForecastNetwork
from .reader import CarriedState, Reader
from .settings import resolve, season_and_horizon, whole
from .stream import ForecastStream


class Forecaster(BaseEstimator):
    """Forecasts one series with a recurrent network.

    The series is made even (logarithm, differences, scaling: see `Preprocessing`), cut into
    windows, and at every step of a window the network learns the values that follow. Missing values
    are bridged by a straight line where they are inputs and do not count where they are targets.

    Args:
        cell: a built-in cell's name, such as "lstm" or "gru", or your own `Cell` or `Program`.
        hidden_size: units of each layer; one number, or one for each layer.
        num_layers: layers.
        sizes: numbers for widths that the cell names, such as {"projection": 8}.
        horizon: steps to forecast; None: one season, or 12 without one.
        strategy: "direct" predicts all steps of the horizon from the last state; "closed-loop"
            predicts one and feeds it back, for any number of steps (it is trained with the true
            values: teacher forcing).
        season: steps of the season; "auto": what the frequency suggests (12 for monthly values, 52
            for weekly, 24 for hourly, 7 for daily); None: none.
        transform: "none", "log", or "auto": log where the swings grow with the level.
        difference: "none", "first" (from the value before), "seasonal" (from a season before), or
            "auto": seasonal for a season of at most 24 steps that is seen three times, else first.
        scaling: "standard", "minmax" or "none", fitted on training values alone.
        harmonics: pairs of sine and cosine of the season that the network reads; "auto": 2 where
            there is a season which `difference` does not take out, else 0.
        window: steps the network reads before it forecasts; None: two seasons, within 24 to 72 and
            half of the series.
        loss: "mse", "mae" or "huber", on scaled values.
        epochs, batch_size, learning_rate: Adam's, with a cosine schedule and gradients clipped at
            norm 1.
        seed: fixes the initial weights and the order of the windows.

    After `fit`: `network_` (a torch module), `settings_`, `preprocessing_`, `history_` (the end of
    the series), `metrics_`, `report_` (what `headgate.training.fit` returned).
    """

    def __init__(
        self,
        cell: str | Cell | Program = "lstm",
        *,
        hidden_size: int | tuple[int, ...] = 16,
        num_layers: int = 1,
        sizes: dict[str, int] | None = None,
        horizon: int | None = None,
        strategy: Literal["direct", "closed-loop"] = "direct",
        season: int | Literal["auto"] | None = "auto",
        transform: Literal["auto", "none", "log"] = "auto",
        difference: Literal["auto", "none", "first", "seasonal"] = "auto",
        scaling: Literal["standard", "minmax", "none"] = "standard",
        harmonics: int | Literal["auto"] = "auto",
        window: int | None = None,
        loss: str = "mse",
        epochs: int = 20,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        seed: int = 0,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.sizes = sizes
        self.horizon = horizon
        self.strategy = strategy
        self.season = season
        self.transform = transform
        self.difference = difference
        self.scaling = scaling
        self.harmonics = harmonics
        self.window = window
        self.loss = loss
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.seed = seed

    def fit(self, series: Any, y: None = None) -> Forecaster:
        """Train on a series: a `Series`, numbers, or a data frame with a time and a value column.

        Ctrl-C ends the fit with what was learnt so far and raises KeyboardInterrupt. Raises
        DataError where the data cannot be used, ValueError where an argument cannot.
        """
        series = as_series(series)
        self.settings_, self.preprocessing_ = resolve(self.get_params(deep=False), series)
        self.frequency_, self.names_ = series.frequency, (series.name, series.time_name)
        windows = self.windows(series)
        self.network_ = self._build(windows.inputs.shape[-1])
        config = FitConfig(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            schedule=Cosine(),
            gradient_clip=1.0,
            keep="last",
            seed=self.seed,
        )
        batches = ArrayBatches(
            windows.inputs, windows.targets, valid=windows.valid, batch_size=self.batch_size
        )
        self.report_ = fit(self.network_, batches, loss=self.loss, config=config)
        self.history_ = self._recent(series)
        last = self.report_.history[-1] if self.report_.history else None
        loss = last.train_loss if last else None
        self.metrics_: dict[str, Any] = {"fit": {"epochs": self.report_.epochs, self.loss: loss}}
        if self.report_.stop_reason == "interrupted":
            raise KeyboardInterrupt
        return self

    def windows(self, series: Any) -> Windows:
        """What the network is trained on: the windows of a series as it sees them.

        Needs the settings and the preprocessing that `fit` found.
        """
        check_is_fitted(self, "preprocessing_")
        series = as_series(series)
        steps = self.preprocessing_
        settings = self.settings_
        inputs = step_inputs(
            steps.apply(fill_missing(series.values)),
            series.time[steps.lag :],
            self.frequency_,
            settings.season,
            settings.harmonics,
        )
        return cut_windows(inputs, steps.apply(series.values), settings.window, self._outputs)

    def warm_up(self, series: Any, *, record: Record | None = None) -> CarriedState:
        """Read a series, from a fresh state to the one after its last value.

        Differences need the first `lag` values: the network reads those after them, and `record`,
        if given, holds one step for each.
        """
        check_is_fitted(self, "network_")
        series = as_series(series)
        lag = self.preprocessing_.lag
        if len(series) <= lag:
            raise ValueError(
                f"warm_up: expected more than {lag} values, which the differences need; got "
                f"{len(series)}"
            )
        filled = fill_missing(series.values)
        return self._reader.read(filled[:lag], filled[lag:], series.time[lag:], record=record)

    def advance(self, state: CarriedState, values: Any) -> CarriedState:
        """Read the values (T,) that came after `state`, none missing, from where it stopped."""
        check_is_fitted(self, "network_")
        values = np.atleast_1d(np.asarray(values, dtype=np.float64))
        if values.ndim != 1 or not np.isfinite(values).all():
            raise ValueError("advance: expected finite values (T,); fill the missing ones in first")
        if not len(values):
            return state
        times = self.frequency_.future(state.time, len(values))
        return self._reader.read(state.history, values, times, state.recurrent)

    def stream(self, state: CarriedState | None = None) -> ForecastStream:
        """Read one value after another from ``state`` on (None: the end of the fitted series)."""
        check_is_fitted(self, "network_")
        return ForecastStream(self._reader, state or self.warm_up(self.history_))

    def predict(
        self,
        horizon: int | None = None,
        *,
        state: CarriedState | None = None,
        record: Record | None = None,
    ) -> Series:
        """The next `horizon` values as a Series with their times.

        It goes on from `state`; without one, from the last window of the training series, read
        anew, whose named values `record` then receives. Raises ValueError where a direct forecaster
        is asked for more steps than it was trained for.
        """
        check_is_fitted(self, "network_")
        horizon = whole("horizon", self.settings_.horizon if horizon is None else horizon)
        if self.strategy == "direct" and horizon > self.settings_.horizon:
            raise ValueError(
                f"predict: a horizon of {horizon} is more than the {self.settings_.horizon} "
                "steps the direct "
                f"forecaster was fitted for; fit with horizon={horizon} or strategy='closed-loop'"
            )
        if state is None:
            state = self.warm_up(self.history_, record=record)
        if self.strategy == "direct":
            ahead = state.ahead[:horizon]
        else:
            ahead = self._reader.closed_loop(state, horizon)
        name, time_name = self.names_
        return Series(
            self.preprocessing_.invert(ahead, state.history),
            self.frequency_.future(state.time, horizon),
            self.frequency_,
            name,
            time_name,
        )

    def score(self, series: Any, y: None = None) -> float:
        """Minus the MASE of forecasting the last horizon of `series` from the rest; 0 is best."""
        series = as_series(series)
        past = series[: -self.settings_.horizon]
        forecast = self._forecast(past, self.settings_.horizon)
        scale = seasonal_scale(past.values, self.settings_.season)
        return -measures(series.values[len(past) :], forecast, scale)["mase"]

    def backtest(
        self,
        series: Any,
        horizon: int | None = None,
        *,
        origins: int | None = None,
        stride: int | None = None,
    ) -> Backtest:
        """Forecast from several past origins, beside the naive and the seasonal naive forecast.

        A copy is fitted once, on what precedes the first origin; from each origin it then reads
        only what precedes that one. `origins` are `stride` steps apart (None: the horizon), the
        last forecast ending with the series; None: as many as fit into the last quarter, at most
        10. This forecaster itself is not fitted.
        """
        series = as_series(series)
        fitted = type(self)(**self.get_params(deep=False))
        if horizon is not None:
            fitted.set_params(horizon=horizon)
        season, steps = season_and_horizon(fitted.get_params(deep=False), series.frequency)
        places = place_origins(len(series), steps, origins, stride)
        fitted.fit(series[: places[0]])
        self.backtest_ = roll(
            series,
            places,
            steps,
            season,
            {fitted.name: lambda past: fitted._forecast(past, steps)},
        )
        return self.backtest_

    @property
    def name(self) -> str:
        """The cell's name."""
        return self.cell if isinstance(self.cell, str) else self.cell.name

    def save(self, path: str | Path) -> None:
        """Write the fitted forecaster as a model folder, whole or not at all.

        The folder holds the cell's equations, the weights, the preprocessing, the last window of
        the series and the measures of the fit and the last backtest; nothing in it is executed on
        loading. A model folder that is already there is replaced. Raises ModelError.
        """
        check_is_fitted(self, "network_")
        stored.save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Forecaster:
        """The forecaster that `save` wrote. Raises ModelError, in one line, where there is none."""
        return stored.load(cls, path)

    @property
    def _outputs(self) -> int:
        return self.settings_.horizon if self.strategy == "direct" else 1

    def _build(self, inputs: int) -> ForecastNetwork:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            recurrent = Recurrent(
                self.cell,
                inputs,
                self.hidden_size,
                self.num_layers,
                batch_first=True,
                sizes=self.sizes,
            )
            return ForecastNetwork(recurrent, self._outputs)

    @property
    def _reader(self) -> Reader:
        return Reader(self.network_, self.preprocessing_, self.frequency_, self.settings_)

    def _forecast(self, past: Series, horizon: int) -> np.ndarray:
        return self.predict(horizon, state=self.warm_up(self._recent(past))).values

    def _recent(self, series: Series) -> Series:
        return series[-(self.settings_.window + self.preprocessing_.lag) :]
