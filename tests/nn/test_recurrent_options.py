"""Recurrent: what each option means, and what is said about wrong ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from headgate.nn import Record, Recurrent
from headgate.program import cell
from headgate.program.functions import exp, sigmoid, tanh

T, N, I, H = 6, 4, 3, 5
LENGTHS = [3, 6, 0, 5]
CELLS = ("rnn", "lstm", "lstm_peephole", "lstm_coupled", "gru", "gru_reset_before")


@cell
def leaky(x, h, m=-1.0, *, W, R, b, a):
    """A cell of a user's own: a second state with its own start, a vector that multiplies."""
    f = sigmoid(W.f @ x + R.f @ h + b.f)
    n = tanh(W.n @ x + a * h + b.n)
    m = f * m + (1 - f) * n
    h = m * exp(-m * m)
    return h, m


def layer(name: Any, *arguments: Any, **options: Any) -> Recurrent:
    """A float64 layer all of whose parameters are random."""
    made = Recurrent(name, *arguments, dtype=torch.float64, **options)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.uniform_(-0.8, 0.8)
    return made


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("merge", ["concat", "sum", "mean", "product"])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_last_is_each_directions_own_final_output(merge: str, lengths: Any, engine: str) -> None:
    options: dict[str, Any] = {"bidirectional": True, "merge": merge}
    made = layer("gru", I, H, 2, **options)
    last = Recurrent.from_config(made.config() | {"output_mode": "last"}, dtype=torch.float64)
    last.load_state_dict(made.state_dict())
    x = random(T, N, I)
    forward, reverse = made(x, lengths=lengths)[1][0][-2:]
    expected = {
        "concat": torch.cat([forward, reverse], -1),
        "sum": forward + reverse,
        "mean": (forward + reverse) / 2,
        "product": forward * reverse,
    }[merge]
    assert torch.equal(last(x, lengths=lengths)[0], expected)


@pytest.mark.parametrize("form", ["batched", "batch first", "unbatched", "packed"])
def test_last_comes_in_every_layout(form: str) -> None:
    made = layer("lstm", I, H, output_mode="last", batch_first=form == "batch first")
    x = random(T, N, I)
    expected = made(x.transpose(0, 1) if form == "batch first" else x)[1][0][0]
    given_input: Any = {
        "batched": x,
        "batch first": x.transpose(0, 1),
        "unbatched": x[:, 0],
        "packed": pack_padded_sequence(x, torch.full((N,), T)),
    }[form]
    found = made(given_input)[0]
    torch.testing.assert_close(found, expected[0] if form == "unbatched" else expected)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_residual_adds_what_the_layer_received(lengths: Any, engine: str, assert_same) -> None:
    options: dict[str, Any] = {"bidirectional": True}
    made = layer("lstm", 2 * H, H, **options)
    residual = layer("lstm", 2 * H, H, residual=True, **options)
    last = layer("lstm", 2 * H, H, residual=True, output_mode="last", **options)
    residual.load_state_dict(made.state_dict())
    last.load_state_dict(made.state_dict())
    x = random(T, N, 2 * H)
    steps = torch.tensor(lengths or [T] * N)
    inside = (torch.arange(T)[:, None] < steps).unsqueeze(-1)
    output = residual(x, lengths=lengths)[0]
    assert_same([output], [made(x, lengths=lengths)[0] + x * inside])
    ends = torch.stack([output[max(n - 1, 0), k, :H] for k, n in enumerate(steps.tolist())])
    assert_same([last(x, lengths=lengths)[0]], [torch.cat([ends, output[0, :, H:]], -1)])


def test_residual_needs_equal_widths_above_the_first_layer() -> None:
    assert Recurrent("rnn", I, H, 2, residual=True)(torch.zeros(T, N, I))[0].shape == (T, N, H)
    with pytest.raises(ValueError, match="layer 1 takes width 5 and gives 7; make them equal"):
        Recurrent("rnn", I, [5, 7], 2, residual=True)
    with pytest.raises(ValueError, match="layer 0 takes width 3 and gives 5"):
        Recurrent("rnn", I, H, residual=True)
    with pytest.raises(ValueError, match="needs merge='concat', got 'sum'"):
        Recurrent("rnn", H, H, residual=True, bidirectional=True, merge="sum", output_mode="last")


def test_one_hidden_size_per_layer(engine: str, assert_same) -> None:
    made = layer("lstm", I, [4, 6], 2, bidirectional=True)
    x = random(T, N, I)
    output, (h, c) = made(x)
    assert output.shape == (T, N, 12)
    assert [part.shape[-1] for part in h] == [4, 4, 6, 6]
    first, state = made(x[:2], (h, c))
    assert first.shape == (2, N, 12)
    assert [part.shape for part in state[1]] == [(N, 4), (N, 4), (N, 6), (N, 6)]
    one_row, (h_1, _) = made(x[:, 1])
    assert_same([one_row, *h_1], [output[:, 1], *(part[1] for part in h)])


def test_learned_initial_states_start_at_the_cells_own_and_get_gradients(engine: str) -> None:
    made = Recurrent(leaky, I, H, 2, bidirectional=True, learn_initial_state=True)
    plain = Recurrent(leaky, I, H, 2, bidirectional=True)
    plain.load_state_dict(made.state_dict(), strict=False)
    x = torch.randn(T, N, I)
    output = made(x)[0]
    torch.testing.assert_close(output, plain(x)[0])
    assert made.get_parameter("initial_m_l1_reverse")[0].item() == -1.0
    output.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters())


def test_a_state_that_starts_at_infinity_keeps_its_start() -> None:
    @cell
    def stabilised(x, h, m=float("-inf"), *, W, b):
        i = W @ x + b
        m = exp(m) + i
        h = tanh(m) + 0 * h
        return h, m

    made = Recurrent(stabilised, I, H, learn_initial_state=True)
    assert not hasattr(made, "initial_m_l0")
    assert torch.isfinite(made(torch.randn(T, N, I))[0]).all()


def test_weight_drop_zeroes_entries_of_the_recurrent_matrix_for_a_whole_call() -> None:
    @cell
    def echo(x, h, *, W, R):
        h = W @ x + R @ h
        return h

    made = Recurrent(echo, 1, 200, weight_drop=0.3, dtype=torch.float64)
    with torch.no_grad():
        made.get_parameter("W_l0").zero_()
        made.get_parameter("R_l0").fill_(1.0)
    h = torch.eye(200, dtype=torch.float64)
    states = made(torch.zeros(1, 200, 1, dtype=torch.float64), (h[None],))[1][0][0]
    kept = states > 0
    assert abs(kept.double().mean().item() - 0.7) < 0.02
    torch.testing.assert_close(states[kept], torch.full_like(states[kept], 1 / 0.7))
    twice = made(torch.zeros(2, 200, 1, dtype=torch.float64), (h[None],))
    one = twice[0][0]
    torch.testing.assert_close(twice[0][1], one @ one)
    made.eval()
    assert (made(torch.zeros(1, 200, 1).double(), (h[None],))[0] == 1.0).all()
    with pytest.raises(ValueError, match="weight_drop needs a matrix that multiplies a state"):
        Recurrent(only_vectors(), I, H, weight_drop=0.1)


def only_vectors() -> Any:
    @cell
    def independent(x, h, *, W, u):
        h = tanh(W @ x + u * h)
        return h

    return independent


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cell": "lsmt"}, ValueError, "no built-in cell is named 'lsmt'"),
        ({"cell": 3}, TypeError, "expected a Cell, a Program or a built-in's name, got int"),
        ({"hidden_size": [4]}, ValueError, "hidden_size needs one number a layer, 2 in all"),
        ({"hidden_size": 0}, ValueError, "hidden_size must be a positive integer, got 0"),
        ({"input_size": 2.0}, ValueError, "input_size must be a positive integer, got 2.0"),
        (
            {"merge": "max"},
            ValueError,
            "merge must be one of concat, sum, mean, product, got 'max'",
        ),
        ({"output_mode": "first"}, ValueError, "output_mode must be one of sequence, last"),
        ({"dropout": 1.5}, ValueError, r"dropout must lie in \[0, 1\], got 1.5"),
        ({"weight_drop": 1.0}, ValueError, r"weight_drop must lie in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_options_are_explained(options: dict[str, Any], error: type, message: str) -> None:
    given_options = {"cell": "lstm", "input_size": I, "hidden_size": H, "num_layers": 2} | options
    with pytest.raises(error, match=message):
        Recurrent(**given_options)


def test_config_rebuilds_the_layer_from_json() -> None:
    made = Recurrent(
        leaky, I, [4, 6], 2, bidirectional=True, batch_first=True, merge="mean", dropout=0.1,
        learn_initial_state=True, weight_drop=0.1, output_mode="last", layer_norm=True,
        zoneout=0.1,
    )  # fmt: skip
    rebuilt = Recurrent.from_config(json.loads(json.dumps(made.config())))
    rebuilt.load_state_dict(made.state_dict())
    x = torch.randn(N, T, I)
    assert torch.equal(rebuilt.eval()(x)[0], made.eval()(x)[0])
    assert repr(rebuilt) == repr(made)
    assert "zoneout" not in made.config()


def test_repr_says_what_is_not_usual() -> None:
    text = repr(Recurrent("lstm_projected", I, [4, 6], 2, sizes={"projection": 2}, merge="sum"))
    assert text == (
        "Recurrent(lstm_projected, 3, [4, 6], num_layers=2, merge='sum', sizes={'projection': 2})"
    )


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_a_projection_narrows_what_the_next_layer_sees() -> None:
    made = Recurrent("lstm_projected", I, H, 2, sizes={"projection": 2}, bidirectional=True)
    output, (h, c) = made(torch.randn(T, N, I))
    assert output.shape == (T, N, 4)
    assert (h.shape, c.shape) == ((4, N, 2), (4, N, H))  # type: ignore[union-attr]
    assert made.get_parameter("W_l1").shape == (4 * H, 4)


def test_explain_names_the_engine_and_the_reason() -> None:
    made = Recurrent("lstm", I, H)
    half = torch.zeros(T, 32, I).half()
    assert made.explain(half).engine == "aten"
    choice = made.explain(half, record=Record("i"))
    assert choice.engine == "reference"
    assert choice.reason
