"""How far gates stand open, how long units remember, and which do nothing."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headgate import Recurrent, cell, cells, hard_sigmoid, tanh
from headgate.inspection import (
    Observation,
    gates_of,
    idle_units,
    memory_lengths,
    observe,
    saturation,
)
from headgate.program import Cell

LENGTHS = [9, 0, 4]
CELLS = Path(__file__).parents[2] / "examples" / "cells"


def own(name: str) -> Cell:
    """A cell of the examples."""
    spec = importlib.util.spec_from_file_location(name, CELLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


def network(kind: Any, gates: Mapping[str, float] | None = None, **options: Any) -> Recurrent:
    """Random, or with gates that stand where they are set whatever comes."""
    made = Recurrent(kind, 3, 4, dtype=torch.float64, **options)
    with torch.no_grad():
        for block in made.blocks():
            parameter = dict(made.named_parameters())[block.parameter]
            parameter[block.rows] = torch.randn_like(parameter[block.rows])
            if gates is not None and block.block in gates:
                opened = logit(gates[block.block])
                parameter[block.rows] = opened if block.family == "b" else 0.0
    return made


def seen(module: Recurrent, lengths: list[int] | None = None, **options: Any) -> Observation:
    x = torch.randn(9, 3, 3, dtype=torch.float64)
    return observe(module, x, lengths=LENGTHS if lengths is None else lengths, **options)


@cell
def clipped(x, h, *, W, R, b):
    f = hard_sigmoid(W.f @ x + R.f @ h + b.f)
    squashed = tanh(W.g @ x + R.g @ h + b.g)
    positive = squashed * squashed
    h = f * h + (1 - f) * positive
    return h


GATES = {
    "rnn": (),
    "lstm": ("i", "f", "o"),
    "lstm_original": ("i", "o"),
    "lstm_coupled": ("i", "f", "o"),
    "gru": ("r", "z"),
    "FGR": ("i", "f", "o"),
}


@pytest.mark.parametrize("name", GATES)
def test_gates_are_told_by_the_equations(name: str) -> None:
    assert gates_of(cells.get(name).program) == GATES[name]


def test_values_between_zero_and_one_are_no_gates_and_a_hard_sigmoid_is_one() -> None:
    assert gates_of(clipped.program) == ("f",)
    hard = Recurrent("lstm", 2, 2, gate_activation="hard_sigmoid").program
    assert gates_of(hard) == ("i", "f", "o")
    assert gates_of(own("slstm").program) == ("o",)


def test_shares_count_valid_steps_alone() -> None:
    module = network("lstm", {"i": 0.05, "f": 0.95, "o": 0.5}, num_layers=2)
    table = saturation(seen(module))
    assert [*zip(table["layer"], table["gate"], strict=True)] == [
        (layer, gate) for layer in (0, 1) for gate in "ifo"
    ]
    assert table["values"].to_list() == [(9 + 4) * 4] * 6
    assert table["closed"].to_list() == [1, 0, 0] * 2
    assert table["half"].to_list() == [0, 0, 1] * 2
    assert table["open"].to_list() == [0, 1, 0] * 2
    np.testing.assert_allclose(table["mean"], [0.05, 0.95, 0.5] * 2, rtol=1e-12)


def test_shares_of_gates_that_move() -> None:
    observation = seen(network("gru"))
    (r, _) = saturation(observation).to_dicts()
    values = observation.layers[0, 0].values["r"][observation.valid]
    assert 0 < r["closed"] < 1
    assert r["closed"] == (values < 0.1).mean()
    assert r["open"] == (values > 0.9).mean()
    assert r["closed"] + r["half"] + r["open"] == pytest.approx(1)


def test_no_valid_step_and_no_gate() -> None:
    table = saturation(seen(network("lstm"), [0, 0, 0]))
    assert table["values"].to_list() == [0, 0, 0]
    assert table["closed"].is_nan().all()
    assert idle_units(seen(network("lstm"), [0, 0, 0])).is_empty()
    assert memory_lengths(seen(network("lstm"), [0, 0, 0]))["memory"].is_nan().all()
    assert saturation(seen(network("rnn"))).is_empty()


FACTORS: dict[str, tuple[str, str, Callable[[Mapping[str, np.ndarray]], np.ndarray]]] = {
    "lstm": ("c", "f", lambda v: v["f"]),
    "lstm_peephole": ("c", "f", lambda v: v["f"]),
    "lstm_coupled": ("c", "f", lambda v: 1 - v["i"]),
    "lstm_projected": ("c", "f", lambda v: v["f"]),
    "lstm_layer_norm": ("c", "f", lambda v: v["f"]),
    "FGR": ("c", "f", lambda v: v["f"]),
    "gru": ("h", "z", lambda v: v["z"]),
    "gru_reset_before": ("h", "z", lambda v: v["z"]),
    "mgu": ("h", "1 - f", lambda v: 1 - v["f"]),
    "janet": ("h", "f", lambda v: v["f"]),
    "slstm": ("c", "f", lambda v: v["f"]),
}


@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.parametrize("names", [(), ("h",)])
def test_memory_follows_from_what_multiplies_the_old_state(
    name: str, names: tuple[str, ...]
) -> None:
    kind = own(name) if name in ("mgu", "janet", "slstm") else name
    sizes = {"projection": 2} if name == "lstm_projected" else None
    module = network(kind, num_layers=2, bidirectional=True, sizes=sizes)
    x = torch.randn(9, 3, 3, dtype=torch.float64)
    whole, part = (observe(module, x, lengths=LENGTHS, names=n) for n in ((), names))
    state, factor, formula = FACTORS[name]
    table = memory_lengths(part).filter(state=state)
    assert set(table["factor"]) == {factor}
    for (layer, direction), each in whole.layers.items():
        inner = [
            formula(each.values)[n, : length - 1]
            if direction
            else formula(each.values)[n, 1:length]
            for n, length in enumerate(LENGTHS)
            if length
        ]
        expected = -1 / np.log(np.concatenate(inner)).mean(axis=0)
        found = table.filter(layer=layer, direction=direction)
        assert found["unit"].to_list() == list(range(len(expected)))
        np.testing.assert_allclose(found["memory"], expected, rtol=1e-9)


def test_memory_is_where_the_factors_product_falls_to_1_over_e() -> None:
    module = network("lstm", {"f": 0.95, "i": 0.5, "g": 0.7, "o": 0.5})
    (length,) = set(memory_lengths(seen(module))["memory"].round(9))
    assert length == pytest.approx(-1 / np.log(0.95))
    observation = seen(module, [9, 9, 9])
    start = observation.layers[0, 0].states["c"][:, 0]
    settled = 0.5 * np.tanh(logit(0.7)) / (1 - 0.95)
    left = (observation.layers[0, 0].states["c"][:, 8] - settled) / (start - settled)
    np.testing.assert_allclose(left, np.exp(-8 / length))


def test_a_cell_that_never_forgets_and_one_that_never_remembers() -> None:
    assert memory_lengths(seen(network("lstm_original")))["memory"].is_infinite().all()
    table = memory_lengths(seen(network("rnn")))
    assert table.is_empty()
    assert table.columns == ["layer", "direction", "state", "factor", "unit", "memory"]
    assert memory_lengths(seen(network(own("indrnn")))).is_empty()


def test_a_gate_that_is_once_quite_closed_leaves_a_number() -> None:
    module = network(clipped)
    observation = seen(module)
    table = memory_lengths(observation)
    f = observation.layers[0, 0].values["f"][observation.valid]
    assert (f == 0).any()
    assert table["memory"].is_finite().all()
    assert (table["memory"] > 0).all()


def test_zoneout_keeps_its_share_of_the_old_state() -> None:
    module = network("lstm", {"f": 0.9}, zoneout={"c": 0.2})
    table = memory_lengths(seen(module))
    np.testing.assert_allclose(table["memory"], -1 / np.log(0.2 + 0.8 * 0.9), rtol=1e-9)


def test_clipping_a_state_leaves_its_factor() -> None:
    module = network("lstm", {"f": 0.9}, clip_state=0.5)
    np.testing.assert_allclose(memory_lengths(seen(module))["memory"], -1 / np.log(0.9))


def test_dead_and_stuck_units_are_named() -> None:
    module = network("lstm", {"i": 0.5, "f": 0.5, "g": 0.5, "o": 0.5})
    with torch.no_grad():
        for gate, unit, value in (("o", 1, -20.0), ("f", 2, 5.0)):
            module.weight(gate)["b"][unit] = value
        module.weight("g")["W"].normal_()
    idle = idle_units(seen(module))
    assert idle.rows() == [
        (0, 0, "h", 1, "dead"),
        (0, 0, "f", 2, "stuck open"),
        (0, 0, "o", 1, "stuck closed"),
    ]
