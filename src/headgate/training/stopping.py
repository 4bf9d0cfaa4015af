"""When a fit stops, and how it says so."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from .config import FitConfig


@dataclass(frozen=True)
class EpochRecord:
    """One epoch. `train_loss` is the mean over its batches, each before its update."""

    epoch: int
    """From 1."""
    train_loss: float
    validation_loss: float | None
    learning_rate: float
    gradient_norm: float
    """Norm of all gradients together before clipping, mean over the epoch's updates."""
    seconds: float
    """Since the fit began, earlier parts of a resumed fit included."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Stop:
    """Why a fit ended: epochs, time, patience, threshold, tolerance or interrupted."""

    reason: str
    sentence: str


def watched(history: Sequence[EpochRecord], validated: bool) -> list[tuple[int, float]]:
    """(epoch, watched loss): validation's where there is validation, else training's."""
    losses = [(r.epoch, r.validation_loss if validated else r.train_loss) for r in history]
    return [(epoch, loss) for epoch, loss in losses if loss is not None]


def best_epoch(history: Sequence[EpochRecord]) -> int | None:
    """The first epoch of the lowest validation loss; None where nothing was validated."""
    losses = [(r.validation_loss, r.epoch) for r in history if r.validation_loss is not None]
    return min(losses)[1] if losses else None


def decide(
    history: Sequence[EpochRecord], config: FitConfig, validated: bool, seconds: float
) -> Stop | None:
    """The first rule that holds after the last whole epoch, or None. Depends on nothing else."""
    if not history:
        return None
    name = "validation" if validated else "training"
    losses = watched(history, validated)
    fresh = bool(losses) and losses[-1][0] == history[-1].epoch
    if fresh:
        loss = losses[-1][1]
        if config.loss_threshold is not None and loss <= config.loss_threshold:
            return Stop(
                "threshold", f"the {name} loss {loss:.6g} is at or under {config.loss_threshold:g}"
            )
        if config.tolerance is not None and len(losses) > 1:
            before = losses[-2][1]
            if abs(loss - before) < config.tolerance * abs(before):
                return Stop(
                    "tolerance",
                    f"the {name} loss changed from {before:.6g} to {loss:.6g}, by less than a "
                    f"share of {config.tolerance:g}",
                )
        waited = _validations_without_improvement([loss for _, loss in losses], config.min_delta)
        if config.patience is not None and waited >= config.patience:
            return Stop("patience", f"the validation loss was not better {waited} times in a row")
    if config.max_seconds is not None and seconds >= config.max_seconds:
        return Stop("time", f"{seconds:.1f} s passed, the limit is {config.max_seconds:g} s")
    if history[-1].epoch >= config.epochs:
        return Stop("epochs", f"all {config.epochs} epochs are done")
    return None


def _validations_without_improvement(losses: Sequence[float], min_delta: float) -> int:
    best, waited = float("inf"), 0
    for loss in losses:
        better = loss < best - min_delta
        best, waited = (loss, 0) if better else (best, waited + 1)
    return waited


class Clock:
    """Seconds of training, going on from an earlier part."""

    def __init__(self, before: float = 0.0) -> None:
        self.start = time.monotonic() - before

    def seconds(self) -> float:
        return time.monotonic() - self.start


class Interrupt:
    """Within it, the first Ctrl-C is noted in `.came`; the second raises KeyboardInterrupt.

    A handler of the caller's own, or another thread than the main one, is left as it is.
    """

    def __init__(self) -> None:
        self.came = False
        self._installed = False

    def __enter__(self) -> Interrupt:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
            self._installed = True
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *_: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
