"""Layouts: from any input that a layer accepts to (T, N, I) with lengths, and back.

Steps come first inside the library. What a user gives (rows first, one sequence without a batch
axis, a ``PackedSequence``) is brought to that layout here, and outputs, states and recorded values
are brought back, so that no other file knows of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


@dataclass(frozen=True)
class Batch:
    """Input (T, N, I) with lengths (N,) or None where every row has all T steps.

    Rows stand in the order the user gave them, also those of a sorted ``PackedSequence``.
    """

    x: Tensor
    lengths: Tensor | None
    batch_first: bool
    unbatched: bool
    packed: PackedSequence | None

    @property
    def rows(self) -> int:
        return self.x.shape[1]

    def output(self, y: Tensor) -> Tensor | PackedSequence:
        """A layer's output (T, N, H) in the layout of the input."""
        if self.packed is None:
            return self.sequence(y)
        order = self.packed.sorted_indices
        lengths = _packed_lengths(self.packed)
        if order is not None:
            y = y.index_select(1, order)
        data = pack_padded_sequence(y, lengths).data
        return PackedSequence(data, self.packed.batch_sizes, order, self.packed.unsorted_indices)

    def sequence(self, value: Tensor) -> Tensor:
        """A value of every step (…, T, N, width) as (…, N, T, width) or (…, T, width)."""
        if self.unbatched:
            return value.squeeze(-2)
        if self.batch_first and self.packed is None:
            return value.transpose(-3, -2)
        return value

    def state(self, value: Tensor) -> Tensor:
        """A state (…, N, width), without its batch axis where the input had none."""
        return value.squeeze(-2) if self.unbatched else value

    def valid(self) -> Tensor | None:
        """Which steps are inside their row: (T, N, 1), or None where all are."""
        if self.lengths is None:
            return None
        steps = torch.arange(self.x.shape[0], device=self.x.device)
        return (steps[:, None] < self.lengths[None, :]).unsqueeze(-1)


def enter(
    what: str,
    input: Tensor | PackedSequence,
    lengths: Any,
    *,
    batch_first: bool,
) -> Batch:
    """Bring ``input`` to (T, N, I). ``what`` opens the error messages."""
    if isinstance(input, PackedSequence):
        if lengths is not None:
            raise ValueError(
                f"{what}: a PackedSequence holds its own lengths, but lengths= came as well; "
                "leave lengths out"
            )
        padded, sizes = pad_packed_sequence(input)
        return Batch(padded, _ragged(sizes, padded), batch_first, False, input)
    if not isinstance(input, Tensor):
        raise TypeError(
            f"{what}: expected a tensor or a PackedSequence as input, got {type(input).__name__}; "
            "make a tensor of it first"
        )
    if input.dim() not in (2, 3):
        axes = "(N, T, I)" if batch_first else "(T, N, I)"
        raise ValueError(
            f"{what}: expected input of shape {axes}, or (T, I) for one sequence, got "
            f"{tuple(input.shape)}; reshape it"
        )
    unbatched = input.dim() == 2
    x = input.unsqueeze(1) if unbatched else input
    if batch_first and not unbatched:
        x = x.transpose(0, 1)
    return Batch(x, ragged(what, lengths, x), batch_first, unbatched, None)


def ragged(what: str, lengths: Any, x: Tensor) -> Tensor | None:
    """Lengths of the rows of x (T, N, I), or None where every row has all steps."""
    if lengths is None:
        return None
    return _ragged(check_lengths(what, lengths, steps=x.shape[0], rows=x.shape[1]), x)


def check_lengths(what: str, lengths: Any, *, steps: int, rows: int) -> Tensor:
    """``lengths`` as an int64 tensor (N,) on the CPU, a copy: the way back reads it too.

    Raises TypeError unless they are integers, ValueError unless there is one a row in 0…T.
    """
    whole = lengths if isinstance(lengths, Tensor) else torch.as_tensor(_listed(what, lengths))
    if whole.numel() and (whole.is_floating_point() or whole.dtype == torch.bool):
        raise TypeError(
            f"{what}: lengths must be integers, got {str(whole.dtype).removeprefix('torch.')}; "
            "count the steps of each row"
        )
    whole = whole.to("cpu", torch.int64, copy=True)
    if whole.dim() == 0 and rows == 1:
        whole = whole.reshape(1)
    if whole.shape != (rows,):
        raise ValueError(
            f"{what}: expected one length a row, shape ({rows},), got {tuple(whole.shape)}"
        )
    if rows:
        numbers = whole.tolist()
        least, most = min(numbers), max(numbers)
        if least < 0 or most > steps:
            raise ValueError(
                f"{what}: lengths must lie in 0…{steps}, the steps of the input, got {least}…{most}"
            )
    return whole


def _listed(what: str, lengths: Any) -> Any:
    if isinstance(lengths, Sequence) and not isinstance(lengths, str):
        return list(lengths)
    if isinstance(lengths, int) or hasattr(lengths, "__array__"):
        return lengths
    raise TypeError(
        f"{what}: lengths must be a list, an array or a tensor of integers, got "
        f"{type(lengths).__name__}"
    )


def _ragged(lengths: Tensor, x: Tensor) -> Tensor | None:
    """Lengths beside ``x``, or None where every row has all steps."""
    if not lengths.numel() or min(lengths.tolist()) == x.shape[0]:
        return None
    return lengths if x.is_cpu else lengths.to(x.device)


def _packed_lengths(packed: PackedSequence) -> Tensor:
    """Lengths of the rows in the packed, falling order."""
    rows = torch.arange(int(packed.batch_sizes[0]))
    return (packed.batch_sizes[None, :] > rows[:, None]).sum(1)
