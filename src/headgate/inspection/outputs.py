"""What a module returned, row by row at one step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence


def output_of(result: Any, *, batch_first: bool) -> Tensor:
    """The output alone of what a module returns, (N, T, ·) where it has steps, else as it is.

    Of a tuple it is the first; steps come second also where the layers put them first.
    """
    if isinstance(result, PackedSequence):
        return pad_packed_sequence(result, batch_first=True)[0]
    if isinstance(result, tuple | list):
        return output_of(result[0], batch_first=batch_first)
    if not isinstance(result, Tensor):
        raise TypeError(
            "output: expected a module that returns a tensor, or a tuple that begins with one, got "
            f"{type(result).__name__}; wrap the module in one that does"
        )
    return result if batch_first or result.dim() != 3 else result.transpose(0, 1)


def output_at(output: Tensor, lengths: Tensor, at: int = -1) -> Tensor:
    """Each row's output (N, ·) at a step, of outputs (N, T, ·); zero where a row has no such step.

    at: counted from 0, or back from each row's own end, −1 being its last of `lengths` (N,).
    """
    steps = lengths.to(output.device)
    place = steps + at if at < 0 else torch.full_like(steps, at)
    there = (place >= 0) & (place < steps)
    rows = torch.arange(len(output), device=output.device)
    found = output[rows, place.clamp(0, output.shape[1] - 1)]
    return torch.where(there[:, None], found, 0)
