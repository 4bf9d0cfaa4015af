"""Layers one on another without gradients: side by side on the compiled engine, the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import headgate as hg
from headgate import native
from headgate.nn import operator
from headgate.nn.stack import Stack

I, H = 33, 65
"""Large enough that a few steps are worth a thread of their own."""

pytestmark = pytest.mark.skipif(not native.available, reason=f"compiled engine {native.reason}")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def stack(cell: str, layers: int, **options: Any) -> hg.Recurrent:
    torch.manual_seed(1)
    sizes = {"sizes": {"projection": 40}} if cell == "lstm_projected" else {}
    module = hg.Recurrent(cell, I, H, layers, **sizes, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-0.3, 0.3)
    return module


def everything(module: hg.Recurrent, x: Tensor, threads: int, **call: Any) -> list[Tensor]:
    torch.set_num_threads(threads)
    torch.manual_seed(3)
    output, states = module(x, **call)
    return [output, *(states if isinstance(states, tuple) else [states])]


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator, "_nothing_between", lambda *_: False)
    monkeypatch.setattr(Stack, "_again", lambda *_: None)


@pytest.mark.parametrize("cell", ["lstm", "gru", "lstm_layer_norm", "lstm_projected", "rnn"])
@pytest.mark.parametrize("layers", [2, 3, 5])
@pytest.mark.parametrize(("T", "N"), [(1, 1), (16, 2), (17, 1), (150, 1), (90, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_are_those_of_layers_one_by_one(
    cell: str, layers: int, T: int, N: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, x = stack(cell, layers, dtype=dtype), torch.randn(T, N, I, dtype=dtype)
    with torch.no_grad():
        together = [everything(module, x, threads) for threads in (1, 2)]
        one_by_one(monkeypatch)
        expected = everything(module, x, 1)
    for found in together:
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("lengths", [[90, 3, 0], [0, 17, 90], [0, 0, 0], [16, 16, 1]])
@pytest.mark.parametrize("mode", ["sequence", "last"])
def test_ragged(lengths: list[int], mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = stack("gru", 3, output_mode=mode), torch.randn(90, 3, I)
    x[torch.arange(90)[:, None] >= torch.tensor(lengths)] = torch.nan
    with torch.inference_mode():
        together = everything(module, x, 2, lengths=lengths)
        one_by_one(monkeypatch)
        expected = everything(module, x, 1, lengths=lengths)
    assert all(map(torch.equal, together, expected))
    assert not any(t.isnan().any() for t in together)


@pytest.mark.parametrize(
    "options",
    [{"zoneout": 0.3}, {"dropout": 0.3}, {"weight_drop": 0.3}],
    ids=lambda o: next(iter(o)),
)
def test_random_numbers_are_the_same(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = stack("lstm", 3, **options), torch.randn(60, 1, I)
    with torch.no_grad():
        together = everything(module, x, 2)
        one_by_one(monkeypatch)
        expected = everything(module, x, 1)
    assert all(map(torch.equal, together, expected))


def test_records_and_what_is_copied_between_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = stack("lstm", 2), torch.randn(60, 1, I)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        record = hg.Record("f", "c")
        recorded = everything(module, x, 2, record=record)
        together = everything(module, x, 2)
        one_by_one(monkeypatch)
        expected = everything(module, x, 1)
    assert record["f"].shape == (2, 60, 1, H)
    assert expected[0].dtype == torch.float32  # the compiled engine has no lower precision
    for found in (recorded, together):
        assert all(map(torch.equal, found, expected))
