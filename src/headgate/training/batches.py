"""Batches: what a fit is fed, and how it is cut by rows (processes) and by steps (pieces)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with every tensor inside its tuples, lists and dicts changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(item, change) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(item, change) for item in value)
    if isinstance(value, dict):
        return {key: map_tensors(item, change) for key, item in value.items()}
    return value


@dataclass(frozen=True)
class Batch:
    """Rows that are trained on at once, rows first.

    Args:
        inputs: (N, T, I), or a tuple, list or dict of tensors whose first axis is N.
        targets: (N, T, …) for one target a step, (N, …) for one a row.
        lengths: (N,) steps of each row; none: every row has all T. What lies past a row's end may
            be NaN.
        valid: which targets count: bool, the leading axes of the targets' shape. None with lengths
            means one target a step, those past a row's end not counting; None without lengths: all
            count.
    """

    inputs: Any
    targets: Any
    lengths: Tensor | None = None
    valid: Tensor | None = None

    def __post_init__(self) -> None:
        if self.lengths is None or not isinstance(self.inputs, Tensor):
            return
        past = self._past_the_end(self.inputs)
        if self.inputs.is_floating_point():
            mask = past.reshape(past.shape + (1,) * (self.inputs.ndim - 2))
            object.__setattr__(self, "inputs", self.inputs.masked_fill(mask, 0))
        if self.valid is not None or not isinstance(self.targets, Tensor) or self.targets.ndim < 2:
            return
        if self.targets.shape[:2] != self.inputs.shape[:2]:
            raise ValueError(
                "Batch: with lengths and no valid, expected one target a step "
                f"{tuple(past.shape)}, got targets {tuple(self.targets.shape)}; give "
                "valid=torch.ones(N, dtype=torch.bool) where there is one target a row"
            )
        object.__setattr__(self, "valid", ~past)

    def _past_the_end(self, inputs: Tensor) -> Tensor:
        assert self.lengths is not None
        steps = torch.arange(inputs.shape[1], device=inputs.device)
        return steps[None, :] >= self.lengths.to(inputs.device)[:, None]

    def __len__(self) -> int:
        return len(self.targets)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """A batch with all four changed alike."""
        values = (self.inputs, self.targets, self.lengths, self.valid)
        return Batch(*(map_tensors(value, change) for value in values))

    def to(self, device: torch.device) -> Batch:
        return self._map(lambda tensor: tensor.to(device))

    def share(self, rank: int, world: int) -> Batch:
        """Rows rank, rank + world, …; where there is none, row 0 with no valid target.

        So every process runs the network on something in every batch, whatever rows there are.
        """
        if rank < len(self):
            return self._map(lambda tensor: tensor[rank::world])
        one = self._map(lambda tensor: tensor[:1])
        return replace(one, valid=torch.zeros_like(one.targets, dtype=torch.bool))

    def pieces(self, steps: int | None) -> Iterator[Batch]:
        """Consecutive pieces of at most `steps` steps; the whole where steps is None."""
        if steps is None:
            yield self
            return
        if not isinstance(self.inputs, Tensor) or self.targets.shape[:2] != self.inputs.shape[:2]:
            raise ValueError(
                "truncated_bptt: expected inputs (N, T, I) and one target a step (N, T, …), which "
                "can be cut into pieces; leave truncated_bptt out for other data"
            )
        for start in range(0, self.inputs.shape[1], steps):
            yield self._steps(start, start + steps)

    def _steps(self, start: int, stop: int) -> Batch:
        inputs, targets = self.inputs[:, start:stop], self.targets[:, start:stop]
        lengths, valid = self.lengths, self.valid
        if lengths is not None:
            lengths = (lengths - start).clamp(0, inputs.shape[1])
        if valid is not None and valid.ndim > 1:
            valid = valid[:, start:stop]
        return Batch(inputs, targets, lengths, valid)


class Batches(Protocol):
    """Anything that gives the k-th epoch's batches, the same each time it is asked.

    `generator` stands in the same state at the beginning of every epoch, the fit's seed; k says
    which epoch.
    """

    def epoch(self, k: int, generator: torch.Generator, /) -> Iterator[Batch]: ...


class ArrayBatches:
    """Rows in memory, cut into batches; ragged rows are padded to the longest of their batch.

    Args:
        inputs: (N, T, I), or a sequence of N arrays (Tₙ, I) of any lengths.
        targets: (N, T, …) or (N, …), or a sequence of N arrays: (Tₙ, …) for one target a step.
        lengths: (N,) where `inputs` is one padded array; found where it is a sequence of arrays.
        valid: as in `Batch`, where `targets` is one array.
        batch_size: rows of a batch; none: all in one.
        shuffle: "never", "once" (one order for all epochs) or "every-epoch".
    """

    def __init__(
        self,
        inputs: Any,
        targets: Any,
        lengths: Any = None,
        *,
        valid: Any = None,
        batch_size: int | None = None,
        shuffle: Literal["never", "once", "every-epoch"] = "every-epoch",
    ) -> None:
        if shuffle not in ("never", "once", "every-epoch"):
            raise ValueError(
                f"ArrayBatches: expected shuffle never, once or every-epoch, got {shuffle!r}"
            )
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"ArrayBatches: expected a batch_size of at least 1, got {batch_size}")
        ragged = not hasattr(inputs, "shape")
        self.inputs = (
            [torch.as_tensor(row) for row in inputs] if ragged else torch.as_tensor(inputs)
        )
        self.targets = _targets(targets)
        if ragged and lengths is None:
            lengths = [len(row) for row in self.inputs]
        self.lengths = None if lengths is None else torch.as_tensor(lengths, dtype=torch.int64)
        self.valid = None if valid is None else torch.as_tensor(valid, dtype=torch.bool)
        self.batch_size = batch_size or max(len(self.inputs), 1)
        self.shuffle = shuffle
        self._check()

    def _check(self) -> None:
        rows = len(self.inputs)
        if not rows:
            raise ValueError("ArrayBatches: expected at least one row, got none")
        for name in ("targets", "lengths", "valid"):
            value = getattr(self, name)
            if value is not None and len(value) != rows:
                raise ValueError(
                    f"ArrayBatches: expected {name} of {rows} rows as inputs, got {len(value)}"
                )
        if isinstance(self.targets, list) and isinstance(self.inputs, list):
            for row, (x, y) in enumerate(zip(self.inputs, self.targets, strict=True)):
                if len(x) != len(y):
                    raise ValueError(
                        f"ArrayBatches: expected one target a step, but row {row} has {len(x)} "
                        f"steps and {len(y)} targets; for one target a row give the targets as "
                        "one array"
                    )

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.batch_size)

    def epoch(self, k: int, generator: torch.Generator) -> Iterator[Batch]:
        rows = len(self.inputs)
        if self.shuffle == "every-epoch":
            generator.manual_seed((generator.initial_seed() * 1_000_003 + k + 1) % 2**63)
        order = (
            torch.arange(rows)
            if self.shuffle == "never"
            else torch.randperm(rows, generator=generator)
        )
        for start in range(0, rows, self.batch_size):
            yield self._batch(order[start : start + self.batch_size])

    def _batch(self, rows: Tensor) -> Batch:
        lengths = None if self.lengths is None else self.lengths[rows]
        valid = None if self.valid is None else self.valid[rows]
        if valid is None and lengths is not None and not self._one_a_step():
            valid = torch.ones(len(rows), dtype=torch.bool)
        return Batch(_take(self.inputs, rows), _take(self.targets, rows), lengths, valid)

    def _one_a_step(self) -> bool:
        if isinstance(self.targets, list):
            return True
        if isinstance(self.inputs, list):
            return False
        return self.targets.shape[:2] == self.inputs.shape[:2]


def _targets(targets: Any) -> Tensor | list[Tensor]:
    if hasattr(targets, "shape") or all(np.ndim(row) == 0 for row in targets):
        return torch.as_tensor(targets)
    return [torch.as_tensor(row) for row in targets]


def _take(values: Tensor | Sequence[Tensor], rows: Tensor) -> Tensor:
    if isinstance(values, Tensor):
        return values[rows]
    return torch.nn.utils.rnn.pad_sequence([values[row] for row in rows.tolist()], batch_first=True)
