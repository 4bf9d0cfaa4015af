from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn


@dataclass
class Block:
    parameter: str
    family: str
    block: str
    rows: slice


class Gates(nn.Module):
    """h = tanh(x W.aᵀ + b.a) + x W.bᵀ + b.b, accumulated over steps: two gates in two families."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.W_l0 = nn.Parameter(torch.randn(2 * hidden, inputs) * 0.5)
        self.b_l0 = nn.Parameter(torch.randn(2 * hidden) * 0.5)

    def blocks(self) -> list[Block]:
        a, b = slice(0, self.hidden), slice(self.hidden, 2 * self.hidden)
        rows = {"a": a, "b": b}
        return [Block(f"{f}_l0", f, name, at) for f in "Wb" for name, at in rows.items()]

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        a, b = (x @ self.W_l0.T + self.b_l0).chunk(2, -1)
        state = x.new_zeros(x.shape[0], self.hidden) if state is None else state
        outputs = []
        for step in range(x.shape[1]):
            state = 0.5 * state + torch.tanh(a[:, step]) + b[:, step]
            outputs.append(state)
        return torch.stack(outputs, 1), state


class Net(nn.Module):
    def __init__(self, dropout: float = 0.0, outputs: int = 1) -> None:
        super().__init__()
        self.layer = Gates(2, 4)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4, outputs)

    def forward(self, x: Tensor, state: Tensor | None = None, lengths: Tensor | None = None):
        y, state = self.layer(x, state)
        return self.head(self.dropout(y)), state


@pytest.fixture
def make_net() -> Callable[..., Net]:
    """The same small recurrent network at every call, in float64."""

    def make(**settings: float) -> Net:
        torch.manual_seed(1)
        return Net(**settings).double()  # pyright: ignore[reportArgumentType]

    return make


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    """Inputs (N, T, I) = (10, 8, 2) and a target for every step (N, T, 1)."""
    x = torch.randn(10, 8, 2, dtype=torch.float64)
    return x, 0.3 * x[..., :1].cumsum(1) - 0.2 * x[..., 1:]
