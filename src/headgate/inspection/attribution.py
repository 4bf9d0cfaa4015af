"""Attribution: how much each input at each step moved a prediction.

Axes: N rows, T steps, I inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from headgate.nn.layout import check_lengths

from .outputs import output_at, output_of
from .watch import recurrent_of

Target = Callable[[Tensor], Tensor]
METHODS = ("gradient_x_input", "integrated_gradients")
AT_ONCE = 1 << 16
"""Steps of all rows that one run takes at most, which bounds the memory."""


def attribute(
    module: nn.Module,
    input: Any,
    *,
    method: Literal["gradient_x_input", "integrated_gradients"] = "gradient_x_input",
    target: Target | None = None,
    baseline: Any = None,
    steps: int = 32,
    lengths: Any = None,
) -> np.ndarray:
    """What each input at each step adds to a prediction: (N, T, I), zero past a row's end.

        gradient_x_input:      (x − x′) ∘ ∂f/∂x at x
        integrated_gradients:  (x − x′) ∘ ∫₀¹ ∂f/∂x at x′ + α(x − x′) dα

    Integrated gradients add up to f(x) − f(x′) in every row, as far as `steps` points of the
    Gauss–Legendre rule give the integral; gradient × input does so only where f is linear. A
    cell that normalises what it reads (layer_norm) turns so sharply near zeros that the sum may be
    far off: compare it with f(x) − f(x′), and take more steps or another baseline.

    module: a torch module with one stack of Headgate's recurrent layers in it, or such a stack. It
        is called as module(input), or module(input, lengths=lengths) where lengths are given.
    input: (N, T, I), or (T, N, I) where the layers have no `batch_first`, or one sequence (T, I).
    target: from the output (N, T, ·) or (N, ·), of a tuple the first, to one number f a row (N,);
        steps come second in it whatever the layers' layout. None: the sum of a row's last output.
    baseline: x′, what stands for "nothing", of the input's shape or one that broadcasts to it, such
        as each input's mean (I,); None: zeros.
    lengths: valid steps of each row (N,).

    The run is in evaluation mode; parameters, their gradients and modes stay as they were.

    Raises ValueError for another method, for an input of another shape, and for a target that does
    not give one number a row or does not depend on the input.

    Source: M. Sundararajan, A. Taly & Q. Yan, "Axiomatic attribution for deep networks", ICML 2017.
    """
    if method not in METHODS:
        raise ValueError(f"attribute: method must be one of {', '.join(METHODS)}, got {method!r}")
    if steps < 1:
        raise ValueError(f"attribute: expected at least 1 of steps, got {steps}")
    run = _Run(module, input, baseline, lengths, target)
    points, weights = np.ones(1), np.ones(1)
    if method == "integrated_gradients":
        nodes, parts = np.polynomial.legendre.leggauss(steps)
        points, weights = (nodes + 1) / 2, parts / 2
    total = torch.zeros_like(run.x)
    with _frozen(module), torch.enable_grad():
        for start in range(0, len(points), run.at_once):
            part = slice(start, start + run.at_once)
            total += run.gradients(points[part], weights[part])
    found = total * (run.x - run.baseline)
    return found.masked_fill(~run.valid[..., None], 0).cpu().numpy()


class _Run:
    """The input and baseline as (N, T, I), zero past each row's end, and how to run the module."""

    def __init__(
        self, module: nn.Module, input: Any, baseline: Any, lengths: Any, target: Target | None
    ) -> None:
        self.module, self.target = module, target
        self.batch_first = recurrent_of(module).batch_first
        x = torch.as_tensor(input).detach()
        if x.dim() not in (2, 3) or not x.is_floating_point():
            raise ValueError(
                "attribute: expected numbers (N, T, I), or (T, I) for one sequence, got shape "
                f"{tuple(x.shape)} of {x.dtype}; for tokens, attribute to their embedding"
            )
        self.x = self._rows_first(x)
        rows, count = self.x.shape[:2]
        self.baseline = self._rows_first(self._like(x, baseline))
        self.lengths, self.valid = None, torch.ones(rows, count, dtype=torch.bool)
        if lengths is not None:
            self.lengths = check_lengths("attribute", lengths, steps=count, rows=rows)
            self.valid = torch.arange(count) < self.lengths[:, None]
        self.valid = self.valid.to(x.device)
        self.x, self.baseline = (
            value.masked_fill(~self.valid[..., None], 0) for value in (self.x, self.baseline)
        )
        self.at_once = max(1, AT_ONCE // max(rows * count, 1))

    def _rows_first(self, x: Tensor) -> Tensor:
        """(N, T, I) from the layout of the module's input."""
        if x.dim() == 2:
            return x[None]
        return x if self.batch_first else x.transpose(0, 1)

    @staticmethod
    def _like(x: Tensor, baseline: Any) -> Tensor:
        given = torch.as_tensor(0.0 if baseline is None else baseline).to(x)
        try:
            return given.expand_as(x)
        except RuntimeError:
            raise ValueError(
                f"attribute: expected a baseline of the input's shape {tuple(x.shape)}, or one "
                f"that broadcasts to it, got {tuple(given.shape)}"
            ) from None

    def gradients(self, points: np.ndarray, weights: np.ndarray) -> Tensor:
        """Σ weight · ∂f/∂x (N, T, I) over points of the straight line from baseline to input."""
        rows, many = len(self.x), len(points)
        place = torch.as_tensor(points).to(self.x)[:, None, None, None]
        between = torch.lerp(self.baseline, self.x, place).flatten(0, 1).requires_grad_()
        given = {} if self.lengths is None else {"lengths": self.lengths.repeat(many)}
        result = self.module(between if self.batch_first else between.transpose(0, 1), **given)
        output = output_of(result, batch_first=self.batch_first)
        value = torch.stack([self._value(part) for part in output.split(rows)])
        if not value.requires_grad:
            raise ValueError(
                "attribute: expected a target that depends on the input, got one without a "
                "gradient; compute it from the output by torch's operations"
            )
        factors = torch.as_tensor(weights).to(value)[:, None]
        (gradient,) = torch.autograd.grad((value * factors).sum(), between)
        return gradient.unflatten(0, (many, rows)).sum(0)

    def _value(self, output: Tensor) -> Tensor:
        """f of each row (N,)."""
        if self.target is not None:
            value = self.target(output)
        elif output.dim() == 3:
            steps = torch.full((len(output),), output.shape[1])
            value = output_at(output, steps if self.lengths is None else self.lengths).sum(-1)
        else:
            value = output.flatten(1).sum(-1) if output.dim() > 1 else output
        if value.shape != (len(self.x),):
            raise ValueError(
                f"attribute: expected a target of one number a row, shape ({len(self.x)},), got "
                f"{tuple(value.shape)}; take one output, as in target=lambda y: y[:, -1, 0]"
            )
        return value


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, and no gradients of parameters."""
    modes = [(each, each.training) for each in module.modules()]
    needed = [(each, each.requires_grad) for each in module.parameters()]
    module.eval().requires_grad_(False)
    try:
        yield
    finally:
        for each, training in modes:
            each.training = training
        for each, needs in needed:
            each.requires_grad_(needs)
