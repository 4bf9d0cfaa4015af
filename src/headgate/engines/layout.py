"""Ragged batches and the reverse direction, brought to the one layout the time loop knows."""

from __future__ import annotations

import torch
from torch import Tensor


def valid_steps(lengths: Tensor | None, steps: int) -> Tensor | None:
    """Mask (T, N, 1), true where a row has a step; None where every row has all of them."""
    if lengths is None:
        return None
    return (torch.arange(steps, device=lengths.device)[:, None] < lengths)[..., None]


def reversed_rows(values: Tensor, lengths: Tensor | None) -> Tensor:
    """Each row's valid steps in the opposite order; past its end nothing moves. (T, N, …)"""
    if lengths is None:
        return values.flip(0)
    steps = torch.arange(values.shape[0], device=values.device)[:, None]
    index = torch.where(steps < lengths, lengths - 1 - steps, steps)
    shape = (*index.shape, *([1] * (values.dim() - 2)))
    return values.gather(0, index.view(shape).expand_as(values))
