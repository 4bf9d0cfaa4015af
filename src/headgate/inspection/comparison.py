"""Cells side by side: the same sizes, data, seed and training for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headgate.nn import Recurrent
from headgate.program import Cell, Program

from .flow import Flow, gradient_flow

Named = Mapping[str, Cell | Program | str] | Sequence[Cell | str]


class LastStep(nn.Module):
    """A recurrent layer and a linear reading of each row's last output: ŷ = V h(T) + v.

    Inputs (N, T, I), with `lengths` (N,) where rows are ragged; predictions (N, 1).
    """

    def __init__(self, cell: Cell | Program | str, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.recurrent = Recurrent(
            cell, input_size, hidden_size, batch_first=True, output_mode="last"
        )
        width = self.recurrent.layer_sizes[-1][self.recurrent.program.output_width]
        self.head = nn.Linear(width, 1)

    def forward(
        self, inputs: Tensor, state: Any = None, *, lengths: Any = None
    ) -> tuple[Tensor, Any]:
        output, after = self.recurrent(inputs, state, lengths=lengths)
        return self.head(output), after


@dataclass(frozen=True, eq=False)
class Compared:
    """One cell of a comparison: its network and its gradient flow before and after training."""

    model: LastStep
    fresh: Flow
    trained: Flow | None = None


def compare_cells(
    cells: Named,
    input: Tensor,
    *,
    hidden_size: int,
    seed: int = 0,
    lengths: Any = None,
    train: Callable[[LastStep], object] | None = None,
) -> dict[str, Compared]:
    """The gradient flow of several cells on the same input (N, T, I), by name.

    Each cell becomes a ``LastStep`` whose weights are drawn from the same seed; the loss is the sum
    of its predictions. `train` then trains that network in place, and the flow is taken again. The
    generator of torch is left as it was.

    Raises ValueError for a name that is no built-in cell, and without a cell.
    """
    if not isinstance(cells, Mapping):
        cells = {each if isinstance(each, str) else each.name: each for each in cells}
    if not cells:
        raise ValueError("compare_cells: expected at least one cell, got none")
    found: dict[str, Compared] = {}
    for name, cell in cells.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = LastStep(cell, input.shape[-1], hidden_size).to(input.dtype)
        fresh = gradient_flow(model, input, lengths=lengths)
        found[name] = Compared(model, fresh)
        if train is not None:
            train(model)
            found[name] = Compared(model, fresh, gradient_flow(model, input, lengths=lengths))
    return found


def recall(
    rows: int, steps: int, *, seed: int, ragged: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """A long lag: the first value of a row is to be told at its end, through noise.

    Inputs (N, T, 2): values uniform in [−1, 1], and a mark that is 1 at the first step and 0 at all
    others; targets (N, 1), the first value; lengths (N,), all T, or T^u with u uniform in [0, 1]
    where `ragged`: the short ones teach a cell to hold a value that it has to hold for longer. The
    value is a real one, so a state that only keeps its sign is not enough.

    After problem 2 of S. Hochreiter & J. Schmidhuber, "Long short-term memory", Neural Computation
    9 (1997), with a value in place of two symbols.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.zeros(rows, steps, 2)
    inputs[..., 0].uniform_(-1, 1, generator=generator)
    inputs[:, 0, 1] = 1.0
    lengths = torch.full((rows,), steps)
    if ragged:
        lengths = (steps ** torch.rand(rows, generator=generator)).round().long()
    return inputs, inputs[:, 0, :1].clone(), lengths
