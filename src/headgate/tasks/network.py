"""The network of a forecaster."""

from __future__ import annotations

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
