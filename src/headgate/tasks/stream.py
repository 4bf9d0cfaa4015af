"""A fitted forecaster that reads one value after another and forecasts after each."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from .reader import CarriedState, Reader


class ForecastStream:
    """One value of one series at a time, in its own units: scaling and calendar are inside.

    Made by ``Forecaster.stream()``. The weights are those of the moment it was made.
    """

    def __init__(self, reader: Reader, state: CarriedState) -> None:
        reader.check_alone("stream")
        if len(state.tails) != 1:
            raise ValueError(
                f"stream: expected one series, got {len(state.tails)}; make one for each, from "
                "stream(state=warm_up(series))"
            )
        self._reader = reader
        self._network = reader.network.recurrent.stream()
        head = reader.network.head
        self._linear = None
        if isinstance(head, nn.Linear):
            self._linear = head.weight.detach().numpy().T.copy(), head.bias.detach().numpy().copy()
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
        tail, values = self._tail, np.array([value])
        times = tail.series.future(1)
        inputs, ahead = self._reader.chunk(tail, values, times)
        hidden = self._network.step(inputs)
        if self._linear is not None:
            self._raw = torch.from_numpy(hidden @ self._linear[0] + self._linear[1])
        else:
            with torch.no_grad():
                h, f = torch.from_numpy(hidden.copy()), torch.from_numpy(ahead)
                self._raw = self._reader.network.head(h, f)
        series = replace(tail.series, values=values, time=times)
        history = np.append(tail.history, value)[1:] if len(tail.history) else tail.history
        self._tail = replace(tail, series=series, history=history)
        return self._reader.values(self._tail, self._raw)

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
        return CarriedState(recurrent, self._raw, (self._tail,))

    @state.setter
    def state(self, given: CarriedState) -> None:
        self._network.state = tuple(
            tuple(p.numpy() for p in part) if isinstance(part, tuple) else part.numpy()
            for part in given.recurrent
        )
        self._raw, (self._tail,) = given.raw, given.tails
