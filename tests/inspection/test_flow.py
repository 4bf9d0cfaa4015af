"""Gradient flow: against a loop in torch, against finite differences, and where it is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from headgate import LSTM, Record, Recurrent, cell, sigmoid, tanh
from headgate.inspection import Flow, compare_cells, flow_figure, gradient_flow
from headgate.inspection.comparison import recall

T, N, I, H = 7, 4, 3, 5
LENGTHS = [7, 3, 0, 5]


@cell
def half(x, h, *, W):
    """Half of the state stays."""
    h = W @ x + 0.5 * h
    return h


@cell
def whole(x, h, *, W):
    """All of the state stays."""
    h = W @ x + h
    return h


@cell
def fast_and_slow(x, h, s, *, W, R, b):
    """A cell of one's own with a slow state."""
    f = sigmoid(W.f @ x + R.f @ h + b.f)
    s = f * s + (1 - f) * tanh(W.g @ x)
    h = tanh(s + R.h @ h)
    return h, s


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def layer(name: Any, *arguments: Any, **options: Any) -> Recurrent:
    return Recurrent(name, I, H, *arguments, dtype=torch.float64, **options)


def lstm_by_hand(made: Recurrent, x: Tensor, length: int) -> dict[str, np.ndarray]:
    """‖∂loss/∂h(t)‖ and ‖∂loss/∂c(t)‖ of one row (steps back) by a loop in torch."""
    W, R, b = (made.get_parameter(f"{family}_l0") for family in "WRb")
    h = c = x.new_zeros(H)
    kept: dict[str, list[Tensor]] = {"h": [], "c": []}
    for t in range(length):
        i, f, g, o = (W @ x[t] + R @ h + b).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        c.retain_grad()
        h = o.sigmoid() * c.tanh()
        h.retain_grad()
        kept["h"].append(h)
        kept["c"].append(c)
    h.sum().backward()
    made.zero_grad()
    return {
        name: np.array([float(v.grad.norm()) for v in values if v.grad is not None])[::-1]
        for name, values in kept.items()
    }


@pytest.mark.parametrize("form", ["steps first", "batch first", "packed", "inside a model"])
def test_it_is_what_autograd_finds_in_a_loop(form: str) -> None:
    made, x = layer("lstm", batch_first=form == "batch first"), random(T, N, I)
    rows = [n for n in range(N) if LENGTHS[n]]
    alone = [lstm_by_hand(made, x[:, n], LENGTHS[n]) for n in rows]
    given: Any = x.transpose(0, 1) if form == "batch first" else x
    lengths: Any = LENGTHS
    if form == "packed":
        given = pack_padded_sequence(x[:, rows], torch.tensor([7, 3, 5]), enforce_sorted=False)
        lengths = None
    flow = gradient_flow(
        Doubled(made) if form == "inside a model" else made, given, lengths=lengths
    )
    assert set(flow.norms) == {(0, 0, "h"), (0, 0, "c")}
    for name in "hc":
        for k in range(T):
            expected = np.mean([each[name][k] for each in alone if k < len(each[name])])
            assert flow.norms[0, 0, name][k] == pytest.approx(expected, rel=1e-10)


class Doubled(nn.Module):
    """A model around a layer, with dropout, that hands lengths on."""

    def __init__(self, made: nn.Module) -> None:
        super().__init__()
        self.made, self.dropout = made, nn.Dropout(0.5)

    def forward(self, x: Tensor, lengths: Any = None) -> Tensor:
        return self.dropout(self.made(x, lengths=lengths)[0])


@pytest.mark.parametrize("made", ["lstm", "gru", "lstm_peephole", fast_and_slow])
def test_a_push_of_the_carried_state_changes_the_loss_as_much(made: Any) -> None:
    """∂loss/∂h(t), by finite differences of the run that goes on from step t."""
    net, x, t, push = layer(made), random(T, 1, I), 2, 1e-6
    _, state = net(x[: t + 1])

    def loss(unit: int, size: float) -> float:
        moved = [part.detach().clone() for part in state]
        moved[0][0, 0, unit] += size
        return float(net(x[t + 1 :], tuple(moved))[0][-1].sum().detach())

    slopes = [(loss(unit, push) - loss(unit, -push)) / (2 * push) for unit in range(H)]
    found = gradient_flow(net, x).norms[0, 0, "h"][T - 1 - t]
    assert found == pytest.approx(np.linalg.norm(slopes), rel=1e-6)


def test_known_cells_keep_or_halve_the_gradient() -> None:
    x = random(T, N, I)
    halved, kept = gradient_flow(layer(half), x), gradient_flow(layer(whole), x)
    np.testing.assert_allclose(halved.relative(), 0.5 ** np.arange(T), rtol=1e-12)
    np.testing.assert_allclose(kept.relative(), np.ones(T), rtol=1e-12)
    assert (halved.decay(), kept.decay()) == (2, None)
    assert halved.decay(share=0.01) is None
    assert halved.decay(share=0.02) == 6


def test_the_steps_count_back_from_the_step_of_the_loss() -> None:
    x, made = random(T, N, I), layer(half)
    for at, steps in ((3, 4), (0, 1), (-2, T - 1)):
        np.testing.assert_allclose(
            gradient_flow(made, x, at=at).relative(), 0.5 ** np.arange(steps), rtol=1e-12
        )
    own = gradient_flow(made, x, loss=lambda result: 3 * result[0][4].sum())
    np.testing.assert_allclose(own.relative(), 0.5 ** np.arange(5), rtol=1e-12)
    ragged = gradient_flow(made, x, at=4, lengths=LENGTHS)  # two rows have such a step
    assert len(ragged.relative()) == 5


def test_the_reverse_direction_counts_in_its_own_order() -> None:
    made, x = layer(half, bidirectional=True), random(T, N, I)
    flow = gradient_flow(made, x, at=2)
    np.testing.assert_allclose(flow.relative(), 0.5 ** np.arange(3), rtol=1e-12)
    np.testing.assert_allclose(flow.relative(direction=1), 0.5 ** np.arange(T - 2), rtol=1e-12)
    last = layer(half, bidirectional=True, output_mode="last")
    assert len(gradient_flow(last, x).relative(direction=1)) == T


def test_layers_and_states_are_told_apart() -> None:
    flow = gradient_flow(LSTM(I, H, 2), torch.randn(30, N, I))
    assert (flow.cell, flow.carrier(), flow.carrier(0)) == ("lstm", "c", "c")
    assert gradient_flow(layer(fast_and_slow), random(30, N, I)).carrier() == "s"
    table = flow.table()
    assert table.columns == ["layer", "direction", "state", "steps_back", "norm", "relative"]
    lower = table.filter(pl.col("layer") == 0, pl.col("state") == "c")
    np.testing.assert_array_equal(lower["norm"], flow.norms[0, 0, "c"])
    np.testing.assert_array_equal(lower["relative"], flow.relative("c", layer=0))
    with pytest.raises(KeyError, match=r"nothing of layer 0, direction 1.*\(0, 0, 'h'\)"):
        flow.relative("h", layer=0, direction=1)


def test_the_module_stays_as_it_was() -> None:
    model = Doubled(layer("gru"))
    model.made.requires_grad_(True).W_l0.requires_grad_(False)  # type: ignore[union-attr]
    with torch.no_grad():
        first = gradient_flow(model, random(T, N, I))
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert not model.made.W_l0.requires_grad  # type: ignore[union-attr]
    record = Record("h")
    model.made(random(T, N, I), record=record)  # no hook is left that would put another in
    assert record["h"].shape == (1, T, N, H)
    assert first.relative()[0] == 1


MISTAKES = {
    "a loss or a step": ({"at": 1, "loss": torch.sum}, "expected loss= or at=, got both"),
    "a step too far": ({"at": T}, f"no row has a step {T}; the longest has {T} steps"),
    "no number": ({"loss": lambda result: result[0]}, "a loss that is one number"),
    "zero": ({"loss": lambda result: 0 * result[0].sum()}, "all derivatives are zero"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake: str) -> None:
    options, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=message):
        gradient_flow(layer("gru"), random(T, N, I), **options)


def test_a_step_needs_outputs_of_every_step() -> None:
    with pytest.raises(ValueError, match=r"needs an output .* of every step"):
        gradient_flow(Scores(), random(T, N, I), at=1)


class Scores(nn.Module):
    """One score a row."""

    def __init__(self) -> None:
        super().__init__()
        self.made = layer("gru")

    def forward(self, x: Tensor) -> Tensor:
        return self.made(x)[0][-1].sum(-1)


def test_cells_are_compared_on_equal_terms() -> None:
    x = torch.randn(N, T, I)
    state = torch.get_rng_state()
    alone = compare_cells({"mine": half}, x, hidden_size=H, seed=3)["mine"]
    both = compare_cells(("lstm", half), x, hidden_size=H, seed=3, train=forget)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(both) == ["lstm", "half"]
    np.testing.assert_array_equal(both["half"].fresh.relative(), alone.fresh.relative())
    assert alone.trained is None
    assert both["lstm"].trained is not None
    assert both["lstm"].trained.decay("c") == 1  # trained in place, and looked at again
    assert both["lstm"].fresh.decay("c") != 1
    with pytest.raises(ValueError, match="at least one cell"):
        compare_cells((), x, hidden_size=H)


def forget(model: nn.Module) -> None:
    """Training that closes every forget gate; other cells it leaves as they are."""
    for name, parameter in model.named_parameters():
        if name == "recurrent.b_l0":
            parameter.data[H : 2 * H] = -20.0


def test_the_long_lag_tells_its_first_value_after_noise() -> None:
    inputs, targets, lengths = recall(200, 50, seed=1, ragged=True)
    assert torch.equal(targets, inputs[:, 0, :1])
    assert inputs[:, :, 1].sum(1).eq(1).all()
    assert inputs[..., 0].abs().max() <= 1
    assert int(lengths.min()) == 1
    assert 40 < int(lengths.max()) <= 50
    assert torch.equal(recall(200, 50, seed=1)[2], torch.full((200,), 50))


def drawn(flows: dict[str, Flow], **options: Any) -> list[Axes]:
    return flow_figure(flows, **options).axes


def test_the_picture_has_one_line_a_model_on_a_logarithmic_axis() -> None:
    x = random(T, N, I)
    flows = {name: gradient_flow(layer(name), x) for name in ("rnn", "lstm")}
    (axes,) = drawn(flows)
    assert axes.get_yscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "steps back",
        "gradient norm, relative to the last step",
    )
    lines = {str(line.get_label()): line for line in axes.lines}
    assert list(lines) == ["rnn (h)", "lstm (c)", "float32 resolution"]
    np.testing.assert_array_equal(lines["lstm (c)"].get_ydata(), flows["lstm"].relative())
    assert len(drawn(flows, trained=flows)) == 2
    with pytest.raises(ValueError, match="at least one model"):
        flow_figure({})
