"""Initial weights by name, for each family and each gate."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
import torch

from headgate import nn as hn
from headgate.nn import Recurrent, chrono

I, H = 60, 80


def layer(cell: str = "lstm", **options: Any) -> Recurrent:
    return Recurrent(cell, I, H, dtype=torch.float64, **options)


def family(made: torch.nn.Module, name: str) -> torch.Tensor:
    return made.get_parameter(f"{name}_l0").detach()


def test_the_defaults_are_glorot_orthogonal_and_an_open_forget_gate() -> None:
    made = layer()
    bound = math.sqrt(6 / (I + 4 * H))
    assert family(made, "W").abs().max() <= bound
    assert family(made, "W").var().item() == pytest.approx(2 / (I + 4 * H), rel=0.05)
    R = family(made, "R")
    torch.testing.assert_close(R.T @ R, torch.eye(H, dtype=torch.float64))
    assert torch.equal(made.weight("f")["b"], torch.ones(H, dtype=torch.float64))
    assert all(not made.weight(gate)["b"].any() for gate in "igo")


def test_peepholes_start_narrow_and_gains_at_one() -> None:
    peepholes = family(layer("lstm_peephole"), "p")
    assert 0 < peepholes.std().item() < 0.02
    assert (family(layer(layer_norm=True), "gain_R") == 1).all()
    assert not family(layer("gru"), "b").any()


@pytest.mark.parametrize(
    ("name", "deviation", "largest"),
    [
        ("glorot", math.sqrt(2 / (I + 4 * H)), math.sqrt(6 / (I + 4 * H))),
        ("he", math.sqrt(2 / I), None),
        ("narrow-normal", 0.01, None),
        ("torch", math.sqrt(1 / (3 * H)), math.sqrt(1 / H)),
        ("orthogonal", math.sqrt(1 / (4 * H)), 1.0),
        ("orthogonal-gates", math.sqrt(1 / H), 1.0),
        ("zeros", 0.0, 0.0),
        ("ones", 0.0, 1.0),
    ],
)
def test_each_name_has_its_spread(name: str, deviation: float, largest: float | None) -> None:
    W = family(layer(init={"W": name}), "W")
    assert W.std().item() == pytest.approx(deviation, rel=0.05, abs=1e-12)
    assert largest is None or W.abs().max().item() <= largest


def test_orthogonal_of_each_gate_by_itself() -> None:
    made = layer(init={"R": "orthogonal-gates"})
    for gate in "ifgo":
        block = made.weight(gate)["R"].detach()
        torch.testing.assert_close(block @ block.T, torch.eye(H, dtype=torch.float64))


def test_gates_are_set_after_their_family_in_any_order() -> None:
    made = layer(init={"b.o": "ones", "W.i": "zeros", "b": "narrow-normal"})
    assert (made.weight("o")["b"] == 1).all()
    assert made.weight("i")["b"].abs().sum() > 0
    assert not made.weight("i")["W"].any()
    assert made.weight("f")["W"].abs().sum() > 0


def test_chrono_spreads_the_time_scales() -> None:
    made = layer(init={"b": chrono(100)})
    f = made.weight("f")["b"].detach()
    assert torch.equal(made.weight("i")["b"].detach(), -f)
    assert not made.weight("g")["b"].any()
    assert f.min() >= 0
    assert f.max() <= math.log(99)
    assert f.exp().mean().item() == pytest.approx(50, rel=0.2)
    update = layer("gru", init={"b.z": chrono(50)}).weight("z")["b"]
    assert update.min() >= 0
    assert update.max() > 1
    with pytest.raises(ValueError, match="max_steps must be at least 3, got 2"):
        chrono(2)


def test_functions_fill_or_return() -> None:
    made = layer(init={"W": torch.nn.init.ones_, "R": lambda tensor: torch.full_like(tensor, 0.5)})
    assert (family(made, "W") == 1).all()
    assert (family(made, "R") == 0.5).all()
    with pytest.raises(ValueError, match=r"must make values of shape \(320, 60\), got \(2,\)"):
        layer(init={"W": lambda tensor: torch.zeros(2)})


def test_one_name_for_all_families() -> None:
    made = layer(init="torch")
    assert all(p.abs().max() <= 1 / math.sqrt(H) for p in made.parameters())
    assert all(p.abs().sum() > 0 for p in made.parameters())


def test_reset_repeats_for_a_seed_and_pickles() -> None:
    made = layer(init={"b": chrono(20)})
    torch.manual_seed(1)
    made.reset_parameters()
    copy = pickle.loads(pickle.dumps(made))
    torch.manual_seed(1)
    copy.reset_parameters()
    for found, expected in zip(copy.parameters(), made.parameters(), strict=True):
        assert torch.equal(found, expected)


def test_of_torchs_two_biases_one_is_set_and_the_other_zero() -> None:
    made = hn.LSTM(I, H, init={"b": "unit-forget-gate", "R": "orthogonal"})
    assert (made.weight("f")["bias_ih"] == 1).all()
    assert not family(made, "bias_hh").any()
    R = family(made, "weight_hh")
    torch.testing.assert_close(R.T @ R, torch.eye(H))
    gru = hn.GRU(I, H, init={"d": "ones", "b": "zeros"})
    assert (family(gru, "bias_hh")[2 * H :] == 1).all()
    assert not family(gru, "bias_hh")[: 2 * H].any()
    assert (hn.LSTMCell(I, H, init={"b.f": "ones"}).weight("f")["bias_ih"] == 1).all()


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ({"V": "zeros"}, r"'lstm' has no parameters 'V'; it has W, W.i, .*R.f"),
        ({"W.z": "zeros"}, "has no parameters 'W.z'"),
        ({"W": "xavier"}, r"unknown initialiser 'xavier'; give a function or one of glorot, he"),
        ({"b": "glorot"}, "init of 'b': glorot needs a matrix, but this is a vector"),
    ],
)
def test_wrong_initialisers_are_explained(init: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer(init=init)


def test_a_forget_gate_is_asked_for_where_there_is_none() -> None:
    with pytest.raises(ValueError, match=r"needs a gate named f, but the gates are r, z, n"):
        layer("gru", init={"b": "unit-forget-gate"})


def test_a_gates_blocks_are_views() -> None:
    made = Recurrent("lstm", 3, 4, 2, bidirectional=True)
    found = made.weight("f", layer=1, direction=1)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "W": (4, 8),
        "R": (4, 4),
        "b": (4,),
    }
    with torch.no_grad():
        found["b"].fill_(3.0)
    assert made.get_parameter("b_l1_reverse")[4:8].tolist() == [3.0] * 4
    with pytest.raises(KeyError, match="no gate named 'z'; the gates are 'i', 'f', 'g', 'o'"):
        made.weight("z")
    with pytest.raises(KeyError, match="no layer 2 with direction 0"):
        made.weight("f", layer=2)


@pytest.mark.parametrize("made", [Recurrent("gru", 3, 4, 2), hn.GRU(3, 4, 2), hn.GRUCell(3, 4)])
def test_blocks_cover_every_row_once(made: Any) -> None:
    rows: dict[str, list[int]] = {}
    for block in made.blocks():
        rows.setdefault(block.parameter, []).extend(range(block.rows.start, block.rows.stop))
    assert rows == {name: list(range(len(p))) for name, p in made.named_parameters()}
