"""Attribution: it adds up, it is exact where it is known, and padding has no part in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import QuadMesh
from torch import Tensor, nn

from headgate import GRU, LSTM, Recurrent, cell, concat, sigmoid, tanh
from headgate.inspection import attribute, attribution, attribution_figure

N, T, I, H = 4, 9, 3, 6
LENGTHS = [9, 4, 0, 7]


@cell
def minimal(x, h, *, W, b):
    """A minimal gated unit, as a user writes it."""
    f = sigmoid(W.f @ concat(h, x) + b.f)
    h = (1 - f) * h + f * tanh(W.g @ concat(f * h, x) + b.g)
    return h


@cell
def half(x, h, *, W):
    """Linear: half of the state stays."""
    h = W @ x + 0.5 * h
    return h


def layer(name: Any, *arguments: Any, **options: Any) -> Recurrent:
    options = {"batch_first": True, "dtype": torch.float64} | options
    return Recurrent(name, I, H, *arguments, **options)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def last(output: Tensor, lengths: list[int]) -> Tensor:
    """The sum of each row's last output (N,)."""
    rows = [output[n, length - 1].sum() if length else output.new_zeros(()) for n, length in
            enumerate(lengths)]  # fmt: skip
    return torch.stack(rows)


MODELS = {
    "lstm": lambda dtype: layer("lstm", dtype=dtype),
    "gru, both directions": lambda dtype: layer("gru", 2, bidirectional=True, dtype=dtype),
    "a cell of one's own": lambda dtype: layer(minimal, dtype=dtype),
    "in place of torch's": lambda dtype: LSTM(I, H, 2, batch_first=True, dtype=dtype),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_integrated_gradients_add_up(model: str, dtype: torch.dtype, tolerance: float) -> None:
    made, x, baseline = MODELS[model](dtype), random(N, T, I).to(dtype), random(I).to(dtype)
    found = attribute(made, x, method="integrated_gradients", baseline=baseline, lengths=LENGTHS)
    assert found.shape == (N, T, I)
    with torch.no_grad():
        values = [
            last(made(each, lengths=LENGTHS)[0], LENGTHS) for each in (x, baseline.expand_as(x))
        ]
    gap = found.sum((1, 2)) - (values[0] - values[1]).numpy()
    assert np.abs(gap).max() < tolerance * H


@pytest.mark.parametrize("method", ["gradient_x_input", "integrated_gradients"])
def test_a_linear_cell_is_known_exactly(method: Any) -> None:
    made, x = layer(half), random(N, T, I)
    stays = 0.5 ** torch.arange(T - 1, -1, -1, dtype=torch.float64)
    expected = x * made.get_parameter("W_l0").sum(0) * stays[:, None]
    np.testing.assert_allclose(attribute(made, x, method=method), expected.detach(), rtol=1e-12)


def test_more_points_come_closer() -> None:
    made, x = layer("lstm"), 3 * random(N, T, I)
    made.get_parameter("W_l0").data *= 3
    with torch.no_grad():
        change = (made(x)[0][:, -1] - made(0 * x)[0][:, -1]).sum(-1).numpy()
    gaps = [
        np.abs(
            attribute(made, x, method="integrated_gradients", steps=k).sum((1, 2)) - change
        ).max()
        for k in (1, 8, 64)
    ]
    assert gaps[0] > 10 * gaps[1] > 100 * gaps[2]


@pytest.mark.parametrize("method", ["gradient_x_input", "integrated_gradients"])
def test_padding_gets_nothing_and_may_hold_nan(method: Any) -> None:
    made, x = layer("gru", bidirectional=True), random(N, T, I)
    clean = attribute(made, x, method=method, lengths=LENGTHS)
    poisoned = x.clone()
    for n, length in enumerate(LENGTHS):
        assert not clean[n, length:].any()
        assert clean[n, :length].all()
        poisoned[n, length:] = torch.nan
    found = attribute(made, poisoned, method=method, lengths=LENGTHS, baseline=poisoned * 0)
    np.testing.assert_array_equal(found, clean)


class Centred(nn.Module):
    """A model that looks at all steps of a row, padding too, before its layer does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = layer("gru")

    def forward(self, x: Tensor, lengths: Any) -> Tensor:
        return self.layer(x - x.sum(1, keepdim=True), lengths=lengths)[0]


def test_padding_is_zero_before_the_model_sees_it() -> None:
    made, x = Centred(), random(N, T, I)
    clean, poisoned = x.clone(), x.clone()
    for n, length in enumerate(LENGTHS):
        clean[n, length:], poisoned[n, length:] = 0.0, torch.nan
    expected = attribute(made, clean, lengths=LENGTHS)
    np.testing.assert_array_equal(attribute(made, poisoned, lengths=LENGTHS), expected)


def test_a_row_alone_is_attributed_alike() -> None:
    made, x = layer("lstm", bidirectional=True), random(N, T, I)
    whole = attribute(made, x, method="integrated_gradients", lengths=LENGTHS)
    for n in (0, 1, 3):
        alone = attribute(made, x[n, : LENGTHS[n]], method="integrated_gradients")
        np.testing.assert_allclose(alone[0], whole[n, : LENGTHS[n]], rtol=1e-9, atol=1e-12)


def test_steps_first_is_the_same_and_comes_back_rows_first() -> None:
    first, second = layer("gru"), layer("gru", batch_first=False)
    second.load_state_dict(first.state_dict())
    x, baseline = random(N, T, I), random(N, T, I)
    found = attribute(second, x.transpose(0, 1), baseline=baseline.transpose(0, 1), lengths=LENGTHS)
    np.testing.assert_allclose(found, attribute(first, x, baseline=baseline, lengths=LENGTHS))


def test_a_target_sees_the_rows_of_the_input_and_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where points of the way from the baseline run together, or a few at a time."""
    made, x, wanted = layer("lstm"), random(N, T, I), torch.tensor([1, 4, 0, 3])

    def target(output: Tensor) -> Tensor:
        assert output.shape == (N, T, H)
        return output[torch.arange(N), wanted, 2]

    found = attribute(made, x, method="integrated_gradients", target=target)
    with torch.no_grad():
        change = target(made(x)[0]) - target(made(0 * x)[0])
    np.testing.assert_allclose(found.sum((1, 2)), change, rtol=1e-9)
    for n, step in enumerate(wanted):
        assert not found[n, step + 1 :].any()
    monkeypatch.setattr(attribution, "AT_ONCE", 3 * N * T)
    apart = attribute(made, x, method="integrated_gradients", target=target)
    np.testing.assert_allclose(apart, found, rtol=1e-9, atol=1e-15)


class Model(nn.Module):
    """Dropout, a layer with steps first, and one prediction a row."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.layer, self.head = nn.Dropout(0.5), GRU(I, H), nn.Linear(H, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.dropout(x))[0][-1])


def test_a_model_around_the_layer_stays_as_it_was() -> None:
    model, x = Model(), torch.randn(T, N, I)
    model.head.bias.requires_grad_(False)
    with torch.no_grad():
        found = attribute(model, x, method="integrated_gradients")
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == [True] * 5 + [False]
    model.eval()
    with torch.no_grad():
        change = (model(x) - model(0 * x))[:, 0]
    np.testing.assert_allclose(found.sum((1, 2)), change, atol=1e-5)


MISTAKES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a method": (random(N, T, I), {"method": "magic"}, "method must be one of gradient_x_input"),
    "tokens": (torch.ones(N, T, I, dtype=torch.int64), {}, "attribute to their embedding"),
    "no rows": (random(I), {}, r"expected numbers \(N, T, I\)"),
    "points": (random(N, T, I), {"steps": 0}, "at least 1 of steps"),
    "a baseline": (random(N, T, I), {"baseline": random(4)}, r"that broadcasts to it, got \(4,\)"),
    "two numbers a row": (random(N, T, I), {"target": lambda y: y[:, -1]}, "one number a row"),
    "a constant": (random(N, T, I), {"target": lambda y: y.detach()[:, 0, 0]}, "depends on the in"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake: str) -> None:
    x, options, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=message):
        attribute(layer("gru"), x, **options)


def test_the_picture_shows_inputs_and_colours_around_zero() -> None:
    x, values = random(T, I).numpy(), random(T, I).numpy()
    figure = attribution_figure(x, values, names=["price", "rain", "_sun"], time_name="day")
    above, below = figure.axes[:2]
    assert above.legend_ is not None
    assert [text.get_text() for text in above.legend_.get_texts()] == ["price", "rain", " _sun"]
    np.testing.assert_array_equal(above.lines[1].get_ydata(), x[:, 1])
    (mesh,) = below.collections
    assert isinstance(mesh, QuadMesh)
    assert mesh.get_clim() == (-np.abs(values).max(), np.abs(values).max())
    np.testing.assert_array_equal(np.asarray(mesh.get_array()), values.T)
    assert [text.get_text() for text in below.get_yticklabels()] == ["price", "rain", "_sun"]
    assert below.get_xlabel() == "day"


@pytest.mark.parametrize("shape", [(1, 1), (30, 1), (5, 40)])
def test_one_step_one_input_and_many_are_drawn(shape: tuple[int, int], tmp_path: Any) -> None:
    days = np.datetime64("2020-01-01") + np.arange(shape[0])
    figure = attribution_figure(np.ones(shape), np.zeros(shape), time=days)
    figure.savefig(tmp_path / "a.png")
    assert len(figure.axes[0].lines) == min(shape[1], 5)
    with pytest.raises(ValueError, match="expected an attribution of shape"):
        attribution_figure(np.ones(shape), np.zeros((2, 2)))
