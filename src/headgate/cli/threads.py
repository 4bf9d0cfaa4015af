"""How many threads a job is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from headgate.data import Panel

SMALL = 64
"""Units and series up to which a second thread costs more than it brings."""


@contextmanager
def enough_threads(panel: Panel, hidden_size: int) -> Iterator[None]:
    """One thread for a few small series, all of them for more."""
    before = torch.get_num_threads()
    if len(panel) < SMALL and hidden_size < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
