"""Every built-in cell computes what its source says: against torch, or plain NumPy loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from headgate import CellError, cells
from headgate.engines import run
from headgate.program import Cell, Program

T, N, I, H, P = 5, 3, 4, 7, 2
Arrays = dict[str, Any]


def sigma(v: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-v))


def draw(program: Program) -> tuple[np.ndarray, list[np.ndarray], dict[str, np.ndarray]]:
    """Random input, states and families; nothing is zero, and no two sizes are equal."""
    random = np.random.default_rng(7)
    named = {"projection": P} if "projection" in program.size_names else {}
    sizes = program.sizes(I, H, named)
    x = random.normal(size=(T, N, I))
    states = [random.normal(size=(N, sizes[state.width])) for state in program.states]
    families = {
        name: 0.6 * random.normal(size=program.shape(name, sizes)) for name in program.families
    }
    return x, states, families


def blocks(program: Program, families: dict[str, np.ndarray]) -> Arrays:
    """``{"W": {"i": ...}, ...}``; a bare family is its array."""
    named = {"projection": P} if "projection" in program.size_names else {}
    sizes = program.sizes(I, H, named)
    parts = {
        name: {block: families[name][rows] for block, rows in program.rows(name, sizes).items()}
        for name in program.families
    }
    return {name: part.get("", part) for name, part in parts.items()}


def through_engine(
    program: Program, x: np.ndarray, states: list[np.ndarray], families: dict[str, np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray]]:
    result = run(
        program,
        {name: torch.from_numpy(value) for name, value in families.items()},
        torch.from_numpy(x),
        tuple(map(torch.from_numpy, states)),
        engine="reference",
    )
    return result.output.numpy(), [state.numpy() for state in result.states]


def check(cell: Cell, step: Callable[..., tuple[np.ndarray, ...]]) -> None:
    """``step(x, *states, w)`` is one step as the source writes it, for one row of the batch."""
    program = cell.program
    x, states, families = draw(program)
    w = blocks(program, families)
    outputs, finals = through_engine(program, x, states, families)
    for row in range(N):
        now = tuple(state[row] for state in states)
        for t in range(T):
            now = step(x[t, row], *now, w)
            np.testing.assert_allclose(outputs[t, row], now[0], rtol=1e-10, atol=1e-12)
        for final, state in zip(finals, now, strict=True):
            np.testing.assert_allclose(final[row], state, rtol=1e-10, atol=1e-12)


TORCH = {
    "rnn": lambda: torch.nn.RNN(I, H),
    "rnn_relu": lambda: torch.nn.RNN(I, H, nonlinearity="relu"),
    "lstm": lambda: torch.nn.LSTM(I, H),
    "lstm_projected": lambda: torch.nn.LSTM(I, H, proj_size=P),
    "gru": lambda: torch.nn.GRU(I, H),
}


@pytest.mark.parametrize("name", TORCH)
def test_against_torch(name: str) -> None:
    program = cells.get(name).program
    x, states, families = draw(program)
    layer = TORCH[name]().double()
    bias = torch.zeros_like(layer.bias_hh_l0)
    if name == "gru":
        bias[2 * H :] = torch.from_numpy(families["d"])
    own = {"weight_ih_l0": "W", "weight_hh_l0": "R", "bias_ih_l0": "b", "weight_hr_l0": "P"}
    values = {key: families[family] for key, family in own.items() if family in families}
    layer.load_state_dict(
        {key: torch.from_numpy(value) for key, value in values.items()} | {"bias_hh_l0": bias}
    )
    hx = [torch.from_numpy(state)[None] for state in states]
    with torch.no_grad():
        wanted, final = layer(torch.from_numpy(x), tuple(hx) if len(hx) > 1 else hx[0])
    outputs, finals = through_engine(program, x, states, families)
    np.testing.assert_allclose(outputs, wanted, rtol=1e-10, atol=1e-12)
    for got, state in zip(finals, final if len(hx) > 1 else (final,), strict=True):
        np.testing.assert_allclose(got, state.squeeze(0), rtol=1e-10, atol=1e-12)


def gate(k: str, x: np.ndarray, h: np.ndarray, w: Arrays) -> np.ndarray:
    return w["W"][k] @ x + w["R"][k] @ h + w["b"][k]


def test_lstm_original_has_no_forget_gate() -> None:
    def step(x, y, s, w):
        s = s + sigma(gate("i", x, y, w)) * np.tanh(gate("g", x, y, w))
        return sigma(gate("o", x, y, w)) * np.tanh(s), s

    check(cells.lstm_original, step)


def test_lstm_coupled_replaces_what_it_forgets() -> None:
    def step(x, h, c, w):
        i = sigma(gate("i", x, h, w))
        c = (1 - i) * c + i * np.tanh(gate("g", x, h, w))
        return sigma(gate("o", x, h, w)) * np.tanh(c), c

    check(cells.lstm_coupled, step)


@pytest.mark.parametrize("gates", ["ifo", "i", "f", "o", "g", "if", "ofi", "ifgo"])
def test_peepholes_into_any_subset(gates: str) -> None:
    def step(x, h, c, w):
        def seen(k, c):
            return w["p"][k] * c if k in gates else 0

        i = sigma(gate("i", x, h, w) + seen("i", c))
        f = sigma(gate("f", x, h, w) + seen("f", c))
        g = np.tanh(gate("g", x, h, w) + seen("g", c))
        c = f * c + i * g
        o = sigma(gate("o", x, h, w) + seen("o", c))
        return o * np.tanh(c), c

    entry = cells.peephole_lstm(gates)
    check(entry, step)
    assert entry.program.families["p"].block_names == tuple(k for k in "ifgo" if k in gates)
    assert entry.program.families["W"].block_names == tuple("ifgo")


def test_the_built_in_peephole_lstm_has_all_three_gates() -> None:
    assert cells.lstm_peephole.program == cells.peephole_lstm("oif").program
    assert cells.peephole_lstm("i").name == "lstm_peephole_i"


@pytest.mark.parametrize("gates", ["", "ii", "x", "c"])
def test_peepholes_elsewhere_are_refused(gates: str) -> None:
    with pytest.raises(ValueError, match=f"non-empty subset of 'ifgo', each once; got '{gates}'"):
        cells.peephole_lstm(gates)


def test_lstm_projected_of_sak() -> None:
    def step(x, r, c, w):
        i, f, o = (sigma(gate(k, x, r, w)) for k in "ifo")
        c = f * c + i * np.tanh(gate("g", x, r, w))
        return w["P"] @ (o * np.tanh(c)), c

    check(cells.lstm_projected, step)


def test_lstm_layer_norm_of_ba() -> None:
    def normalised(v):
        return (v - v.mean()) / np.sqrt(v.var() + 1e-5)

    def stacked(parts, order="fiog"):
        return np.concatenate([parts[k] for k in order])

    def step(x, h, c, w):
        wide = normalised(stacked(w["W"]) @ x) * stacked(w["gain_W"])
        deep = normalised(stacked(w["R"]) @ h) * stacked(w["gain_R"])
        f, i, o, g = np.split(wide + deep + stacked(w["b"]), 4)
        c = sigma(f) * c + sigma(i) * np.tanh(g)
        return sigma(o) * np.tanh(w["gain_c"] * normalised(c) + w["bias_c"]), c

    check(cells.lstm_layer_norm, step)


def test_gru_reset_before_of_cho() -> None:
    def step(x, h, w):
        r, z = sigma(gate("r", x, h, w)), sigma(gate("z", x, h, w))
        n = np.tanh(w["W"]["n"] @ x + w["R"]["n"] @ (r * h) + w["b"]["n"])
        return (z * h + (1 - z) * n,)

    check(cells.gru_reset_before, step)


def test_gru_single_bias_has_none_inside_the_reset() -> None:
    def step(x, h, w):
        r, z = sigma(gate("r", x, h, w)), sigma(gate("z", x, h, w))
        n = np.tanh(w["W"]["n"] @ x + w["b"]["n"] + r * (w["R"]["n"] @ h))
        return (z * h + (1 - z) * n,)

    check(cells.gru_single_bias, step)


# "LSTM: A search space odyssey", section 2 and its list of variants.


def odyssey(variant: str, x: np.ndarray, y: np.ndarray, c: np.ndarray, w: Arrays, past: Any = None):
    def sees(k, c):
        v = gate(k, x, y, w)
        if variant != "NP":
            v = v + w["p"][k] * c
        return v if past is None else v + w["G"][k] @ np.concatenate(past)

    z = gate("g", x, y, w)
    z = z if variant == "NIAF" else np.tanh(z)
    i = np.ones(H) if variant == "NIG" else sigma(sees("i", c))
    fixed = {"NFG": np.ones(H), "CIFG": 1 - i}
    f = fixed[variant] if variant in fixed else sigma(sees("f", c))
    c = z * i + c * f
    o = np.ones(H) if variant == "NOG" else sigma(sees("o", c))
    return (c if variant == "NOAF" else np.tanh(c)) * o, c, i, f, o


@pytest.mark.parametrize("variant", ["NIG", "NFG", "NOG", "NIAF", "NOAF", "CIFG", "NP"])
def test_odyssey(variant: str) -> None:
    check(cells.get(variant), lambda x, y, c, w: odyssey(variant, x, y, c, w)[:2])


def test_odyssey_full_gate_recurrence() -> None:
    check(
        cells.FGR,
        lambda x, y, c, i, f, o, w: odyssey("FGR", x, y, c, w, (i, f, o)),
    )


def test_odyssey_changes_parameters_only_where_the_paper_does() -> None:
    counts = {}
    for name in ("NIG", "NFG", "NOG", "NIAF", "NOAF", "CIFG", "NP", "FGR"):
        program = cells.get(name).program
        sizes = program.sizes(I, H)
        counts[name] = sum(int(np.prod(program.shape(f, sizes))) for f in program.families)
    one_gate = H * I + H * H + 2 * H
    vanilla = 4 * one_gate - H
    assert counts == {
        **dict.fromkeys(("NIG", "NFG", "NOG", "CIFG"), vanilla - one_gate),
        **dict.fromkeys(("NIAF", "NOAF"), vanilla),
        "NP": vanilla - 3 * H,
        "FGR": vanilla + 9 * H * H,
    }


# All of them.


@pytest.mark.parametrize("name", cells.BUILT_IN)
def test_every_built_in_is_found_by_name_and_documented(name: str) -> None:
    entry = cells.get(name)
    assert entry is cells.BUILT_IN[name]
    assert entry is getattr(cells, name)
    assert entry.name == entry.program.name == name
    assert any(str(year) in entry.doc for year in range(1990, 2026)), "the source's year"
    assert set(dir(cells)) >= set(cells.__all__)


SHAPES = {
    "rnn": {"W": (7, 4), "R": (7, 7), "b": (7,)},
    "lstm": {"W": (28, 4), "R": (28, 7), "b": (28,)},
    "lstm_original": {"W": (21, 4), "R": (21, 7), "b": (21,)},
    "lstm_peephole": {"W": (28, 4), "R": (28, 7), "b": (28,), "p": (21,)},
    "lstm_coupled": {"W": (21, 4), "R": (21, 7), "b": (21,)},
    "lstm_projected": {"W": (28, 4), "R": (28, 2), "b": (28,), "P": (2, 7)},
    "lstm_layer_norm": {
        "W": (28, 4),
        "R": (28, 7),
        "b": (28,),
        "gain_W": (28,),
        "gain_R": (28,),
        "gain_c": (7,),
        "bias_c": (7,),
    },
    "gru": {"W": (21, 4), "R": (21, 7), "b": (21,), "d": (7,)},
    "gru_single_bias": {"W": (21, 4), "R": (21, 7), "b": (21,)},
    "gru_reset_before": {"W": (21, 4), "R": (21, 7), "b": (21,)},
    "FGR": {"W": (28, 4), "R": (28, 7), "b": (28,), "p": (21,), "G": (21, 21)},
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str) -> None:
    program = cells.get(name).program
    sizes = program.sizes(I, H, {"projection": P} if name == "lstm_projected" else None)
    assert {family: program.shape(family, sizes) for family in program.families} == SHAPES[name]


def test_torchs_row_blocks() -> None:
    assert cells.lstm.program.families["W"].block_names == ("i", "f", "g", "o")
    assert cells.gru.program.families["W"].block_names == ("r", "z", "n")
    assert cells.gru.program.families["d"].block_names == ("n",)


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no built-in cell is named 'ltsm'; .*lstm, .*gru, .*FGR"):
        cells.get("ltsm")
    assert not issubclass(ValueError, CellError)
