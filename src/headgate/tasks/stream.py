"""A fitted forecaster that reads one value after another and forecasts after each."""

from __future__ import annotations

import math

import numpy as np
import torch

from .features import step_inputs
from .reader import CarriedState, Reader


class ForecastStream:
    """One value at a time, in the series' own units: scaling and calendar are inside.

    Made by ``Forecaster.stream()``. The weights are those of the moment it was made.
    """

    def __init__(self, reader: Reader, state: CarriedState) -> None:
        self._reader = reader
        self._network = reader.network.recurrent.stream()
        head = reader.network.head
        self._weight = head.weight.detach().numpy().copy()
        self._bias = head.bias.detach().numpy().copy()
        self.state = state

    def step(self, value: float) -> np.ndarray:
        """The next K values (K,), as they are forecast once ``value`` has been seen.

        ``value`` is what follows the last one that was read, one step of the series later. With
        strategy "direct" K is the horizon, in a closed loop 1.

        Raises ValueError where it is missing, not a number, or has no logarithm where the series
        is read in logarithms.
        """
        value = float(value)
        if not math.isfinite(value):
            raise ValueError(
                f"ForecastStream.step: expected a finite value, got {value}; fill a missing one in "
                "first, with the first value of the last forecast, say"
            )
        reader, settings = self._reader, self._reader.settings
        together = np.append(self._history, value)
        scaled = reader.preprocessing.apply(together)[-1:]
        (time,) = reader.frequency.future(self._time, 1)
        inputs = step_inputs(
            scaled, np.array([time]), reader.frequency, settings.season, settings.harmonics
        )
        hidden = self._network.step(inputs.astype(np.float32))
        self._ahead = (hidden[0] @ self._weight.T + self._bias).astype(np.float64)
        self._history, self._time = together[len(together) - len(self._history) :], time
        return reader.preprocessing.invert(self._ahead, self._history)

    @property
    def state(self) -> CarriedState:
        """Where the stream stands, as ``Forecaster.warm_up`` returns it; set it to go on from
        elsewhere."""
        recurrent = tuple(
            tuple(map(torch.from_numpy, part))
            if isinstance(part, tuple)
            else torch.from_numpy(part)
            for part in self._network.state
        )
        return CarriedState(recurrent, self._ahead, self._history, self._time)

    @state.setter
    def state(self, given: CarriedState) -> None:
        self._network.state = tuple(
            tuple(p.numpy() for p in part) if isinstance(part, tuple) else part.numpy()
            for part in given.recurrent
        )
        self._ahead, self._history, self._time = given.ahead, given.history, given.time
