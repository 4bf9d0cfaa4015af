"""The network of a forecaster."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from headgate.nn import Record, Recurrent
from headgate.nn.states import States


class LocalHead(nn.Module):
    """Forecasts of K steps, each from the state and from what is known of that step.

        a(t, k) = V_k h(t) + v_k,  ŷ(t, k) = U tanh(a(t, k) + W f(t + k)) + P_k h(t) + p_k

    After the local decoder of Wen et al., "A multi-horizon quantile recurrent forecaster" (2017),
    with a straight path beside it. h (N, T, H), f (N, T, K, F), ŷ (N, T, K·P).
    """

    def __init__(
        self, hidden_size: int, steps: int, features: int, parameters: int, width: int = 8
    ) -> None:
        super().__init__()
        self.steps, self.width = steps, width
        self.context = nn.Linear(hidden_size, steps * width)
        self.features = nn.Linear(features, width, bias=False)
        self.output = nn.Linear(width, parameters, bias=False)
        self.straight = nn.Linear(hidden_size, steps * parameters)

    def forward(self, h: Tensor, ahead: Tensor) -> Tensor:
        context = self.context(h).unflatten(-1, (self.steps, self.width))
        local = self.output(torch.tanh(context + self.features(ahead)))
        return local.flatten(-2) + self.straight(h)


class ForecastNetwork(nn.Module):
    """A recurrent layer and, on its output at every step, a head.

        h(t) = Recurrent(x(0), …, x(t)),  ŷ(t) = V h(t) + v, or `LocalHead`

    `inputs` (N, T, I); the prediction (N, T, K·P) holds at each step P parameters of each of the
    next K values. `features`: F of `ahead` (N, T, K, F), where steps ahead bring news; else 0.
    """

    def __init__(
        self, recurrent: Recurrent, steps: int, parameters: int = 1, features: int = 0
    ) -> None:
        super().__init__()
        self.recurrent = recurrent
        width = recurrent.layer_sizes[-1][recurrent.program.output_width]
        self.head = (
            LocalHead(width, steps, features, parameters)
            if features
            else nn.Linear(width, steps * parameters)
        )

    def forward(
        self,
        inputs: Tensor,
        state: States | None = None,
        *,
        ahead: Tensor | None = None,
        lengths: Tensor | None = None,
        record: Record | None = None,
    ) -> tuple[Tensor, States]:
        output, after = self.recurrent(inputs, state, lengths=lengths, record=record)
        return (self.head(output) if ahead is None else self.head(output, ahead)), after
