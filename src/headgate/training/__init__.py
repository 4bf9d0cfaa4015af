"""One explicit fit loop for every task; losses, optimisers, stopping rules, checkpoints."""

from __future__ import annotations

from .batches import ArrayBatches, Batch, Batches
from .checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from .config import FitConfig
from .fit import FitResult, fit
from .gradients import GradientWarning
from .losses import make_loss
from .stopping import EpochRecord
from .update import NonFiniteLossError

__all__ = [
    "ArrayBatches",
    "Batch",
    "Batches",
    "Checkpoint",
    "CheckpointError",
    "EpochRecord",
    "FitConfig",
    "FitResult",
    "GradientWarning",
    "NonFiniteLossError",
    "fit",
    "load_checkpoint",
    "make_loss",
    "save_checkpoint",
]
