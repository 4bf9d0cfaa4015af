"""The watch on gradients: real networks that explode, vanish, or are well."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headgate import LSTM, Recurrent
from headgate.training import (
    ArrayBatches,
    FitConfig,
    GradientWarning,
    NonFiniteLossError,
    fit,
)
from headgate.training.gradients import PATIENCE

N, T, H = 64, 60, 16


class Net(nn.Module):
    """Any recurrent layer that puts rows first, and a linear layer on its last output."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(H, 1)

    def forward(self, x: Tensor, state: Any = None, lengths: Any = None) -> tuple[Tensor, Any]:
        output, after = self.layer(x, state)
        return self.head(output[:, -1]), after


def rnn(scale: float) -> Net:
    """A plain recurrent network whose orthogonal recurrent matrix stretches by `scale`."""
    net = Net(Recurrent("rnn", 2, H, batch_first=True))
    net.layer.R_l0.data *= scale  # type: ignore[operator, union-attr]
    return net


def early() -> Tensor:
    """Rows whose first step alone holds something."""
    x = torch.zeros(N, T, 2)
    x[:, 0] = torch.randn(N, 2)
    return x


def heard(net: nn.Module, x: Tensor, **settings: Any) -> list[str]:
    """What the watch says during a fit of the first value of each row."""
    batches = ArrayBatches(x, x[:, 0, :1], batch_size=16)
    config = FitConfig(**{"watch_gradients": True, "epochs": 5, "learning_rate": 0.01} | settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(net, batches, loss="mse", config=config)
    assert all(each.category is GradientWarning for each in caught)
    return [str(each.message) for each in caught]


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_network_that_explodes_is_told_once_and_before_clipping(clip: float | None) -> None:
    (said,) = heard(rnn(4.0), torch.randn(N, T, 2), gradient_clip=clip)
    assert "epoch 1, batch 1: the gradient of the recurrent weights has norm" in said
    assert "it explodes. Try gradient_clip" in said


def test_torchs_own_layers_are_watched_too() -> None:
    net = Net(nn.RNN(2, H, batch_first=True))
    nn.init.orthogonal_(net.layer.weight_hh_l0, gain=4.0)  # type: ignore[arg-type]
    assert "explodes" in heard(net, torch.randn(N, T, 2))[0]


def test_an_explosion_late_in_the_fit_stands_out_from_what_was_usual() -> None:
    """Without a layer behind, its own earlier gradients are all that there is to compare with."""
    net, calls = Recurrent("rnn", 2, 1, batch_first=True, output_mode="last"), []

    def step(model: nn.Module, batch: Any, state: Any) -> tuple[Tensor, Any]:
        calls.append(1)
        return model(batch.inputs)[0] * (1e6 if len(calls) == 11 else 1.0), None

    x = torch.randn(N, T, 2)
    batches = ArrayBatches(x, x[:, 0, :1], batch_size=16)
    config = FitConfig(watch_gradients=True, epochs=4)
    with pytest.warns(GradientWarning, match=r"epoch 3, batch 3: .* on the median before: it expl"):
        fit(net, batches, loss="mse", config=config, step=step)


def test_a_network_that_forgets_its_first_step_vanishes() -> None:
    net = rnn(0.1)
    net.layer.b_l0.requires_grad_(False)  # type: ignore[operator, union-attr]
    (said,) = heard(net, early())
    assert f"epoch {1 + PATIENCE // 4}, batch {PATIENCE % 4}: the gradient of the recurrent" in said
    assert "as small in 10 updates in a row: it vanishes" in said
    assert "Try a gated cell (lstm, gru) with a forget bias of 1" in said


def test_inputs_that_saturate_every_unit_vanish() -> None:
    assert "scaled inputs" in heard(rnn(1.0), 400 + torch.randn(N, T, 2))[0]


@pytest.mark.parametrize("layer", ["Recurrent", "LSTM"])
def test_a_healthy_lstm_is_left_in_peace(layer: str) -> None:
    made = Recurrent("lstm", 2, H, batch_first=True) if layer == "Recurrent" else None
    net = Net(made or LSTM(2, H, batch_first=True))
    assert heard(net, torch.randn(N, T, 2), epochs=30, learning_rate=0.02) == []


def test_a_fit_that_has_converged_has_not_vanished() -> None:
    net, x = Net(Recurrent("lstm", 2, H, batch_first=True)), torch.randn(N, T, 2)
    with torch.no_grad():
        targets = net(x)[0] + 1e-9
    batches = ArrayBatches(x, targets, batch_size=16)
    config = FitConfig(watch_gradients=True, epochs=8, learning_rate=1e-12, optimizer="sgd")
    fit(net, batches, loss="mse", config=config)
    assert net.layer.R_l0.grad.norm() < 1e-7  # type: ignore[union-attr]


def test_it_looks_only_where_it_is_asked_to_and_changes_nothing() -> None:
    weights = []
    for watch in (False, True):
        torch.manual_seed(0)
        net, x = rnn(4.0), torch.randn(N, T, 2)
        assert len(heard(net, x, watch_gradients=watch)) == watch
        weights.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.equal(*weights)


def test_a_gradient_that_is_not_finite_is_told_before_the_error() -> None:
    def root(model: nn.Module, batch: Any, state: Any) -> tuple[Tensor, Any]:
        prediction, state = model(batch.inputs, state)
        return (prediction - prediction.detach()).sqrt(), state

    batches = ArrayBatches(torch.randn(4, 3, 2), torch.zeros(4, 1))
    config = FitConfig(watch_gradients=True)
    with pytest.warns(GradientWarning, match="norm nan"), pytest.raises(NonFiniteLossError):
        fit(rnn(1.0), batches, loss="mae", step=root, config=config)


def test_a_fit_may_be_resumed_with_the_watch_on(tmp_path: Path) -> None:
    x = torch.randn(N, T, 2)
    batches = ArrayBatches(x, x[:, 0, :1], batch_size=16)
    net = rnn(4.0)
    fit(net, batches, loss="mse", config=FitConfig(epochs=1), checkpoint=tmp_path)
    config = FitConfig(epochs=2, watch_gradients=True)
    with pytest.warns(GradientWarning, match="epoch 2, batch 1"):
        result = fit(net, batches, loss="mse", config=config, checkpoint=tmp_path, resume=True)
    assert result.epochs == 2
    assert FitConfig(**config.model_dump()) == config
