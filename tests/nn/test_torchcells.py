"""RNNCell, LSTMCell and GRUCell against torch's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from headgate import nn as hn

N, I, H = 4, 3, 5
KINDS = [("RNNCell", {}), ("RNNCell", {"nonlinearity": "relu"}), ("LSTMCell", {}), ("GRUCell", {})]


def pair(kind: str, **arguments: Any) -> tuple[Any, Any]:
    theirs, ours = getattr(nn, kind)(I, H, **arguments), getattr(hn, kind)(I, H, **arguments)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize(("kind", "arguments"), KINDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_outputs_and_gradients_are_torchs(
    kind: str, arguments: dict[str, Any], bias: bool, batched: bool, given: bool,
    dtype: torch.dtype, engine: str, assert_same, gradients,
) -> None:  # fmt: skip
    theirs, ours = pair(kind, bias=bias, dtype=dtype, **arguments)
    rows = (N,) if batched else ()
    x = torch.randn(*rows, I, dtype=dtype, requires_grad=True)
    states = [torch.randn(*rows, H, dtype=dtype, requires_grad=True) for _ in range(2)]
    hx: Any = None if not given else tuple(states) if kind == "LSTMCell" else states[0]
    results = []
    for module in (ours, theirs):
        out = module(x, hx)
        out = list(out) if isinstance(out, tuple) else [out]
        results.append([*out, *gradients(out, [x, *states, *module.parameters()])])
    assert_same(*results)


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_a_cell_is_one_step_of_its_layer(kind: str) -> None:
    cell, layer = getattr(hn, kind)(I, H), getattr(hn, kind.removesuffix("Cell"))(I, H)
    layer.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    x, state = torch.randn(6, N, I), None
    for t in range(6):
        state = cell(x[t], state)
    found = state[0] if isinstance(state, tuple) else state
    torch.testing.assert_close(found, layer(x)[0][-1])


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_weights_names_and_copies_are_torchs(kind: str) -> None:
    torch.manual_seed(1)
    theirs = getattr(nn, kind)(I, H)
    torch.manual_seed(1)
    ours = getattr(hn, kind)(I, H)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    assert repr(ours) == repr(theirs)
    assert isinstance(ours, getattr(nn, kind))
    x = torch.randn(N, I)
    found, expected = copy.deepcopy(ours)(x), ours(x)
    assert torch.equal(*(o[0] if kind == "LSTMCell" else o for o in (found, expected)))


def test_options_stand_beside() -> None:
    cell = hn.LSTMCell(I, H, zoneout=0.5, layer_norm=True)
    assert cell.get_parameter("gain_R").shape == (4 * H,)
    x, state = torch.randn(N, I), (torch.zeros(N, H), torch.ones(N, H))
    torch.manual_seed(1)
    first = cell(x, state)[1]
    assert ((first == 1).sum() - N * H / 2).abs() <= N * H / 3
    assert not torch.equal(first, cell(x, state)[1])
    cell.eval()
    assert torch.equal(cell(x, state)[1], cell(x, state)[1])
    with pytest.raises(TypeError, match="LSTMCell: unknown argument 'residual'"):
        hn.LSTMCell(I, H, residual=True)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("kind", "x", "hx", "message"),
    [
        ("GRUCell", torch.zeros(1, N, I), None, "GRUCell: Expected input to be 1D or 2D, got 3D"),
        ("GRUCell", torch.zeros(N, I + 1), None, "inconsistent input_size: got 4 expected 3"),
        ("GRUCell", torch.zeros(N, I), torch.zeros(N, H + 1), "hidden0 has inconsistent"),
        ("GRUCell", torch.zeros(N, I), torch.zeros(H), r"Expected hx\[0\] to be 2D as the input"),
        ("LSTMCell", torch.zeros(N, I), (torch.zeros(N, H),), r"expected 2 states \(h, c\), got 1"),
    ],
)
def test_wrong_calls_are_explained(kind: str, x: Any, hx: Any, message: str) -> None:
    with pytest.raises((ValueError, RuntimeError), match=message):
        getattr(hn, kind)(I, H)(x, hx)


def test_an_unknown_nonlinearity_is_named() -> None:
    with pytest.raises(RuntimeError, match="Unknown nonlinearity: sin"):
        hn.RNNCell(I, H, nonlinearity="sin")
