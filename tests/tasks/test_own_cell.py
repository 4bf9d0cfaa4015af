"""A cell written by a user, from its equations to a trained forecaster and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from headgate import Forecaster, Record, Recurrent, cell, sigmoid, tanh
from headgate.tasks.network import ForecastNetwork


@cell
def damped(x, h, v, *, W, R, U, p, b):
    """A state that moves with a velocity, which a gate damps; the gate sees both."""
    d = sigmoid(W.d @ x + R.d @ h + p.d * v + b.d)
    a = tanh(W.a @ x + R.a @ (d * h) + b.a)
    v = d * v + (1 - d) * a
    h = tanh(h + U @ v)
    return h, v


def fitted(**options: Any) -> Forecaster:
    values = np.sin(np.arange(90) / 3)
    options = {"cell": damped, "hidden_size": 4, "epochs": 4, "window": 12, "horizon": 5, **options}
    return Forecaster(difference="none", **options).fit(values)


def test_it_trains() -> None:
    losses = [epoch.train_loss for epoch in fitted(epochs=40).report_.history]
    assert losses[-1] < 0.5 * losses[0]


def test_its_named_values_and_their_error_terms_are_recorded() -> None:
    forecaster = fitted()
    batches = forecaster.batches(np.sin(np.arange(40) / 3))
    windows = batches.batch(np.arange(batches.windows()))
    network: ForecastNetwork = forecaster.network_
    record = Record(gradients=True)
    prediction, _ = network(windows.inputs, record=record)
    (prediction - windows.targets).square().mean().backward()
    for name in ("d", "a", "v", "h"):
        shape = (1, len(windows), 12, 4)
        assert record[name].shape == shape
        assert record.gradient(name).shape == shape
        assert record.gradient(name).abs().sum() > 0
    both = record["v"][..., 1:, :]
    d, a, before = record["d"][..., 1:, :], record["a"][..., 1:, :], record["v"][..., :-1, :]
    torch.testing.assert_close(both, d * before + (1 - d) * a)


def test_its_gradients_are_those_of_finite_differences() -> None:
    layer = Recurrent(damped, 2, 3, dtype=torch.float64)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(4, 2, 2, dtype=torch.float64, requires_grad=True)
    states = [torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]

    def run(x: torch.Tensor, *states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output, after = layer(x, states)
        return output, *after

    assert torch.autograd.gradcheck(run, (x, *states))
