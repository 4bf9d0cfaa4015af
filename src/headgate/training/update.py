"""One update: forward, loss over valid targets, backward, clipping, penalty, optimiser, factors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .batches import Batch, map_tensors
from .config import FitConfig
from .distributed import World
from .gradients import GradientWatch
from .losses import Loss
from .optimizers import Factors, Penalty, clip_gradients, make_optimizer

Step = Callable[[nn.Module, Batch, Any], tuple[Any, Any]]


class NonFiniteLossError(ArithmeticError):
    """The loss or a gradient became infinite or NaN; the message says where and what to try."""


@dataclass
class Tally:
    """What adds up over an epoch in all processes; whether one was interrupted or is late."""

    total: float = 0.0
    count: float = 0.0
    norms: float = 0.0
    updates: int = 0
    interrupted: bool = False
    late: bool = False

    @property
    def loss(self) -> float:
        return self.total / self.count if self.count else math.nan

    @property
    def gradient_norm(self) -> float:
        return self.norms / self.updates if self.updates else 0.0


class _Forward(nn.Module):
    """The task's step as a module, so that DistributedDataParallel sees whatever the step runs."""

    def __init__(self, model: nn.Module, step: Step) -> None:
        super().__init__()
        self.model, self.step = model, step

    def forward(self, batch: Batch, state: Any) -> tuple[Any, Any]:
        return self.step(self.model, batch, state)


class Updater:
    """Updates the model's parameters by one batch, or by all of them at once (L-BFGS).

    `halt()` gives (interrupted, late) of this process; all processes hear of it in the tally.
    """

    def __init__(
        self,
        model: nn.Module,
        step: Step,
        loss: Loss,
        config: FitConfig,
        world: World,
        halt: Callable[[], tuple[bool, bool]],
    ) -> None:
        self.model, self.step, self.loss, self.config = model, step, loss, config
        self.world, self.halt = world, halt
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError(
                "fit: expected a model with parameters to train, got none that requires a gradient"
            )
        self.optimizer = make_optimizer(self.parameters, config)
        self.factors = Factors(model, config.learning_rate_factors, "learning_rate_factors")
        self.penalty = Penalty(model, self.parameters, config)
        self.watch = None
        if config.watch_gradients and world.first:
            self.watch = GradientWatch(model, self.parameters)
        self.forward = world.wrap(_Forward(model, step))

    def mine(self, batch: Batch) -> Batch:
        return batch.share(self.world.rank, self.world.size).to(self.world.device)

    def train(self, batch: Batch, tally: Tally, where: str) -> None:
        """An update for every piece of the batch, the state carried on without its gradient."""
        state = None
        for piece in self.mine(batch).pieces(self.config.truncated_bptt):
            total, count, state = self._measure(piece, state, tally, where)
            state = map_tensors(state, Tensor.detach)
            self.optimizer.zero_grad()
            (total * (self.world.size / count if count else 0.0)).backward()
            if not count:
                continue
            tally.norms += self._gradients(where)
            tally.updates += 1
            before = self.factors.values()
            self.optimizer.step()
            self.factors.scale_update(before)

    def train_together(self, batches: Iterable[Batch], tally: Tally, where: str) -> None:
        """One step of L-BFGS on all batches as one function of the parameters."""
        shares = [self.mine(batch) for batch in batches]
        if not shares:
            return

        def closure() -> float:
            seen = Tally()
            place = "" if tally.updates else where  # a line search may look too far, and turn back
            with fork_randomness(self.world.device):  # with dropout, the same masks at every call
                self._whole_gradient(shares, seen, place)
            norm = self._gradients(place)
            if not tally.updates:
                tally.total, tally.count, tally.norms, tally.updates = (
                    seen.total,
                    seen.count,
                    norm,
                    1,
                )
            tally.interrupted |= seen.interrupted
            tally.late |= seen.late
            return seen.loss + self.penalty.value()

        self.optimizer.step(closure)

    def _whole_gradient(self, shares: list[Batch], seen: Tally, where: str) -> None:
        self.optimizer.zero_grad()
        for share in shares:
            total, _, _ = self._measure(share, None, seen, where)
            (total * self.world.size).backward()
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad /= seen.count or 1

    def evaluate(self, batch: Batch, tally: Tally) -> None:
        """Add the batch's loss to the tally; the whole of every row in one piece."""
        share = self.mine(batch)
        prediction, _ = self.step(self.model, share, None)
        total, count = self.world.sum(*self.loss(prediction, share.targets, share.valid))
        tally.total += total
        tally.count += count

    def _measure(
        self, batch: Batch, state: Any, tally: Tally, where: str
    ) -> tuple[Tensor, float, Any]:
        prediction, state = self.forward(batch, state)
        total, count = self.loss(prediction, batch.targets, batch.valid)
        if self.world.size > 1:  # every parameter takes part, or the others would wait for it
            total = total + sum(p.sum() for p in self.parameters) * 0.0
        everywhere, count, interrupted, late = self.world.sum(total.detach(), count, *self.halt())
        if where and not math.isfinite(everywhere):
            self._complain("loss", everywhere / count if count else everywhere, where)
        tally.total += everywhere
        tally.count += count
        tally.interrupted |= bool(interrupted)
        tally.late |= bool(late)
        return total, count, state

    def _gradients(self, where: str) -> float:
        """Clip, then add the penalty. A parameter the loss does not reach has a zero gradient."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.watch is not None and where:
            self.watch.look(where)
        norm = clip_gradients(self.parameters, self.config)
        if where and not math.isfinite(norm):
            self._complain("gradient's norm", norm, where)
        self.penalty.add_gradient()
        return norm

    def _complain(self, what: str, value: float, where: str) -> None:
        rate = self.optimizer.param_groups[0]["lr"]
        raise NonFiniteLossError(
            f"fit: expected a finite number, but the {what} of {where} is {value}; try a smaller "
            f"learning_rate (now {rate:g}) or a gradient_clip, and look for NaN, infinite or "
            "unscaled values in the inputs and the valid targets"
        )


def fork_randomness(device: torch.device):
    """Random numbers inside leave torch's generators as they were."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
