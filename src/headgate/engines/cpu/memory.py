"""Memory that one call leaves to the next.

The values kept for the way back are as large as all activations. Asking the system for fresh pages
at every training step costs as much as computing a small cell, so they are handed on.
"""

from __future__ import annotations

import torch
from torch import Tensor

FREE_AT_MOST = 4
"""Buffers that wait for their next use; more go back to the system."""

free: dict[int, Tensor] = {}
"""By address, the oldest first."""


class Lease:
    """A buffer of one call; when the lease is gone, the next call may have it."""

    def __init__(self, size: int, dtype: torch.dtype) -> None:
        fits = [
            (b.numel(), address)
            for address, b in list(free.items())
            if b.dtype == dtype and size <= b.numel() <= 2 * size + 4096
        ]
        buffer = free.pop(min(fits)[1], None) if fits else None  # another thread may be faster
        if buffer is None:
            with torch.inference_mode(False):  # the next call may be one that trains
                buffer = torch.empty(size, dtype=dtype)
        self._buffer = buffer
        self.data_ptr = buffer.data_ptr

    def __del__(self) -> None:
        free[self._buffer.data_ptr()] = self._buffer
        for address in list(free)[:-FREE_AT_MOST]:
            free.pop(address, None)


def _keep_heap() -> None:
    """glibc's heap is given back and asked for again around every training step, page by page,
    unless something larger than its outputs has once been freed."""
    torch.empty(30 << 20, dtype=torch.uint8)


_keep_heap()
