"""Observations: what a module did inside, and that watching it leaves no trace."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import headgate
from headgate import Record, Recurrent
from headgate.inspection import Observation, observe
from headgate.program import Cell

N, T, I, H = 4, 6, 3, 5
LENGTHS = [6, 0, 3, 5]
CELLS = Path(__file__).parents[2] / "examples" / "cells"


def own(name: str) -> Cell:
    """A cell of the examples."""
    spec = importlib.util.spec_from_file_location(name, CELLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def layers(cell: Any, **options: Any) -> Recurrent:
    return Recurrent(cell, I, H, 2, bidirectional=True, dtype=torch.float64, **options)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def sigmoid(v: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-v))


@pytest.mark.parametrize("cell", ["lstm", "gru", "mgu"])
def test_the_table_holds_what_the_reference_engine_computes(
    cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = layers(own(cell) if cell == "mgu" else cell)
    x = random(T, N, I)
    x[3:, 2] = np.nan  # padding
    found = observe(module, x, lengths=LENGTHS, gradients=True).table()
    monkeypatch.setenv("HEADGATE_ENGINE", "reference")
    truth = observe(module, x, lengths=LENGTHS, gradients=True).table()
    names = module.program.names
    assert found.columns == [
        *("row", "step", "layer", "direction", "name", "unit", "value", "gradient"),
    ]
    assert found.height == sum(LENGTHS) * 4 * len(names) * H
    assert found.drop("value", "gradient").equals(truth.drop("value", "gradient"))
    for column in ("value", "gradient"):
        np.testing.assert_allclose(found[column], truth[column], rtol=1e-10, atol=1e-12)
    assert found.filter(pl.col("row") == 1).is_empty()


def test_each_line_of_the_table_is_the_value_of_its_place() -> None:
    module, record, x = layers("lstm"), Record(gradients=True), random(T, N, I)
    output, _ = module(x, lengths=LENGTHS, record=record)
    last = [output[n - 1, row] for row, n in enumerate(LENGTHS) if n]
    torch.stack(last).sum().backward()
    table = observe(module, x, lengths=LENGTHS, gradients=True).table()
    for layer, direction, name, row, step, unit in (
        (0, 0, "i", 0, 0, 0),
        (1, 1, "c", 2, 2, 4),
        (1, 0, "h", 3, 4, 1),
        (0, 1, "f", 0, 5, 3),
    ):
        where = {"layer": layer, "direction": direction, "name": name, "row": row, "step": step}
        (line,) = table.filter(**where, unit=unit).to_dicts()
        expected = record.at(name, layer, direction).detach()[step, row, unit]
        assert line["value"] == pytest.approx(float(expected), rel=1e-12)
        expected = record.gradient_at(name, layer, direction)[step, row, unit]
        assert line["gradient"] == pytest.approx(float(expected), rel=1e-10)


def test_a_layer_holds_what_fills_in_its_equations() -> None:
    module = layers("lstm", learn_initial_state=True)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    seen = observe(module, random(T, N, I), lengths=LENGTHS)
    for (_, direction), layer in seen.layers.items():
        rows = layer.program.rows("W", layer.sizes)
        for n, length in enumerate(LENGTHS):
            h, c = layer.initial["h"][n], layer.initial["c"][n]
            steps = range(length)
            for t in reversed(steps) if direction else steps:
                a = {
                    gate: layer.weights["W"][at] @ layer.input[n, t]
                    + layer.weights["R"][at] @ h
                    + layer.weights["b"][at]
                    for gate, at in rows.items()
                }
                c = sigmoid(a["f"]) * c + sigmoid(a["i"]) * np.tanh(a["g"])
                h = sigmoid(a["o"]) * np.tanh(c)
                np.testing.assert_allclose(layer.values["i"][n, t], sigmoid(a["i"]), rtol=1e-9)
                np.testing.assert_allclose(layer.values["c"][n, t], c, rtol=1e-9)
                np.testing.assert_allclose(layer.values["h"][n, t], h, rtol=1e-9)
            assert not layer.values["h"][n, length:].any()


def test_only_the_names_that_were_asked_for_are_kept() -> None:
    seen = observe(layers("lstm"), random(T, N, I), names=("f", "c"), gradients=True)
    layer = seen.layers[1, 0]
    assert [*layer.values] == ["f", "c"]
    assert layer.gradients is not None
    assert [*layer.gradients] == ["f", "c"]
    assert [*layer.states] == ["h", "c"]
    assert set(seen.table()["name"]) == {"f", "c"}
    with pytest.raises(ValueError, match=r"no value named 'q'; its values are i, f, g, o, c, h"):
        observe(layers("lstm"), random(T, N, I), names=("q",))


class Tagger(nn.Module):
    """A module of a user's own around a layer: dropout, initial states, a head, perhaps a fault."""

    def __init__(self, recurrent: nn.Module) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.recurrent = recurrent
        self.head = nn.Linear(2 * H, 2, dtype=torch.float64)

    def forward(self, x: Tensor, fault: str = "") -> Tensor:
        output, _ = self.recurrent(self.dropout(x))
        if fault:
            raise RuntimeError(fault)
        return self.head(output)


def traces(module: nn.Module) -> Any:
    """Everything that watching might leave behind."""
    return [
        (
            each.training,
            dict(each._forward_pre_hooks),
            dict(each._forward_hooks),
            dict(each._backward_hooks),
            {k: v for k, v in vars(each).items() if k not in ("_parameters", "_modules")},
        )
        for each in module.modules()
    ], [
        (p.requires_grad, p.clone(), None if p.grad is None else p.grad.clone())
        for p in module.parameters()
    ]


def fails(run: Callable[[], Any]) -> None:
    with pytest.raises((RuntimeError, ValueError)):
        run()


@pytest.mark.parametrize("gradients", [False, True])
def test_watching_leaves_no_trace_also_after_an_error(gradients: bool) -> None:
    module = Tagger(layers("gru"))
    module.train()
    module.head.eval()
    module.head.weight.requires_grad_(False)
    x = random(T, N, I)
    module(x).sum().backward()
    before = traces(module)
    observe(module, x, lengths=LENGTHS, gradients=gradients)
    fails(lambda: observe(module, x, gradients=gradients, fault="after the layers"))
    fails(lambda: observe(module, x, names=("q",), gradients=gradients))
    fails(lambda: observe(module, x[..., :2], gradients=gradients))
    fails(lambda: observe(module, x, gradients=True, loss=lambda y: y))
    fails(lambda: observe(module, x, gradients=True, loss=lambda y: torch.zeros(())))
    after = traces(module)
    assert str(before[0]) == str(after[0])
    for (needs, value, grad), (needs_now, value_now, grad_now) in zip(
        before[1], after[1], strict=True
    ):
        assert needs == needs_now
        assert torch.equal(value, value_now)
        assert (grad is None) == (grad_now is None)
        assert grad is None or torch.equal(grad, grad_now)  # type: ignore[arg-type]


def test_a_module_is_watched_in_evaluation() -> None:
    module, x = Tagger(layers("gru")), random(T, N, I)
    np.testing.assert_array_equal(
        observe(module, x).inputs, x.transpose(0, 1).numpy(), err_msg="dropout was on"
    )


def test_the_loss_of_error_terms() -> None:
    module, x = Tagger(layers("lstm")), random(T, N, I)
    seen = observe(module, x, gradients=True, loss=lambda scores: scores[0].sum())
    top = seen.layers[1, 0]
    assert top.gradients is not None
    expected = module.head.weight.sum(0)[:H].detach().numpy()
    np.testing.assert_allclose(top.gradients["h"][:, 0], np.tile(expected, (N, 1)), rtol=1e-12)
    assert not top.gradients["h"][:, 1:].any()


@pytest.mark.parametrize("form", ["batch first", "one sequence", "packed", "states"])
def test_rows_come_first_whatever_the_layout(form: str) -> None:
    first = form == "batch first"
    module = headgate.LSTM(I, H, bidirectional=True, batch_first=first, dtype=torch.float64)
    x, start = random(T, N, I), (random(2, N, H), random(2, N, H))
    lengths = [4, 6, 2, 6]
    given: dict[str, Any] = {
        "batch first": {"input": x.transpose(0, 1), "lengths": lengths},
        "one sequence": {"input": x[:, 0]},
        "packed": {"input": pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)},
        "states": {"input": x, "hx": start},
    }[form]
    output, _ = module(**given)
    whole = {"one sequence": [6], "states": [6] * N}.get(form, lengths)
    seen = observe(module, given.pop("input"), gradients=True, **given)
    assert seen.lengths.tolist() == whole
    layer = seen.layers[0, 1]
    if form == "packed":
        output, _ = nn.utils.rnn.pad_packed_sequence(output, batch_first=True)
    elif form == "one sequence":
        output = output[None]
    elif not first:
        output = output.transpose(0, 1)
    np.testing.assert_allclose(layer.values["h"], output.detach()[..., H:], rtol=1e-12)
    assert layer.gradients is not None
    last = layer.gradients["h"][np.arange(len(whole)), np.array(whole) - 1]
    assert (last != 0).all()
    if form == "states":
        np.testing.assert_array_equal(layer.initial["c"], start[1][1].numpy())


class Twice(Tagger):
    def forward(self, x: Tensor, fault: str = "") -> Tensor:
        return self.recurrent(self.recurrent(x)[0][..., :I])[0]


class Recorded(Tagger):
    def forward(self, x: Tensor, fault: str = "") -> Tensor:
        return self.recurrent(x, record=Record())[0]


MODULES = {
    "expected a recurrent layer in Linear, got none; its layers must": nn.Linear(I, 1),
    "none; put headgate.GRU in place of torch.nn.GRU": nn.Sequential(nn.GRU(I, H)),
    "got 2: 0, 1; inspect one": nn.Sequential(layers("rnn"), layers("gru")),
    "once, got 2 calls": Twice(layers("rnn")),
    "a Record of its own": Recorded(layers("rnn")),
}


@pytest.mark.parametrize("message", MODULES)
def test_a_module_that_cannot_be_watched(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        observe(MODULES[message], random(T, N, I))


def labelled() -> Observation:
    seen = observe(layers("lstm"), random(T, N, I), lengths=LENGTHS)
    days = np.datetime64("2024-02-27", "s") + np.arange(T) * np.timedelta64(1, "D")
    return Observation(
        seen.layers,
        seen.lengths,
        seen.inputs,
        seen.input_names,
        [days[:n] for n in LENGTHS],
        ("a", "b", "c", "d"),
        series=np.where(seen.valid, 1.0, np.nan),
    )


def test_names_of_rows_and_times_stand_in_the_table() -> None:
    table = labelled().table()
    assert table.columns[:4] == ["row", "id", "time", "layer"]
    line = table.filter(row=2, layer=0, direction=0, name="h", unit=0)[-1]
    assert line["id"][0] == "c"
    assert str(line["time"][0]) == "2024-02-29 00:00:00"
    with pytest.raises(ValueError, match=r"expected labels for .*one label for each valid step"):
        Observation({}, np.array([2]), np.zeros((1, 2, 1)), ("x",), [np.arange(3)], ("",))


def test_the_last_steps_go_on_from_the_states_before_them() -> None:
    whole = labelled()
    part = whole.last(4)
    assert part.lengths.tolist() == [4, 0, 3, 4]
    assert [len(labels) for labels in part.time] == [4, 0, 3, 4]
    assert part.time[3][-1] == whole.time[3][-1]
    for row, start in ((0, 2), (2, 0), (3, 1)):
        length = part.lengths[row]
        np.testing.assert_array_equal(
            part.inputs[row, :length], whole.inputs[row, start : start + length]
        )
        for direction in (0, 1):
            layer = part.layers[1, direction]
            before = layer.initial["c"][row]
            for t in range(length) if not direction else reversed(range(length)):
                f, i, g, c = (layer.values[name][row, t] for name in "figc")
                np.testing.assert_allclose(c, f * before + i * g, rtol=1e-12, atol=1e-15)
                before = c
    assert np.isnan(part.series[2, 3])  # type: ignore[index]
    assert not part.layers[0, 0].values["h"][2, 3:].any()
    assert part.last(9).table().equals(part.table())


def test_a_module_may_read_nothing() -> None:
    seen = observe(layers("lstm"), random(T, 2, I), lengths=[0, 0])
    assert seen.table().is_empty()
    assert seen.last(2).table().is_empty()
