from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.optim import lr_scheduler

import headgate
from headgate.training import ArrayBatches, FitConfig, fit


def train(net, data, epochs=1, **settings):
    config = FitConfig(epochs=epochs, **settings)
    return fit(net, ArrayBatches(*data, shuffle="never"), loss="mse", config=config)


def by_hand(net, data, optimizer, epochs=1, change=lambda net: None):
    """Full-batch steps of a torch optimiser, with `change` between gradient and step."""
    for _ in range(epochs):
        optimizer.zero_grad()
        nn.functional.mse_loss(net(data[0])[0], data[1]).backward()
        change(net)
        optimizer.step()


def assert_same(net, other) -> None:
    for (name, p), q in zip(net.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14, msg=name)


OPTIMIZERS = {
    "sgd": (
        {"kind": "sgd", "momentum": 0.8, "nesterov": True},
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.8, nesterov=True),
    ),
    "rmsprop": (
        {"kind": "rmsprop", "decay": 0.9, "epsilon": 1e-6},
        lambda p: torch.optim.RMSprop(p, 0.05, alpha=0.9, eps=1e-6),
    ),
    "adam": (
        {"kind": "adam", "beta1": 0.8, "beta2": 0.9, "epsilon": 1e-6},
        lambda p: torch.optim.Adam(p, 0.05, (0.8, 0.9), 1e-6),
    ),
    "adamw": (
        {"kind": "adamw", "weight_decay": 0.2},
        lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.2),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_are_torchs(name, make_net, data) -> None:
    settings, build = OPTIMIZERS[name]
    net, other = make_net(), make_net()
    train(net, data, 4, optimizer=settings, learning_rate=0.05)
    by_hand(other, data, build(other.parameters()), 4)
    assert_same(net, other)


def test_lbfgs_takes_all_batches_as_one_function(make_net, data) -> None:
    net, whole = make_net(), make_net()
    config = FitConfig(epochs=3, optimizer="lbfgs")
    batches = ArrayBatches(*data, batch_size=3, shuffle="never")
    result = fit(net, batches, loss="mse", config=config)
    train(whole, data, 3, optimizer="lbfgs")
    for p, q in zip(net.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-8)
    losses = [record.train_loss for record in result.history]
    assert losses[2] < 0.1 * losses[0]


def test_lbfgs_minimises_loss_and_penalty_together(make_net, data) -> None:
    net = make_net()
    train(net, data, 30, optimizer={"kind": "lbfgs", "iterations": 50}, l2=0.1)
    loss = nn.functional.mse_loss(net(data[0])[0], data[1])
    loss = loss + 0.05 * sum(p.square().sum() for p in net.parameters())
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    assert max(float(g.abs().max()) for g in gradients) < 1e-4


def rates(**settings) -> list[float]:
    net = nn.Linear(1, 1)
    one = torch.ones(1, 1)
    config = FitConfig(optimizer="sgd", learning_rate=0.2, **settings)
    result = fit(net, ArrayBatches(one, one), loss="mse", step=_linear, config=config)
    return [record.learning_rate for record in result.history]


def _linear(model, batch, state):
    return model(batch.inputs), state


SCHEDULES = {
    "none": lambda o: lr_scheduler.LambdaLR(o, lambda k: 1.0),
    "piecewise": lambda o: lr_scheduler.StepLR(o, 3, 0.5),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.7),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 9, 0.02),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 9, 2.0),
    "cyclical": lambda o: lr_scheduler.CyclicLR(o, 0.05, 0.2, 2, cycle_momentum=False),
}
SETTINGS = {
    "piecewise": {"period": 3, "factor": 0.5},
    "exponential": {"factor": 0.7},
    "cosine": {"final": 0.1},
    "polynomial": {"power": 2.0},
    "cyclical": {"period": 4, "low": 0.25},
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedules_are_torchs(kind) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.2)
    scheduler = SCHEDULES[kind](optimizer)
    expected = []
    for _ in range(9):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    got = rates(epochs=9, schedule={"kind": kind, **SETTINGS.get(kind, {})})
    assert got == pytest.approx(expected, abs=1e-12)


def test_warmup_rises_to_the_full_rate_and_then_the_schedule_begins() -> None:
    got = rates(epochs=6, warmup_epochs=3, schedule={"kind": "exponential", "factor": 0.5})
    assert got == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.1, 0.05])


CLIPS = {
    "norm": lambda ps: [nn.utils.clip_grad_norm_([p], 0.1) for p in ps],
    "global-norm": lambda ps: nn.utils.clip_grad_norm_(ps, 0.1),
    "value": lambda ps: nn.utils.clip_grad_value_(ps, 0.1),
}


@pytest.mark.parametrize("method", CLIPS)
def test_clipping(method, make_net, data) -> None:
    net, other = make_net(), make_net()
    sgd = {"kind": "sgd", "momentum": 0.0}
    result = train(net, data, 1, optimizer=sgd, gradient_clip=0.1, clip_method=method)
    norms = []

    def clip(net) -> None:
        norms.append(float(nn.utils.get_total_norm([p.grad for p in net.parameters()])))
        CLIPS[method](list(net.parameters()))

    by_hand(other, data, torch.optim.SGD(other.parameters(), 0.01), 1, clip)
    assert_same(net, other)
    assert norms[0] > 0.1
    assert result.history[0].gradient_norm == pytest.approx(norms[0])


def updates(make_net, data, epochs=1, **settings):
    """The change of the layer's W and b."""
    net, start = make_net(), make_net()
    train(net, data, epochs, **settings)
    return tuple(
        (getattr(net.layer, name) - getattr(start.layer, name)).detach()
        for name in ("W_l0", "b_l0")
    )


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam", "adamw"])
def test_a_factor_multiplies_the_update_of_its_rows(optimizer, make_net, data) -> None:
    W, b = updates(make_net, data, optimizer=optimizer)
    factors = {"W": 3.0, "b.b": 2.0}
    W_scaled, b_scaled = updates(make_net, data, optimizer=optimizer, learning_rate_factors=factors)
    torch.testing.assert_close(W_scaled, 3 * W)
    torch.testing.assert_close(b_scaled[:4], b[:4])
    torch.testing.assert_close(b_scaled[4:], 2 * b[4:])


def test_factor_zero_freezes_rows_and_a_gate_goes_before_its_family(make_net, data) -> None:
    factors = {"W": 0.0, "W.a": 1.0}
    W, _ = updates(make_net, data, 3, optimizer="adam", learning_rate_factors=factors)
    assert W[:4].all()
    assert not W[4:].any()


@pytest.mark.parametrize(
    "build", [headgate.LSTM, lambda *a, **k: headgate.Recurrent("lstm", *a, **k)]
)
def test_gates_of_real_layers_have_factors(build, data) -> None:
    class Forget(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = build(2, 1, 1, batch_first=True, dtype=torch.float64)

        def forward(self, x, state, lengths):
            return self.layer(x, state, lengths=lengths)

    net = Forget()
    before = {k: v.detach().clone() for k, v in net.layer.weight("f").items()}
    other = {k: v.detach().clone() for k, v in net.layer.weight("i").items()}
    train(net, data, 2, learning_rate_factors={"W.f": 0.0, "R.f": 0.0, "b.f": 0.0})
    assert all(torch.equal(before[k], v) for k, v in net.layer.weight("f").items())
    assert not any(torch.equal(other[k], v) for k, v in net.layer.weight("i").items())


def test_l2_is_torchs_weight_decay_and_factors_multiply_it(make_net, data) -> None:
    net, other = make_net(), make_net()
    train(net, data, 3, optimizer="adam", learning_rate=0.01, l2=0.3)
    by_hand(other, data, torch.optim.Adam(other.parameters(), 0.01, weight_decay=0.3), 3)
    assert_same(net, other)

    net, other = make_net(), make_net()
    factors = {"b": 0.0, "W.b": 2.0}
    train(net, data, 3, optimizer="adam", learning_rate=0.01, l2=0.3, l2_factors=factors)

    def penalise(net) -> None:
        for p in net.head.parameters():
            p.grad += 0.3 * p.detach()
        W = net.layer.W_l0
        W.grad[:4] += 0.3 * W.detach()[:4]
        W.grad[4:] += 0.6 * W.detach()[4:]

    by_hand(other, data, torch.optim.Adam(other.parameters(), 0.01), 3, penalise)
    assert_same(net, other)


def test_errors_say_what_was_expected(make_net, data) -> None:
    with pytest.raises(ValueError, match=r"learning_rate_factors: .*\(W, W.a, W.b, b.*\['R'\]"):
        train(make_net(), data, learning_rate_factors={"R": 2.0})
    with pytest.raises(ValueError, match="no layer of this model has named families"):
        train(nn.Linear(2, 1).double(), data, l2_factors={"W": 2.0})
    with pytest.raises(ValidationError, match=r"lbfgs minimises one function .* gradient_clip"):
        FitConfig(optimizer="lbfgs", gradient_clip=1.0)
    with pytest.raises(ValidationError, match="give momentum above 0"):
        FitConfig(optimizer={"kind": "sgd", "momentum": 0.0, "nesterov": True})
    with pytest.raises(ValidationError, match="warmup_epochs"):
        FitConfig(epochs=3, warmup_epochs=3)
    with pytest.raises(ValidationError, match="Extra inputs"):
        FitConfig(optimizer={"kind": "adam", "momentum": 0.5})
    frozen = make_net().requires_grad_(False)
    with pytest.raises(ValueError, match="none that requires a gradient"):
        train(frozen, data)
