"""Losses by name. Each is averaged over the valid targets only, so padding has no effect.

A loss is any callable (prediction, targets, valid) → (total, count): the sum of the losses of the
valid targets, and the number, or weight, to divide by. `fit` divides after adding up all processes.
`valid` is a bool tensor whose shape is the leading part of the targets', or None where every
target counts; a process may hold rows of which none is. What is not valid may hold NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


def _same_shape(name: str, prediction: Tensor, targets: Tensor) -> None:
    if prediction.shape != targets.shape:
        raise ValueError(
            f"{name}: expected a prediction of the targets' shape {tuple(targets.shape)}, got "
            f"{tuple(prediction.shape)}; give the network as many outputs as there are targets"
        )


def _only_valid(value: Tensor, targets: Tensor, valid: Tensor | None) -> Tensor:
    """The valid targets' entries (V, …) of `value`, whose leading axes are the targets'."""
    if valid is None:
        return value.flatten(0, max(targets.ndim - 1, 0)) if targets.ndim > 1 else value
    if tuple(valid.shape) != tuple(targets.shape[: valid.ndim]):
        raise ValueError(
            f"loss: expected valid with the targets' leading axes {tuple(targets.shape)}, got "
            f"{tuple(valid.shape)}; one entry a row, a step or a target"
        )
    return value[valid]


def _mean_over_valid(
    elements: Callable[[Tensor, Tensor], Tensor],
    prediction: Tensor,
    targets: Tensor,
    valid: Tensor | None,
) -> tuple[Tensor, Tensor]:
    prediction = _only_valid(prediction, targets, valid)
    targets = _only_valid(targets, targets, valid)
    losses = elements(prediction, targets)
    return losses.sum(), torch.tensor(float(losses.numel()), dtype=torch.float64)


@dataclass(frozen=True)
class MeanSquaredError:
    """(ŷ − y)², prediction and targets of one shape."""

    def __call__(self, prediction: Tensor, targets: Tensor, valid: Tensor | None):
        _same_shape("mse", prediction, targets)
        return _mean_over_valid(lambda p, y: (p - y).square(), prediction, targets, valid)


@dataclass(frozen=True)
class MeanAbsoluteError:
    """|ŷ − y|, prediction and targets of one shape."""

    def __call__(self, prediction: Tensor, targets: Tensor, valid: Tensor | None):
        _same_shape("mae", prediction, targets)
        return _mean_over_valid(lambda p, y: (p - y).abs(), prediction, targets, valid)


@dataclass(frozen=True)
class Huber:
    """½e² where |e| ≤ delta, else delta·(|e| − ½delta), with e = ŷ − y (Huber 1964)."""

    delta: float = 1.0

    def __post_init__(self) -> None:
        if not self.delta > 0:
            raise ValueError(f"huber: expected delta above 0, got {self.delta}")

    def __call__(self, prediction: Tensor, targets: Tensor, valid: Tensor | None):
        _same_shape("huber", prediction, targets)

        def elements(p: Tensor, y: Tensor) -> Tensor:
            return functional.huber_loss(p, y, reduction="none", delta=self.delta)

        return _mean_over_valid(elements, prediction, targets, valid)


@dataclass(frozen=True)
class Pinball:
    """max(q·e, (q − 1)·e) with e = y − ŷ for each quantile q (Koenker & Bassett 1978).

    The prediction has one more, last axis than the targets: a value for each quantile.
    """

    quantiles: Sequence[float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantiles", tuple(float(q) for q in self.quantiles))
        if not self.quantiles or not all(0 < q < 1 for q in self.quantiles):
            raise ValueError(f"pinball: expected quantiles between 0 and 1, got {self.quantiles}")

    def __call__(self, prediction: Tensor, targets: Tensor, valid: Tensor | None):
        expected = (*targets.shape, len(self.quantiles))
        if tuple(prediction.shape) != expected:
            raise ValueError(
                f"pinball: expected a prediction {expected}, the targets' shape and one value for "
                f"each of {len(self.quantiles)} quantiles, got {tuple(prediction.shape)}"
            )

        def elements(p: Tensor, y: Tensor) -> Tensor:
            q = torch.tensor(self.quantiles, dtype=p.dtype, device=p.device)
            error = y.unsqueeze(-1) - p
            return torch.maximum(q * error, (q - 1) * error)

        return _mean_over_valid(elements, prediction, targets, valid)


@dataclass(frozen=True)
class CrossEntropy:
    """−log softmax(ŷ)[y]: prediction (…, C) of scores, targets (…) of class numbers.

    With `class_weights` (C,) it is Σ wᵧ·loss / Σ wᵧ over the valid targets, as in torch.
    """

    class_weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.class_weights is not None:
            object.__setattr__(self, "class_weights", tuple(float(w) for w in self.class_weights))

    def __call__(self, prediction: Tensor, targets: Tensor, valid: Tensor | None):
        if prediction.shape[:-1] != targets.shape:
            raise ValueError(
                f"cross_entropy: expected scores {(*targets.shape, 'classes')} for targets "
                f"{tuple(targets.shape)}, got {tuple(prediction.shape)}"
            )
        scores = _only_valid(prediction, targets, valid)
        labels = _only_valid(targets, targets, valid)
        if self.class_weights is None:
            total = functional.cross_entropy(scores, labels, reduction="sum")
            return total, torch.tensor(float(labels.numel()), dtype=torch.float64)
        if len(self.class_weights) != scores.shape[-1]:
            raise ValueError(
                f"cross_entropy: expected {scores.shape[-1]} class weights, one for each score, "
                f"got {len(self.class_weights)}"
            )
        weights = torch.tensor(self.class_weights, dtype=scores.dtype, device=scores.device)
        total = functional.cross_entropy(scores, labels, weight=weights, reduction="sum")
        return total, weights[labels].sum()


NAMED: dict[str, Callable[..., Loss]] = {
    "mse": MeanSquaredError,
    "mae": MeanAbsoluteError,
    "huber": Huber,
    "cross_entropy": CrossEntropy,
    "pinball": Pinball,
}


def make_loss(loss: str | Loss, **settings: object) -> Loss:
    """The loss of that name with its `delta`, `class_weights` or `quantiles`; a callable as is."""
    if not isinstance(loss, str):
        return loss
    if loss not in NAMED:
        raise ValueError(f"loss: expected one of {', '.join(NAMED)}, got {loss!r}")
    if loss == "pinball" and "quantiles" not in settings:
        raise ValueError(
            "pinball: say which quantiles, as in make_loss('pinball', quantiles=[0.1, 0.5, 0.9])"
        )
    return NAMED[loss](**settings)
