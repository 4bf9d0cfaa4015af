"""Overlapping windows of a series: inputs and the targets that follow each step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import DataError


@dataclass(frozen=True)
class Windows:
    """`inputs` (N, T, I); `targets` (N, T, K), the K values after a step; `valid`, which count."""

    inputs: np.ndarray
    targets: np.ndarray
    valid: np.ndarray

    def __len__(self) -> int:
        return len(self.inputs)


def cut_windows(inputs: np.ndarray, targets: np.ndarray, length: int, ahead: int) -> Windows:
    """Every window of `length` steps that is followed by `ahead` values.

    `inputs` (T, I) has no missing value; `targets` (T,) may: those do not count. Raises DataError
    where the series is too short for one window.
    """
    count = len(targets) - length - ahead + 1
    if count < 1:
        raise DataError(
            f"the series is too short: a window of {length} steps and a horizon of {ahead} need "
            f"at least {length + ahead} usable values, got {len(targets)}; "
            f"shorten the window or the horizon"
        )
    view = np.lib.stride_tricks.sliding_window_view
    following = view(targets, ahead)[1:]
    ahead_of_step = view(following, length, axis=0).transpose(0, 2, 1)[:count]
    cut = view(inputs, length, axis=0).transpose(0, 2, 1)[:count]
    valid = ~np.isnan(ahead_of_step)
    return Windows(
        np.ascontiguousarray(cut, np.float32),
        np.where(valid, ahead_of_step, 0).astype(np.float32),
        valid,
    )
