"""Memory that one call leaves to the next.

The values kept for the way back are as large as all activations. Asking the system for fresh pages
at every training step costs as much as computing a small cell, so they are handed on.
"""

from __future__ import annotations

import torch
from torch import Tensor

FREE_AT_MOST = 4
"""Buffers that wait for their next use; more go back to the system."""

_free: list[Tensor] = []


class Lease:
    """Buffers of one call; when it is gone, the next call may have them."""

    def __init__(self, like: Tensor, cleared: bool) -> None:
        self._like, self._cleared = like, cleared
        self._held: list[Tensor] = []

    def room(self, *shapes: tuple[int, ...]) -> list[Tensor]:
        """Tensors of the dtype of ``like``, side by side in one buffer."""
        sizes = [torch.Size(shape).numel() for shape in shapes]
        at = [0]
        for size in sizes:
            at.append(at[-1] + -(-size // 16) * 16)
        buffer = self._buffer(at[-1])
        if self._cleared:
            buffer[: at[-1]].zero_()
        return [
            buffer[start : start + size].view(shape)
            for start, size, shape in zip(at, sizes, shapes, strict=False)
        ]

    def _buffer(self, size: int) -> Tensor:
        dtype = self._like.dtype
        fits = [b for b in _free if b.dtype == dtype and size <= b.numel() <= 2 * size + 4096]
        if fits:
            buffer = min(fits, key=Tensor.numel)
            _free[:] = [b for b in _free if b is not buffer]
        else:
            with torch.inference_mode(False):  # the next call may be one that trains
                buffer = torch.empty(size, dtype=dtype)
        self._held.append(buffer)
        return buffer

    def __del__(self) -> None:
        _free.extend(self._held)
        del _free[:-FREE_AT_MOST]
