"""RNN, LSTM and GRU: dropout, Headgate's options beside torch's arguments, and torch's tools."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from headgate import nn as hn

KINDS = ("LSTM", "GRU", "RNN")
LENGTHS = {"sorted": [6, 5, 3, 1], "unsorted": [3, 6, 1, 5]}
T, N, I, H = 6, 4, 5, 7


def pair(kind: str, **arguments: Any) -> tuple[Any, Any]:
    """torch's module with random parameters, and Headgate's that loaded its state dict."""
    theirs = getattr(nn, kind)(I, H, **arguments)
    ours = getattr(hn, kind)(I, H, **arguments)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_between_layers_acts_in_training_only(kind: str, engine: str) -> None:
    ours = getattr(hn, kind)(I, H, 2, dropout=0.5)
    x = torch.randn(T, N, I)
    torch.manual_seed(5)
    first = ours(x)[0]
    assert not torch.equal(first, ours(x)[0])
    torch.manual_seed(5)
    assert torch.equal(first, ours(x)[0])
    ours.eval()
    theirs = getattr(nn, kind)(I, H, 2, dropout=0.5).eval()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x)[0], theirs(x)[0])


def test_full_dropout_leaves_the_second_layer_its_bias_alone() -> None:
    ours, theirs = hn.LSTM(I, H, 2, dropout=1.0), nn.LSTM(I, H, 2, dropout=1.0)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(T, N, I)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0])


def test_dropout_keeps_the_expected_value() -> None:
    ours = hn.RNN(1, 1, 2, dropout=0.25).double()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.zero_()
        ours.get_parameter("bias_ih_l0").fill_(0.5)
        ours.get_parameter("weight_ih_l1").fill_(0.001)
    seen = ours(torch.zeros(40, 500, 1).double())[0] / 0.001
    kept = seen.abs() > 1e-6
    assert abs(kept.double().mean().item() - 0.75) < 0.01
    assert abs(seen.mean().item() - torch.tensor(0.5).tanh().item()) < 0.01


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(TypeError, match=r"LSTM: unknown argument 'zoneouts'.*zoneout"):
        hn.LSTM(I, H, zoneouts=0.1)  # type: ignore[call-arg]


def test_options_stand_beside_torchs_arguments() -> None:
    ours = hn.LSTM(
        I, H, 2, layer_norm=True, learn_initial_state=True, residual=True, weight_drop=0.2,
        recurrent_dropout=0.1, output_mode="last", init={"b": "unit-forget-gate"},
    )  # fmt: skip
    output, (h, _) = ours(torch.randn(T, N, I))
    assert output.shape == (N, H)
    assert h.shape == (2, N, H)
    output.square().sum().backward()
    assert all(p.grad is not None for p in ours.parameters())
    assert torch.equal(ours.weight("f")["bias_ih"], torch.ones(H))
    assert torch.equal(ours.weight("f", layer=1)["bias_hh"], torch.zeros(H))
    assert torch.equal(ours.get_parameter("gain_W_l0"), torch.ones(4 * H))


def test_blocks_of_a_gru_put_the_hidden_bias_in_its_own_family() -> None:
    ours = hn.GRU(I, H)
    places = {(b.parameter, b.gate): b.rows for b in ours.blocks()}
    assert places["bias_hh_l0", "d.n"] == slice(2 * H, 3 * H)
    assert places["bias_ih_l0", "b.n"] == slice(2 * H, 3 * H)
    assert ("bias_hh_l0", "b.n") not in places


def test_records_beside_torchs_results() -> None:
    ours = hn.GRU(I, H, bidirectional=True)
    record = hn.Record("r", "h")
    output, _ = ours(torch.randn(T, N, I), record=record)
    torch.testing.assert_close(torch.cat(tuple(record["h"]), -1), output)
    assert record["r"].shape == (2, T, N, H)


def test_parametrized_weights_are_used() -> None:
    ours = hn.LSTM(I, H)
    torch.nn.utils.parametrizations.weight_norm(ours, "weight_hh_l0")
    theirs = nn.LSTM(I, H)
    torch.nn.utils.parametrizations.weight_norm(theirs, "weight_hh_l0")
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(T, N, I)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0])


@pytest.mark.parametrize("rows", [4, 5000], ids=["few rows", "many rows"])
@pytest.mark.parametrize("lengths", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("grad", [False, True], ids=["predicting", "training"])
def test_a_weight_is_computed_once_a_call(rows: int, lengths: bool, grad: bool) -> None:
    """Spectral normalisation, say, takes one step of its iteration each time it is asked."""

    class Counted(nn.Module):
        times = 0

        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            self.times += 1
            return 2 * weight

    ours, counted = hn.LSTM(I, H), Counted()
    torch.nn.utils.parametrize.register_parametrization(ours, "weight_hh_l0", counted)
    counted.times = 0
    given = torch.arange(rows) % (T + 1) if lengths else None
    with torch.set_grad_enabled(grad):
        ours(torch.randn(T, rows, I), lengths=given)
    assert counted.times == 1


@pytest.mark.parametrize("kind", KINDS)
def test_copies_pickles_and_conversions_work(kind: str) -> None:
    ours = getattr(hn, kind)(I, H, 2, zoneout=0.1).eval()
    x = torch.randn(T, N, I)
    expected = ours(x)[0]
    assert torch.equal(copy.deepcopy(ours)(x)[0], expected)
    buffer = io.BytesIO()
    torch.save(ours, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(x)[0], expected)
    assert ours.to(torch.float64)(x.double())[0].dtype == torch.float64


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_are_a_packed_sequence_in_short(kind: str, engine: str) -> None:
    theirs, ours = pair(kind, bidirectional=True, batch_first=True)
    x, lengths = torch.randn(N, T, I), LENGTHS["unsorted"]
    packed = pack_padded_sequence(x, torch.tensor(lengths), True, enforce_sorted=False)
    expected, expected_state = theirs(packed)
    expected, _ = nn.utils.rnn.pad_packed_sequence(expected, True)
    found, state = ours(x, lengths=lengths)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(state, expected_state)
