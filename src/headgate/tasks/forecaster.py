"""Forecaster: one series or many, ahead."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from headgate.data import Panel, Preprocessing, Series, as_panel
from headgate.nn import Record, Recurrent
from headgate.program import Cell, Program
from headgate.training import FitConfig, fit
from headgate.training.config import Cosine

from . import stored
from .distributions import Output
from .forecast import Forecast, Forecasts
from .forecasting import averaged, forecasts
from .intervals import Margins
from .judged import INTERVALS, Judged
from .network import ForecastNetwork
from .reader import CarriedState, Reader
from .sampling import WindowBatches, local_step, loss_of
from .settings import LEVELS, output_of, resolve, whole
from .stream import ForecastStream


class Forecaster(Judged, BaseEstimator):
    """Forecasts one series, or many with one network, by a recurrent network.

    Each series is made even (a transform, differences, scaling with its own constants: see
    `Preprocessing`), cut into windows, and at every step of a window the network learns the values
    that follow. A missing value is read as the last one before it, with a sign that it is missing,
    and does not count where it is a target.

    Args:
        cell: a built-in cell's name, such as "lstm" or "gru", or your own `Cell` or `Program`.
        hidden_size: units of each layer; one number, or one for each layer.
        num_layers: layers.
        members: networks, each from a seed of its own, whose forecasts are averaged.
        sizes: numbers for widths that the cell names, such as {"projection": 8}.
        horizon: steps to forecast; None: one season, or 12 without one.
        strategy: "direct" predicts all steps of the horizon from the last state; "closed-loop"
            predicts one and feeds it back, for any number of steps (it is trained with the true
            values: teacher forcing).
        output: what the network says of a value to come: "point", "quantiles", "gaussian",
            "student_t", or for counts "poisson" and "negative_binomial".
        levels: the quantiles that output "quantiles" learns.
        season: steps of the season; "auto": what the frequency suggests (12 for monthly values, 52
            for weekly, 24 for hourly, 7 for daily); None: none.
        transform: "none", "log", "log1p" or "sqrt" (for values down to zero), or "auto": log where
            the swings of most series grow with the level.
        difference: "none", "first" (from the value before), "seasonal" (from a season before), or
            "auto": seasonal for a season of at most 24 steps that is seen three times, else first.
        scaling: "standard", "minmax", "mean" or "none", fitted on each series' training values.
        harmonics: pairs of sine and cosine of the season that the network reads; "auto": 2 where
            there is a season which `difference` does not take out, else 0.
        calendar: what of "hour", "weekday", "day" (of the month) and "year" (place in it) the
            network reads; "auto": hour and weekday for hours, weekday and year for days; "none".
        lags: the network also reads the values so many steps before those it forecasts, each at
            least the horizon in a direct forecast.
        window: steps the network reads before it forecasts; None: two seasons, within 24 to 72 and
            half of the series.
        loss: "mse", "mae" or "huber" for output "point", on scaled values.
        epochs, batch_size, learning_rate: Adam's, with a cosine schedule and gradients clipped at
            norm 1.
        samples: windows of an epoch, drawn anew for each; None: all.
        seed: fixes the initial weights, the order of the windows and sampled paths.

    After `fit`: `network_` (a torch module; the first of `networks_`), `settings_`, `encoder_`,
    `preprocessings_` (by id), `history_` (the ends of the series), `metrics_`, `report_` (what
    `headgate.training.fit` returned); after `calibrate`: `margins_`.
    """

    def __init__(
        self,
        cell: str | Cell | Program = "lstm",
        *,
        hidden_size: int | tuple[int, ...] = 16,
        num_layers: int = 1,
        members: int = 1,
        sizes: dict[str, int] | None = None,
        horizon: int | None = None,
        strategy: Literal["direct", "closed-loop"] = "direct",
        output: str = "point",
        levels: tuple[float, ...] = LEVELS,
        season: int | Literal["auto"] | None = "auto",
        transform: Literal["auto", "none", "log", "log1p", "sqrt"] = "auto",
        difference: Literal["auto", "none", "first", "seasonal"] = "auto",
        scaling: Literal["standard", "minmax", "mean", "none"] = "standard",
        harmonics: int | Literal["auto"] = "auto",
        calendar: str | tuple[str, ...] = "auto",
        lags: int | tuple[int, ...] = (),
        window: int | None = None,
        loss: str = "mse",
        epochs: int = 20,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        samples: int | None = None,
        seed: int = 0,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.members = members
        self.sizes = sizes
        self.horizon = horizon
        self.strategy = strategy
        self.output = output
        self.levels = levels
        self.season = season
        self.transform = transform
        self.difference = difference
        self.scaling = scaling
        self.harmonics = harmonics
        self.calendar = calendar
        self.lags = lags
        self.window = window
        self.loss = loss
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.samples = samples
        self.seed = seed

    def fit(self, data: Any, y: None = None) -> Forecaster:
        """Train on a series or a panel: anything that `headgate.data.as_panel` reads.

        Ctrl-C ends the fit with what was learnt so far and raises KeyboardInterrupt. Raises
        DataError where the data cannot be used, ValueError where an argument cannot.
        """
        panel = as_panel(data)
        resolved = resolve(self.get_params(deep=False), panel)
        self.settings_, self.encoder_, self.preprocessings_ = resolved
        self.frequency_, self.margins_ = panel.frequency, Margins()
        batches = self.batches(panel)
        seeds = range(self.seed, self.seed + whole("members", self.members))
        self.networks_ = [self._build(batches, seed) for seed in seeds]
        self.metrics_: dict[str, Any] = {}
        self._train(batches, self.epochs, self.learning_rate)
        self.history_ = self._recent(panel)
        if self.report_.stop_reason == "interrupted":
            raise KeyboardInterrupt
        return self

    def update(
        self, data: Any, *, epochs: int | None = None, learning_rate: float | None = None
    ) -> Forecaster:
        """Go on training with values that came after those of the fit.

        Each series goes on from its end, by id, or holds its end and what came after. Scaling and
        settings stay; the end of each series moves on. `epochs` (None: a fifth of the fit's) go
        over windows of the new values and the `window` steps before them, at a tenth of the fit's
        learning rate. Raises DataError where a series does not go on from its end.
        """
        check_is_fitted(self, "networks_")
        panel = stored.continued(self.history_, as_panel(data))
        epochs = max(1, self.epochs // 5) if epochs is None else whole("epochs", epochs)
        rate = self.learning_rate / 10 if learning_rate is None else learning_rate
        self._train(self.batches(panel), epochs, rate)
        self.history_ = self._recent(panel)
        return self

    def batches(self, data: Any) -> WindowBatches:
        """What the network is trained on: the windows of some series as it sees them.

        Needs the settings and the preprocessing that `fit` found.
        """
        check_is_fitted(self, "preprocessings_")
        panel, steps = as_panel(data), self._outputs
        return WindowBatches(
            [self.encoder_.encode(s, self._preprocessing(s), steps, known=0) for s in panel],
            self.settings_.window,
            steps,
            local=self._local,
            scaled=self._output.counts,
            batch_size=self.batch_size,
            samples=self.samples,
        )

    def warm_up(self, data: Any, *, record: Record | None = None) -> CarriedState:
        """Read series, from a fresh state to the one after the last value of each.

        Differences need the first `lag` values: the network (the first of several) reads those
        after them, and `record`, if given, holds one step for each.
        """
        check_is_fitted(self, "networks_")
        panel = as_panel(data)
        needed = self.preprocessing_.lag + max(1, self.encoder_.memory)
        shortest = min(map(len, panel))
        if shortest < needed:
            raise ValueError(
                f"warm_up: expected at least {needed} values, which differences and lags need; got "
                f"{shortest}"
            )
        return self._reader.read(panel.series, [self._preprocessing(s) for s in panel], record)

    def advance(self, state: CarriedState, values: Any) -> CarriedState:
        """Read the values (T,) that came after `state`, none missing, from where it stopped."""
        self._check_alone("advance")
        values = np.atleast_1d(np.asarray(values, dtype=np.float64))
        if values.ndim != 1 or not np.isfinite(values).all():
            raise ValueError("advance: expected finite values (T,); fill the missing ones in first")
        return self._reader.advance(state, values) if len(values) else state

    def stream(self, state: CarriedState | None = None) -> ForecastStream:
        """Read one value after another from ``state`` on (None: the end of the fitted series)."""
        self._check_alone("stream")
        return ForecastStream(self._reader, state or self.warm_up(self.history_))

    def predict(
        self,
        horizon: int | None = None,
        *,
        series: Any = None,
        state: CarriedState | None = None,
        intervals: Sequence[float] | None = None,
        paths: int = 0,
        record: Record | None = None,
    ) -> Any:
        """The next `horizon` values: a `Forecast`, or `Forecasts` of a panel.

        They follow the fitted series, or `series`, which the network then reads, or `state`, which
        it goes on from; `record` receives the named values while it reads. `intervals` are shares
        such as 0.8; None: 80 % and 95 % where the output or `calibrate` gives them. `paths` of
        possible values are drawn in a closed loop.

        Raises ValueError where a direct forecaster is asked for more steps than it was trained for.
        """
        check_is_fitted(self, "networks_")
        horizon = whole("horizon", self.settings_.horizon if horizon is None else horizon)
        self._check_ahead(horizon, paths)
        if intervals is None:
            intervals = INTERVALS if self.output != "point" or self.margins_ else ()
        panel = self.history_ if series is None else self._recent(as_panel(series))
        if state is None:
            states = [self.warm_up(panel, record=record), *self._read_by_others(panel)]
        else:
            self._check_alone("predict")
            states = [state]
        found = self._forecasts(states, horizon, tuple(intervals), paths)
        if state is None and (len(panel) > 1 or panel.series[0].id):
            return Forecasts(tuple(found))
        return found[0]

    @property
    def name(self) -> str:
        """The cell's name."""
        return self.cell if isinstance(self.cell, str) else self.cell.name

    @property
    def network_(self) -> ForecastNetwork:
        """The first network."""
        return self.networks_[0]

    @property
    def preprocessing_(self) -> Preprocessing:
        """Of the first series; all share its logarithm and its differences."""
        return next(iter(self.preprocessings_.values()))

    def save(self, path: str | Path) -> None:
        """Write the fitted forecaster as a model folder, whole or not at all.

        The folder holds the cell's equations, the weights, the preprocessing, the last window of
        each series and the measures of the fit and the last backtest; nothing in it is executed on
        loading. A model folder that is already there is replaced. Raises ModelError.
        """
        check_is_fitted(self, "networks_")
        stored.save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Forecaster:
        """The forecaster that `save` wrote. Raises ModelError, in one line, where there is none."""
        return stored.load(cls, path)

    @property
    def _outputs(self) -> int:
        return self.settings_.horizon if self.strategy == "direct" else 1

    @property
    def _output(self) -> Output:
        return output_of(self.get_params(deep=False))

    @property
    def _local(self) -> bool:
        return self.strategy == "direct" and self.encoder_.local

    def _preprocessing(self, series: Series) -> Preprocessing:
        """That of the fit; a series that is new gets constants of its own."""
        known = self.preprocessings_.get(series.id)
        return known or self.preprocessing_.fit(series.values)

    def _build(self, batches: WindowBatches, seed: int) -> ForecastNetwork:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            recurrent = Recurrent(
                self.cell,
                batches.input_size,
                self.hidden_size,
                self.num_layers,
                batch_first=True,
                sizes=self.sizes,
            )
            return ForecastNetwork(
                recurrent, self._outputs, self._output.parameters, batches.features
            )

    def _train(self, batches: WindowBatches, epochs: int, learning_rate: float) -> None:
        loss, losses = loss_of(self._output), []
        for k, network in enumerate(self.networks_):
            config = FitConfig(
                epochs=epochs,
                learning_rate=learning_rate,
                schedule=Cosine(),
                gradient_clip=1.0,
                keep="last",
                seed=self.seed + k,
            )
            self.report_ = fit(network, batches, loss=loss, config=config, step=local_step)
            losses += [record.train_loss for record in self.report_.history[-1:]]
            if self.report_.stop_reason == "interrupted":
                self.networks_ = self.networks_[: k + 1]
                break
        name = self.loss if self.output == "point" else self.output
        last = float(np.mean(losses)) if losses else None
        self.metrics_["fit"] = {"epochs": self.report_.epochs, name: last}

    @property
    def _readers(self) -> list[Reader]:
        direct = self.strategy == "direct"
        return [
            Reader(network, self.encoder_, self._output, self.settings_, direct)
            for network in self.networks_
        ]

    @property
    def _reader(self) -> Reader:
        return self._readers[0]

    def _read_by_others(self, panel: Panel) -> list[CarriedState]:
        steps = [self._preprocessing(series) for series in panel]
        return [reader.read(panel.series, steps) for reader in self._readers[1:]]

    def _check_alone(self, what: str) -> None:
        check_is_fitted(self, "networks_")
        if len(self.networks_) > 1:
            raise ValueError(
                f"{what}: expected one network, whose state is carried, but this forecaster has "
                f"{len(self.networks_)}; forecast with series=, or fit with members=1"
            )

    def _forecasts(
        self,
        states: Sequence[CarriedState],
        horizon: int,
        intervals: tuple[float, ...],
        paths: int,
    ) -> list[Forecast]:
        """Of each series, from the state in which each network has read them."""
        margins, own = self.margins_, intervals
        if self.output == "point":
            own, missing = (), [level for level in intervals if level not in margins.by_level]
            if missing:
                raise ValueError(
                    f"predict: a point forecast has no intervals {missing}; calibrate(backtest) "
                    "gives it some, or output='quantiles'"
                )
        found = [
            forecasts(reader, state, horizon, own, paths, self.seed)
            for reader, state in zip(self._readers, states, strict=True)
        ]
        return [
            margins.around(averaged(each), tail.series, intervals)
            for *each, tail in zip(*found, states[0].tails, strict=True)
        ]

    def _check_ahead(self, horizon: int, paths: int) -> None:
        if self.strategy != "direct":
            return
        if horizon > self.settings_.horizon:
            raise ValueError(
                f"predict: a horizon of {horizon} is more than the {self.settings_.horizon} "
                "steps the direct "
                f"forecaster was fitted for; fit with horizon={horizon} or strategy='closed-loop'"
            )
        if paths:
            raise ValueError(
                "predict: a direct forecast knows each step's distribution but no paths through "
                "them; fit with strategy='closed-loop'"
            )

    def _recent(self, panel: Panel) -> Panel:
        count = self.settings_.window + self.preprocessing_.lag + self.encoder_.memory
        return Panel(tuple(series[max(0, len(series) - count) :] for series in panel))
