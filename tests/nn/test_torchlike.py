"""RNN, LSTM and GRU against torch's, in every option torch has."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from headgate import native
from headgate import nn as hn

KINDS = ("LSTM", "GRU", "RNN")
LENGTHS = {"sorted": [6, 5, 3, 1], "unsorted": [3, 6, 1, 5]}
T, N, I, H = 6, 4, 5, 7


@dataclass(frozen=True)
class Case:
    layers: int
    bidirectional: bool
    bias: bool
    batch_first: bool
    form: str
    given_state: bool
    projected: bool
    relu: bool
    dtype: torch.dtype

    def arguments(self, kind: str) -> dict[str, Any]:
        options: dict[str, Any] = {"proj_size": 3} if kind == "LSTM" and self.projected else {}
        if kind == "RNN" and self.relu:
            options["nonlinearity"] = "relu"
        return options | {
            "num_layers": self.layers,
            "bidirectional": self.bidirectional,
            "bias": self.bias,
            "batch_first": self.batch_first,
            "dtype": self.dtype,
        }


CASES = st.builds(
    Case,
    layers=st.sampled_from([1, 2, 3]),
    bidirectional=st.booleans(),
    bias=st.booleans(),
    batch_first=st.booleans(),
    form=st.sampled_from(["batched", "unbatched", "sorted", "unsorted"]),
    given_state=st.booleans(),
    projected=st.booleans(),
    relu=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)


def pair(kind: str, **arguments: Any) -> tuple[Any, Any]:
    """torch's module with random parameters, and Headgate's that loaded its state dict."""
    theirs = getattr(nn, kind)(I, H, **arguments)
    ours = getattr(hn, kind)(I, H, **arguments)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def make_input(case: Case) -> Tensor:
    shape = (T, I) if case.form == "unbatched" else (N, T, I) if case.batch_first else (T, N, I)
    return torch.randn(shape, dtype=case.dtype, requires_grad=True)


def passed(case: Case, x: Tensor) -> Any:
    """What the module is given for x."""
    if case.form not in LENGTHS:
        return x
    lengths = torch.tensor(LENGTHS[case.form])
    return pack_padded_sequence(x, lengths, case.batch_first, enforce_sorted=case.form == "sorted")


def make_state(case: Case, kind: str) -> list[Tensor]:
    directions = 2 if case.bidirectional else 1
    rows = () if case.form == "unbatched" else (N,)
    h = 3 if kind == "LSTM" and case.projected else H
    widths = [h, H] if kind == "LSTM" else [h]
    return [
        torch.randn(case.layers * directions, *rows, w, dtype=case.dtype, requires_grad=True)
        for w in widths
    ]


def results(module: Any, given: Any, states: list[Tensor]) -> list[Tensor]:
    hx: Any = tuple(states) if len(states) > 1 else states[0] if states else None
    output, final = module(given, hx)
    data = output.data if isinstance(output, PackedSequence) else output
    return [data, *(final if isinstance(final, tuple) else (final,))]


@pytest.mark.parametrize("name", ["reference", "aten", *["cpu"] * native.available])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@settings(max_examples=60)
@given(case=CASES)
def test_outputs_and_gradients_are_torchs(
    name: str, kind: str, case: Case, use_engine, assert_same, gradients
) -> None:
    torch.manual_seed(1)
    theirs, ours = pair(kind, **case.arguments(kind))
    x = make_input(case)
    states = make_state(case, kind) if case.given_state else []
    with use_engine(name):
        found = results(ours, passed(case, x), states)
        wanted = [x, *states]
        ours_gradients = gradients(found, [*wanted, *ours.parameters()])
    expected = results(theirs, passed(case, x), states)
    assert_same(found, expected, "output, states")
    theirs_gradients = gradients(expected, [*wanted, *theirs.parameters()])
    assert_same(ours_gradients, theirs_gradients, "gradients")


@pytest.mark.parametrize("kind", KINDS)
def test_packed_output_keeps_the_order_of_the_input(kind: str, engine: str) -> None:
    theirs, ours = pair(kind)
    packed = pack_padded_sequence(
        torch.randn(T, N, I), torch.tensor(LENGTHS["unsorted"]), enforce_sorted=False
    )
    expected, found = theirs(packed)[0], ours(packed)[0]
    assert isinstance(found, PackedSequence)
    torch.testing.assert_close(found.data, expected.data)
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("kind", KINDS)
def test_initial_weights_keys_and_attributes_are_torchs(kind: str) -> None:
    arguments = {"num_layers": 2, "bidirectional": True}
    torch.manual_seed(3)
    theirs = getattr(nn, kind)(I, H, **arguments)
    torch.manual_seed(3)
    ours = getattr(hn, kind)(I, H, **arguments)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(found, expected)
    for name in ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert [len(weights) for weights in ours.all_weights] == [4, 4, 4, 4]
    ours.flatten_parameters()
    assert isinstance(ours, getattr(nn, kind))
    assert repr(ours) == repr(theirs)
    theirs.load_state_dict(ours.state_dict())
    torch.manual_seed(4)
    theirs.reset_parameters()
    torch.manual_seed(4)
    ours.reset_parameters()
    assert torch.equal(ours.weight_hh_l1, theirs.weight_hh_l1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("RNN", "input_size hidden_size num_layers nonlinearity bias batch_first dropout"),
        ("LSTM", "input_size hidden_size num_layers bias batch_first dropout bidirectional"),
        ("GRU", "input_size hidden_size num_layers bias batch_first dropout bidirectional"),
        ("RNNCell", "input_size hidden_size bias nonlinearity device dtype"),
        ("LSTMCell", "input_size hidden_size bias device dtype"),
        ("GRUCell", "input_size hidden_size bias device dtype"),
    ],
)
def test_arguments_stand_in_torchs_order(name: str, expected: str) -> None:
    found = list(inspect.signature(getattr(hn, name)).parameters)
    assert found[: len(expected.split())] == expected.split()
    assert list(inspect.signature(getattr(hn, name).forward).parameters)[1:3] == ["input", "hx"]


def test_positional_arguments_build_what_torch_builds() -> None:
    assert repr(hn.RNN(3, 4, 2, "relu", False, True, 0.5, True)) == repr(
        nn.RNN(3, 4, 2, "relu", False, True, 0.5, True)
    )
    assert repr(hn.LSTM(3, 4, 2, False, True, 0.5, True, 2)) == repr(
        nn.LSTM(3, 4, 2, False, True, 0.5, True, 2)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(0, N, I), (T, 0, I), (0, I)])
def test_no_steps_or_no_rows(kind: str, shape: tuple[int, ...], engine: str) -> None:
    ours = getattr(hn, kind)(I, H, 2, bidirectional=True)
    state = [torch.randn(4, *shape[1:-1], H) for _ in range(2 if kind == "LSTM" else 1)]
    output, final = ours(torch.randn(shape), tuple(state) if kind == "LSTM" else state[0])
    assert output.shape == (*shape[:-1], 2 * H)
    assert torch.equal(final[0] if kind == "LSTM" else final, state[0])


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_gives_torchs_dtypes(kind: str, engine: str) -> None:
    theirs, ours = pair(kind, num_layers=2)
    x = torch.randn(T, N, I)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, found = theirs(x)[0], ours(x, lengths=[T - 1, T, T, T])[0]
        whole = ours(x)[0]
    assert found.dtype == whole.dtype == expected.dtype
    torch.testing.assert_close(found[:, 1:], expected[:, 1:], rtol=0.05, atol=0.05)
    whole.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in ours.parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", ["dims", "width", "dtype", "state", "state dims", "dropout"])
def test_errors_are_torchs(kind: str, wrong: str, engine: str) -> None:
    arguments = {"num_layers": 2, "dropout": 2.0} if wrong == "dropout" else {"num_layers": 2}
    x = {
        "dims": torch.randn(1, 2, 3, 4),
        "width": torch.randn(T, N, I + 1),
        "dtype": torch.randn(T, N, I).double(),
    }.get(wrong, torch.randn(T, N, I))
    h = torch.randn(2, N) if wrong == "state dims" else torch.randn(2, N, H + 1)
    state = None if "state" not in wrong else (h, h) if kind == "LSTM" else h

    def caught(library: Any) -> Exception:
        with pytest.raises((ValueError, RuntimeError)) as raised:
            getattr(library, kind)(I, H, **arguments)(x, state)
        return raised.value

    ours, theirs = caught(hn), caught(nn)
    assert type(ours) is type(theirs)
    assert str(ours).replace("4D tensor", "4D") == str(theirs).replace("4D tensor", "4D")


def test_projection_is_for_lstm_alone() -> None:
    for kind in ("RNN", "GRU"):
        with pytest.raises(ValueError, match="only supported for LSTM"):
            getattr(hn, kind)(I, H, proj_size=3)
