"""Optimisers, learning-rate schedules, clipping, and the factors of families and gates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from .config import (
    Adam,
    AdamW,
    Cosine,
    Cyclical,
    Exponential,
    FitConfig,
    Lbfgs,
    Piecewise,
    Polynomial,
    RmsProp,
    Sgd,
)


def make_optimizer(parameters: Iterable[nn.Parameter], config: FitConfig) -> torch.optim.Optimizer:
    """torch's optimiser for the configuration, at its full learning rate."""
    parameters, rate, chosen = list(parameters), config.rate, config.optimizer
    match chosen:
        case Sgd():
            return torch.optim.SGD(
                parameters, lr=rate, momentum=chosen.momentum, nesterov=chosen.nesterov
            )
        case RmsProp():
            return torch.optim.RMSprop(parameters, lr=rate, alpha=chosen.decay, eps=chosen.epsilon)
        case AdamW():
            betas = (chosen.beta1, chosen.beta2)
            return torch.optim.AdamW(
                parameters, rate, betas, chosen.epsilon, weight_decay=chosen.weight_decay
            )
        case Adam():
            return torch.optim.Adam(parameters, rate, (chosen.beta1, chosen.beta2), chosen.epsilon)
        case Lbfgs():
            return torch.optim.LBFGS(
                parameters,
                lr=rate,
                max_iter=chosen.iterations,
                history_size=chosen.history,
                line_search_fn="strong_wolfe",
            )


def rate_at(epoch: int, config: FitConfig) -> float:
    """What the learning rate is multiplied by in an epoch, counted from 0."""
    warmup, schedule = config.warmup_epochs, config.schedule
    if epoch < warmup:
        return (epoch + 1) / (warmup + 1)
    epoch, epochs = epoch - warmup, config.epochs - warmup
    match schedule:
        case Piecewise():
            return schedule.factor ** (epoch // schedule.period)
        case Exponential():
            return schedule.factor**epoch
        case Cosine():
            wave = (1 + math.cos(math.pi * epoch / epochs)) / 2
            return schedule.final + (1 - schedule.final) * wave
        case Polynomial():
            return (1 - min(epoch, epochs) / epochs) ** schedule.power
        case Cyclical():
            height = 1 - abs(2 * (epoch % schedule.period) / schedule.period - 1)
            return schedule.low + (1 - schedule.low) * height
    return 1.0


def make_schedule(optimizer: torch.optim.Optimizer, config: FitConfig, epoch: int) -> LambdaLR:
    """The schedule, standing at `epoch` (from 0); `step()` moves it to the next."""
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    return LambdaLR(optimizer, lambda k: rate_at(k, config), last_epoch=epoch - 1)


def clip_gradients(parameters: list[nn.Parameter], config: FitConfig) -> float:
    """Clip in place; returns the norm of all gradients together before it."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = float(nn.utils.get_total_norm(gradients))
    limit = config.gradient_clip
    if limit is None:
        return norm
    if config.clip_method == "norm":
        for parameter in parameters:
            nn.utils.clip_grad_norm_([parameter], limit)
    elif config.clip_method == "global-norm":
        nn.utils.clip_grad_norm_(parameters, limit)
    else:
        nn.utils.clip_grad_value_(parameters, limit)
    return norm


class Factors:
    """Rows of parameters and the factor of each, from {"W": 0.5, "b.f": 2}.

    Blocks come from the `blocks()` of any layer inside the model. A gate's own entry goes before
    its family's. Only rows whose factor is not 1 are listed.
    """

    def __init__(self, model: nn.Module, factors: dict[str, float], what: str) -> None:
        self.rows: list[tuple[Tensor, slice, float]] = []
        known: set[str] = set()
        for parameter, family, block, rows in _blocks(model):
            gate = f"{family}.{block}"
            known |= {family, gate} if block else {family}
            factor = factors.get(gate, factors.get(family, 1.0))
            if factor != 1 and parameter.requires_grad:
                self.rows.append((parameter, rows, factor))
        if unknown := sorted(set(factors) - known):
            names = ", ".join(sorted(known)) or "none: no layer of this model has named families"
            raise ValueError(
                f"{what}: expected families or gates of the model ({names}), got {unknown}"
            )

    def values(self) -> list[Tensor]:
        return [parameter.detach()[rows].clone() for parameter, rows, _ in self.rows]

    @torch.no_grad()
    def scale_update(self, before: list[Tensor]) -> None:
        """p = before + factor·(p − before) for every listed block of rows."""
        for (parameter, rows, factor), start in zip(self.rows, before, strict=True):
            parameter[rows] = start + factor * (parameter[rows] - start)


class Penalty:
    """½·l2·Σ factor·p², by its gradient l2·factor·p and by its value."""

    def __init__(self, model: nn.Module, parameters: list[nn.Parameter], config: FitConfig) -> None:
        self.l2, self.parameters = config.l2, parameters
        factors = Factors(model, config.l2_factors, "l2_factors")
        self.scale = {id(p): torch.ones_like(p) for p, _, _ in factors.rows}
        for parameter, rows, factor in factors.rows:
            self.scale[id(parameter)][rows] = factor

    def _scaled(self, parameter: Tensor) -> Tensor:
        scale = self.scale.get(id(parameter))
        return parameter if scale is None else parameter * scale

    @torch.no_grad()
    def add_gradient(self) -> None:
        if self.l2:
            for parameter in self.parameters:
                assert parameter.grad is not None
                parameter.grad.add_(self._scaled(parameter), alpha=self.l2)

    @torch.no_grad()
    def value(self) -> float:
        if not self.l2:
            return 0.0
        return sum(float((self._scaled(p) * p).sum()) for p in self.parameters) * self.l2 / 2


def _blocks(model: nn.Module) -> Iterator[tuple[Tensor, str, str, slice]]:
    """Every block of rows once, also where a layer holds another that lists the same."""
    seen: set[tuple[int, int, int]] = set()
    for module in model.modules():
        blocks: Any = getattr(module, "blocks", None)
        if isinstance(module, nn.ModuleList | nn.ModuleDict) or not callable(blocks):
            continue
        listed: Any = blocks()
        for block in listed:
            parameter = block.parameter
            if isinstance(parameter, str):
                parameter = module.get_parameter(parameter)
            key = (id(parameter), block.rows.start or 0, block.rows.stop or 0)
            if key not in seen:
                seen.add(key)
                yield parameter, block.family, block.block, block.rows
