"""The gallery: cells written as a user would write them, run as they stand."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headgate.engines import run
from headgate.program import Cell

GALLERY = Path(__file__).parents[2] / "examples" / "cells"
T, N, I, H = 6, 3, 4, 5


def load(name: str) -> Cell:
    spec = importlib.util.spec_from_file_location(name, GALLERY / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def sigma(v: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-v))


def mgu(x, h, w):
    f = sigma(w["W"]["f"] @ np.concatenate([h, x]) + w["b"]["f"])
    candidate = np.tanh(w["W"]["g"] @ np.concatenate([f * h, x]) + w["b"]["g"])
    return ((1 - f) * h + f * candidate,)


def indrnn(x, h, w):
    return (np.maximum(w["W"] @ x + w["u"] * h + w["b"], 0),)


def janet(x, c, w):
    s = w["R"]["f"] @ c + w["W"]["f"] @ x + w["b"]["f"]
    candidate = np.tanh(w["R"]["g"] @ c + w["W"]["g"] @ x + w["b"]["g"])
    return (sigma(s) * c + (1 - sigma(s - 1)) * candidate,)


def slstm(x, h, c, n, m, w):
    i, f, z, o = (w["W"][k] @ x + w["R"][k] @ h + w["b"][k] for k in "ifzo")
    log_f = -np.log1p(np.exp(-f))
    new = np.maximum(log_f + m, i)
    i, f = np.exp(i - new), np.exp(log_f + m - new)
    c = f * c + i * np.tanh(z)
    n = f * n + i
    return sigma(o) * c / n, c, n, new


STEPS: dict[str, Callable[..., tuple[np.ndarray, ...]]] = {
    "mgu": mgu,
    "indrnn": indrnn,
    "janet": janet,
    "slstm": slstm,
}


def drawn(cell: Cell) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    torch.manual_seed(3)
    program = cell.program
    sizes = program.sizes(I, H)
    families = {
        name: torch.randn(program.shape(name, sizes), dtype=torch.float64)
        for name in program.families
    }
    states = tuple(
        torch.full((N, H), state.initial, dtype=torch.float64) for state in program.states
    )
    return torch.randn(T, N, I, dtype=torch.float64), states, families


def test_every_example_is_tested() -> None:
    assert {path.stem for path in GALLERY.glob("*.py")} == set(STEPS)


@pytest.mark.parametrize("name", STEPS)
def test_against_the_papers_equations(name: str) -> None:
    cell = load(name)
    x, states, families = drawn(cell)
    result = run(cell.program, families, x, states)
    sizes = cell.program.sizes(I, H)
    w: dict[str, Any] = {}
    for family, value in families.items():
        rows = cell.program.rows(family, sizes)
        parts = {block: value[where].numpy() for block, where in rows.items()}
        w[family] = parts.get("", parts)
    for row in range(N):
        now = tuple(state[row].numpy() for state in states)
        for t in range(T):
            now = STEPS[name](x[t, row].numpy(), *now, w)
            np.testing.assert_allclose(result.output[t, row], now[0], rtol=1e-10, atol=1e-12)
        for final, state in zip(result.states, now, strict=True):
            np.testing.assert_allclose(final[row], state, rtol=1e-10, atol=1e-12)


def test_slstm_stands_extreme_gates() -> None:
    """exp overflows at 710 and σ underflows at −745 in float64: neither reaches h."""
    cell = load("slstm")
    x, states, families = drawn(cell)
    x.requires_grad_()
    for gate in (-2000.0, 2000.0):
        bias = torch.cat([torch.full((2 * H,), gate), torch.zeros(2 * H)]).double()
        for i_only in (False, True):
            b = bias.clone()
            if i_only:
                b[H : 2 * H] = -gate
            output = run(cell.program, families | {"b": b}, x, states).output
            assert torch.isfinite(output).all()
            assert output.abs().max() <= 1
            (gradient,) = torch.autograd.grad(output.square().sum(), x)
            assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", STEPS)
def test_runs_as_a_script_and_prints_its_equations(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(GALLERY / f"{name}.py")], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{name}(x: input; h: hidden = 0")
    assert "h[t] = " in done.stdout
