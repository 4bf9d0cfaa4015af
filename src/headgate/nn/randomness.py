"""Dropout between layers and weight drop, from numbers that depend on their place alone."""

from __future__ import annotations

import torch
from torch import Tensor

from headgate.engines.random import MaskKey, uniform


def draw_seed() -> int:
    """A seed for one call, from torch's generator."""
    return int(torch.randint(2**63 - 1, ()))


def dropout(y: Tensor, rate: float, key: MaskKey) -> Tensor:
    """y ∘ m / (1 − rate), m = 0 with probability rate, for y (T, N, H) (Zaremba et al. 2014)."""
    return y * _mask(key, "layers", y.shape[1], (0, y.shape[0]), y.shape[2], rate, y)


def weight_drop(weight: Tensor, rate: float, key: MaskKey, family: str) -> Tensor:
    """DropConnect on a recurrent matrix (rows, columns), one mask a call (Merity et al. 2018)."""
    rows, columns = weight.shape
    return weight * _mask(key, f"weight {family}", rows, None, columns, rate, weight)


def _mask(
    key: MaskKey,
    name: str,
    rows: int,
    steps: tuple[int, int] | None,
    width: int,
    rate: float,
    like: Tensor,
) -> Tensor:
    if rate >= 1.0:
        return torch.zeros_like(like)
    drawn = uniform(key, name, rows, steps, width, device=like.device, dtype=like.dtype)
    return (drawn >= rate).to(like.dtype) / (1.0 - rate)
