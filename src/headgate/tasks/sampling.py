"""Batches of windows, cut from the series when they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headgate.data import DataError
from headgate.training import Batch
from headgate.training.losses import Loss

from .distributions import Output
from .encoder import Encoded


class WindowBatches:
    """Windows of T steps of all series, and at each step the K values that follow it.

    The series stand one after another in one array, so that a batch is a few lookups. A series that
    is too short for a whole window gives one, whose targets past its end do not count.

    Args:
        encoded: the series, each with K steps ahead or more.
        length, steps: T and K.
        local: give what is known of the steps ahead as a second input (N, T, K, F).
        scaled: give targets (N, T, K + 1) whose last is the series' scale, for counts.
        batch_size: windows of a batch.
        samples: windows of an epoch, drawn anew for each; None: all of them.
    """

    def __init__(
        self,
        encoded: Sequence[Encoded],
        length: int,
        steps: int,
        *,
        local: bool = False,
        scaled: bool = False,
        batch_size: int = 32,
        samples: int | None = None,
    ) -> None:
        self.length, self.steps = length, steps
        self.local, self.scaled, self.batch_size, self.samples = local, scaled, batch_size, samples
        rows = [len(e.inputs) for e in encoded]
        if max(rows) < length + steps:
            raise DataError(
                f"the series is too short: a window of {length} steps and a horizon of {steps} "
                f"need at least {length + steps} usable values, got {max(rows)}; "
                "shorten the window or the horizon"
            )
        windows = [max(1, n - length - steps + 1) for n in rows]
        self._series = np.repeat(np.arange(len(encoded)), windows)
        self._start = np.concatenate([np.arange(w) for w in windows])
        self._inputs = _Joined([e.inputs for e in encoded], length + steps, 0.0)
        self._level = _Joined([e.level[:, None] for e in encoded], length + steps, np.nan)
        self._ahead = _Joined([e.ahead for e in encoded], length + steps, 0.0) if local else None
        self._lag = encoded[0].preprocessing.lag
        self._times, _ = encoded[0].preprocessing.ahead(steps)
        self._offset = np.array([e.preprocessing.offset for e in encoded])
        self._scale = np.array([e.preprocessing.scale for e in encoded])

    def windows(self) -> int:
        """How many there are."""
        return len(self._series)

    def __len__(self) -> int:
        return -(-min(self.samples or self.windows(), self.windows()) // self.batch_size)

    def epoch(self, k: int, generator: torch.Generator) -> Iterator[Batch]:
        generator.manual_seed((generator.initial_seed() * 1_000_003 + k + 1) % 2**63)
        order = torch.randperm(self.windows(), generator=generator).numpy()[: self.samples]
        for first in range(0, len(order), self.batch_size):
            yield self.batch(order[first : first + self.batch_size])

    def batch(self, windows: np.ndarray) -> Batch:
        """The windows of these numbers."""
        series, start = self._series[windows], self._start[windows][:, None]
        steps = start + np.arange(self.length)
        ahead = steps[..., None] + np.arange(1, self.steps + 1)
        inputs = self._inputs.at(series, steps)
        targets = self._targets(series, ahead)
        valid = ~np.isnan(targets)
        targets = np.where(valid, targets, 0.0)
        if self.scaled:
            scale = np.broadcast_to(self._scale[series][:, None, None], (*steps.shape, 1))
            targets = np.concatenate([targets * scale, scale], axis=2)
        given = torch.from_numpy(inputs)
        if self._ahead is not None:
            given = (given, torch.from_numpy(self._ahead.at(series, ahead)))
        return Batch(
            given, torch.from_numpy(targets.astype(np.float32)), None, torch.from_numpy(valid)
        )

    def _targets(self, series: np.ndarray, ahead: np.ndarray) -> np.ndarray:
        """(N, T, K) in network units; NaN where a value is missing."""
        level = self._level.at(series, ahead + self._lag)[..., 0]
        if self._lag:
            level = (
                level - self._level.at(series, ahead + self._lag - self._times * self._lag)[..., 0]
            )
        offset, scale = (v[series][:, None, None] for v in (self._offset, self._scale))
        return (level - self._times * offset) / (np.sqrt(self._times) * scale)

    @property
    def input_size(self) -> int:
        """I."""
        return self._inputs.width

    @property
    def features(self) -> int:
        """F of what is given of the steps ahead; 0 where it is not."""
        return 0 if self._ahead is None else self._ahead.width


def local_step(model: nn.Module, batch: Batch, state: Any) -> tuple[Any, Any]:
    """The step of `fit` for these batches, with and without what is known of the steps ahead."""
    if isinstance(batch.inputs, tuple):
        inputs, ahead = batch.inputs
        return model(inputs, state, ahead=ahead)
    return model(batch.inputs, state)


def loss_of(output: Output) -> Loss:
    """The output's loss for these batches; for counts their targets hold the scale as well."""

    def loss(raw: Tensor, targets: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        if output.counts:
            return output.loss(raw, targets[..., :-1], valid, targets[..., -1:])
        return output.loss(raw, targets, valid)

    return loss


class _Joined:
    """Arrays (T, ·) one after another, with room between them that holds `filler`."""

    def __init__(self, parts: Sequence[np.ndarray], room: int, filler: float) -> None:
        gap = np.full((room, parts[0].shape[1]), filler, parts[0].dtype)
        self._first = np.cumsum([0, *(len(part) + room for part in parts)])[:-1]
        self._values = np.concatenate([each for part in parts for each in (part, gap)])

    @property
    def width(self) -> int:
        return self._values.shape[1]

    def at(self, series: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """(…, ·): of these series (N,) at these steps (N, …)."""
        first = self._first[series].reshape(-1, *[1] * (steps.ndim - 1))
        return self._values[first + steps]
