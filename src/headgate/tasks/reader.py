"""How a fitted network reads a series, and the state it carries from one value to the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from headgate.data import Frequency, Preprocessing
from headgate.nn import Record
from headgate.nn.states import States

from .features import step_inputs
from .network import ForecastNetwork
from .settings import Resolved


@dataclass(frozen=True)
class CarriedState:
    """Everything a forecaster needs to go on from where it stopped reading.

    `recurrent` is the network's state; `ahead` (K,) its prediction after the last value, in network
    units; `history` the last values that differences need; `time` that of the last value.
    """

    recurrent: States
    ahead: np.ndarray
    history: np.ndarray
    time: np.generic


@dataclass(frozen=True)
class Reader:
    """A network with all that stands between it and the values of a series."""

    network: ForecastNetwork
    preprocessing: Preprocessing
    frequency: Frequency
    settings: Resolved

    def read(
        self,
        history: np.ndarray,
        values: np.ndarray,
        times: np.ndarray,
        recurrent: States | None = None,
        record: Record | None = None,
    ) -> CarriedState:
        """Read values (T,) at `times` (T,) that follow `history` (lag,), none missing."""
        together = np.concatenate([history, values])
        ahead, after = self._run(self.preprocessing.apply(together), times, recurrent, record)
        last = together[len(together) - len(history) :]
        return CarriedState(after, ahead, last, times[-1])

    def closed_loop(self, state: CarriedState, steps: int) -> np.ndarray:
        """(steps,) in network units: each prediction of one step is read as the next value."""
        ahead, recurrent = state.ahead, state.recurrent
        found = [ahead[0]]
        for time in self.frequency.future(state.time, steps - 1):
            ahead, recurrent = self._run(ahead, np.array([time]), recurrent, None)
            found.append(ahead[0])
        return np.array(found)

    @torch.no_grad()
    def _run(
        self, values: np.ndarray, times: np.ndarray, recurrent: States | None, record: Record | None
    ) -> tuple[np.ndarray, States]:
        settings = self.settings
        inputs = step_inputs(values, times, self.frequency, settings.season, settings.harmonics)
        batch = torch.from_numpy(inputs.astype(np.float32))[None]
        self.network.eval()
        prediction, after = self.network(batch, recurrent, record=record)
        return prediction[0, -1].double().numpy(), after
