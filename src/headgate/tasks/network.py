"""The network of a forecaster, and the state it carries from one value to the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from headgate.nn import Record, Recurrent
from headgate.nn.states import States


class ForecastNetwork(nn.Module):
    """A recurrent layer and, on its output at every step, a linear head.

        h(t) = Recurrent(x(0), …, x(t)),  ŷ(t) = V h(t) + v

    `inputs` (N, T, I); the prediction (N, T, K) holds at each step the next K values.
    """

    def __init__(self, recurrent: Recurrent, outputs: int) -> None:
        super().__init__()
        self.recurrent = recurrent
        width = recurrent.layer_sizes[-1][recurrent.program.output_width]
        self.head = nn.Linear(width, outputs)

    def forward(
        self,
        inputs: Tensor,
        state: States | None = None,
        *,
        lengths: Tensor | None = None,
        record: Record | None = None,
    ) -> tuple[Tensor, States]:
        output, after = self.recurrent(inputs, state, lengths=lengths, record=record)
        return self.head(output), after


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


@torch.no_grad()
def run(
    network: ForecastNetwork,
    inputs: np.ndarray,
    state: States | None,
    record: Record | None = None,
) -> tuple[np.ndarray, States]:
    """Read one series (T, I); the prediction (K,) after its last step, and the state."""
    network.eval()
    batch = torch.from_numpy(inputs.astype(np.float32))[None]
    prediction, after = network(batch, state, record=record)
    return prediction[0, -1].double().numpy(), after
