"""The processes of one fit. A fit by itself is a world of one.

Started by `torchrun`, every process takes its share of each batch's rows. The loss is divided by
the valid targets of all processes, so the gradients are those of one process with the whole batch.
"""

from __future__ import annotations

import atexit
import gc
import os
from typing import Any

import torch
from torch import distributed, nn


class World:
    """This process's rank, how many there are, and what they tell one another."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.rank, self.size = device, 0, 1
        if not distributed.is_available():
            return
        if not distributed.is_initialized() and {"RANK", "WORLD_SIZE"} <= os.environ.keys():
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
            atexit.register(_leave)
        if distributed.is_initialized():
            self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module whose backward pass averages gradients over all processes."""
        if self.size == 1:
            return module
        return nn.parallel.DistributedDataParallel(module)

    def sum(self, *values: float | torch.Tensor) -> list[float]:
        """Sums over all processes, the same on each."""
        numbers = [float(value) for value in values]
        if self.size == 1:
            return numbers
        tensor = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor)
        return tensor.tolist()

    def from_first(self, value: Any) -> Any:
        """Process 0's value."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, device=self.device)
        return box[0]


def _leave() -> None:
    """Ends the group's threads while the interpreter still lives: one that frees a tensor later
    brings the process down. Modules wrapped in cycles would keep the group."""
    if distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()
