"""The fit loop that every task shares."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .batches import Batch, Batches
from .checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    on_cpu,
    same_shapes,
    save_checkpoint,
)
from .config import FitConfig
from .distributed import World
from .losses import Loss, make_loss
from .optimizers import make_schedule
from .progress import Bar
from .stopping import Clock, EpochRecord, Interrupt, Stop, best_epoch, decide
from .update import NonFiniteLossError, Step, Tally, Updater, fork_randomness


@dataclass(frozen=True)
class FitResult:
    """How a fit went.

    `stop_reason` is one of epochs, time, patience, threshold, tolerance, interrupted.
    """

    stop_reason: str
    stop_sentence: str
    epochs: int
    """Whole epochs, those before a resume included."""
    best_epoch: int | None
    """The epoch, from 1, of the lowest validation loss; None without validation."""
    best_loss: float | None
    seconds: float
    history: list[EpochRecord]

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON can hold it."""
        return {**self.__dict__, "history": [record.to_dict() for record in self.history]}


def forward(model: nn.Module, batch: Batch, state: Any) -> tuple[Any, Any]:
    """The default step: model(inputs, state, lengths=lengths) → (prediction, state)."""
    return model(batch.inputs, state, lengths=batch.lengths)


def fit(
    model: nn.Module,
    batches: Batches,
    *,
    loss: str | Loss,
    config: FitConfig | None = None,
    validation: Batches | None = None,
    step: Step = forward,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> FitResult:
    """Train `model` in place until a rule of `config` stops it.

    The seed fixes the order of the batches and all random numbers inside (torch, NumPy and Python
    start every epoch anew, and are put back afterwards); initial weights are the caller's. The
    first Ctrl-C ends training after the batch, the second at once.

    With `watch_gradients` it warns (GradientWarning), once of each, where the gradient of the
    recurrent weights vanishes or explodes.

    Under `torchrun` each process takes its share of every batch's rows, and the first one writes.

    Args:
        batches: gives every epoch's batches, such as `ArrayBatches`.
        loss: a name of `headgate.training.losses`, or a callable as described there.
        validation: batches on which the loss is measured after an epoch.
        step: (model, batch, state) → (prediction, state); state is None at a row's beginning.
        checkpoint: a folder to write checkpoints to.
        resume: go on from the folder's checkpoint, to the same numbers as if never stopped; start
            where the folder holds none.
        progress: show a bar, if standard error is a terminal.

    Raises:
        NonFiniteLossError: the loss or the gradient is infinite or NaN.
        CheckpointError: the folder's checkpoint is of another model or configuration.
        ValueError: settings that do not fit together.
    """
    config = config or FitConfig()
    if config.patience is not None and validation is None:
        raise ValueError(
            "fit: patience counts validations, but there is no validation; give validation= or "
            "leave patience out"
        )
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    interrupt, was_training = Interrupt(), model.training
    run = _Run(model, batches, make_loss(loss), config, validation, step, World(device), interrupt)
    if checkpoint is not None:
        run.open(checkpoint, resume)
    elif resume:
        raise ValueError(
            "fit: resume=True continues a checkpoint; say which folder with checkpoint="
        )
    shown = progress and run.world.first
    with _private_randomness(device), interrupt, Bar(config.epochs, shown, len(run.history)) as bar:
        try:
            return run.until_stopped(bar)
        finally:
            model.train(was_training)


class _Run:
    """A fit under way: the model, its optimiser, and what has happened so far."""

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        loss: Loss,
        config: FitConfig,
        validation: Batches | None,
        step: Step,
        world: World,
        interrupt: Interrupt,
    ) -> None:
        self.model, self.batches, self.config, self.validation = model, batches, config, validation
        self.loss, self.world, self.interrupt = loss, world, interrupt
        self.updater = Updater(model, step, loss, config, world, self._halt)
        self.history: list[EpochRecord] = []
        self.best: Mapping[str, Tensor] | None = None
        self.folder: str | os.PathLike[str] | None = None
        self.clock = Clock()

    def _halt(self) -> tuple[bool, bool]:
        limit = self.config.max_seconds
        return self.interrupt.came, limit is not None and self.clock.seconds() >= limit

    def open(self, folder: str | os.PathLike[str], resume: bool) -> None:
        """Take up the folder's checkpoint where there is one."""
        self.folder = folder
        found = load_checkpoint(folder)
        if found is None:
            return
        if not resume:
            raise CheckpointError(
                f"fit: {os.fspath(folder)} holds the checkpoint of an earlier fit, after epoch "
                f"{found.state['epoch']}; continue it with resume=True, or remove the folder to "
                "start again"
            )
        for name, value in self._identity().items():
            if found.state["identity"].get(name) != value:
                raise CheckpointError(
                    f"resume: expected {name} {found.state['identity'].get(name)!r} as in the "
                    f"checkpoint, got {value!r}; give the same, or remove the folder to start "
                    "again"
                )
        same_shapes(self.model, found.model)
        self.model.load_state_dict(found.model)
        self.updater.optimizer.load_state_dict(found.optimizer)
        self.history = [EpochRecord(**record) for record in found.state["history"]]
        self.best = found.best
        self.clock = Clock(found.state["seconds"])

    def _identity(self) -> dict[str, Any]:
        loss = repr(self.loss) if type(self.loss).__module__.startswith("headgate.") else "your own"
        return {**self.config.identity(), "loss": loss, "validation": self.validation is not None}

    def until_stopped(self, bar: Bar) -> FitResult:
        schedule = make_schedule(self.updater.optimizer, self.config, len(self.history))
        stop = self._decide()
        while stop is None:
            stop = self._epoch(bar)
            if stop is None:
                schedule.step()
        if self.best is not None:
            self.model.load_state_dict(self.best)
        best = best_epoch(self.history)
        return FitResult(
            stop.reason,
            stop.sentence,
            len(self.history),
            best,
            None if best is None else self.history[best - 1].validation_loss,
            self.clock.seconds(),
            self.history,
        )

    def _decide(self) -> Stop | None:
        seconds = self.history[-1].seconds if self.history else 0.0
        return decide(self.history, self.config, self.validation is not None, seconds)

    def _epoch(self, bar: Bar) -> Stop | None:
        """Train and validate once. An epoch cut short leaves no record: a resume does it again."""
        epoch = len(self.history) + 1
        _seed(self.config.seed, epoch, self.world.rank)
        tally = Tally()
        stop = self._train(epoch, tally)
        if stop is not None:
            return stop
        validated = self._validate(epoch)
        record = EpochRecord(
            epoch,
            tally.loss,
            validated,
            self.updater.optimizer.param_groups[0]["lr"],
            tally.gradient_norm,
            self.world.from_first(self.clock.seconds()),
        )
        self.history.append(record)
        if self.config.keep == "best" and best_epoch(self.history) == epoch:
            self.best = on_cpu(self.model.state_dict())
        bar.show(record)
        stop = self._decide()
        if tally.interrupted and stop is None:
            stop = Stop("interrupted", f"interrupted after epoch {epoch}")
        if stop is not None or epoch % self.config.checkpoint_every == 0:
            self._save(epoch)
        return stop

    def _train(self, epoch: int, tally: Tally) -> Stop | None:
        self.model.train()
        batches = self.batches.epoch(epoch - 1, self._generator())
        if self.config.optimizer.kind == "lbfgs":
            self.updater.train_together(batches, tally, f"epoch {epoch}")
        else:
            for number, batch in enumerate(batches, 1):
                if tally.interrupted or tally.late:
                    word = "interrupted" if tally.interrupted else "time"
                    return Stop(word, f"{_CUT[word]} in epoch {epoch}, after batch {number - 1}")
                self.updater.train(batch, tally, f"epoch {epoch}, batch {number}")
        if not tally.count:
            raise ValueError(
                f"fit: expected a valid target in epoch {epoch}, got none in all its batches; "
                "look at lengths and valid"
            )
        return None

    @torch.no_grad()
    def _validate(self, epoch: int) -> float | None:
        if self.validation is None or epoch % self.config.validation_every:
            return None
        self.model.eval()
        tally = Tally()
        for batch in self.validation.epoch(0, self._generator()):
            self.updater.evaluate(batch, tally)
        if not np.isfinite(tally.loss):
            raise NonFiniteLossError(
                f"fit: expected a finite validation loss, but after epoch {epoch} it is "
                f"{tally.loss}; try a smaller learning_rate, and look for NaN or for no valid "
                "targets in the validation data"
            )
        return tally.loss

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.config.seed)

    def _save(self, epoch: int) -> None:
        if self.folder is None or not self.world.first:
            return
        state = {
            "epoch": epoch,
            "identity": self._identity(),
            "history": [record.to_dict() for record in self.history],
            "seconds": self.clock.seconds(),
        }
        optimizer = self.updater.optimizer.state_dict()
        parts = Checkpoint(state, self.model.state_dict(), optimizer, self.best)
        save_checkpoint(self.folder, epoch, parts)


_CUT = {"interrupted": "interrupted", "time": "out of time"}


def _seed(*numbers: int) -> None:
    """Start all generators anew from seed, epoch and rank: a checkpoint need not hold them."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint32)[0])
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextmanager
def _private_randomness(device: torch.device) -> Iterator[None]:
    """What is drawn inside leaves the caller's generators as they were."""
    states = np.random.get_state(), random.getstate()
    with fork_randomness(device):
        try:
            yield
        finally:
            np.random.set_state(states[0])
            random.setstate(states[1])
