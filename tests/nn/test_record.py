"""Records: every named value and every error term, each step, layer and direction."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from headgate import nn as hn
from headgate.nn import Record, Recurrent

T, N, I, H = 5, 3, 2, 4
LENGTHS = [3, 0, 5]


def layer(*arguments: Any, **options: Any) -> Recurrent:
    return Recurrent(*arguments, dtype=torch.float64, **options)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def test_without_names_everything_is_recorded() -> None:
    record = Record()
    layer("lstm", I, H)(random(T, N, I), record=record)
    assert set(record.names) == {"i", "f", "g", "o", "c", "h"}
    assert all(record[name].shape == (1, T, N, H) for name in record.names)
    assert "c" in record
    assert "z" not in record


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_the_recorded_output_is_the_output(lengths: Any) -> None:
    record = Record("h", "c")
    output, (h, c) = layer("lstm", I, H, 2, bidirectional=True)(
        random(T, N, I), lengths=lengths, record=record
    )
    assert torch.equal(torch.cat(tuple(record["h"][-2:]), -1), output)
    assert torch.equal(record.at("h", 1, 1), output[..., H:])
    if lengths is None:
        assert torch.equal(record["c"][:, -1][[0, 2]], c[[0, 2]])  # type: ignore[index]
        assert torch.equal(record["h"][:, 0][[1, 3]], h[[1, 3]])  # type: ignore[index]


def test_recorded_values_obey_the_equations() -> None:
    record = Record()
    made = layer("lstm", I, H)
    made(random(T, N, I), record=record)
    i, f, g, o, c, h = (record[name][0] for name in "ifgoch")
    before = torch.cat([torch.zeros_like(c[:1]), c[:-1]])
    torch.testing.assert_close(c, f * before + i * g)
    torch.testing.assert_close(h, o * c.tanh())


@pytest.mark.parametrize(
    ("form", "shape"),
    [
        ("batched", (2, T, N, H)),
        ("batch first", (2, N, T, H)),
        ("unbatched", (2, T, H)),
        ("packed", (2, T, N, H)),
    ],
)
def test_records_come_in_the_layout_of_the_input(form: str, shape: tuple[int, ...]) -> None:
    made = layer("gru", I, H, bidirectional=True, batch_first=form == "batch first")
    x = random(T, N, I)
    given: Any = {
        "batched": x,
        "batch first": x.transpose(0, 1),
        "unbatched": x[:, 0],
        "packed": pack_padded_sequence(x, torch.tensor([2, 5, 4]), enforce_sorted=False),
    }[form]
    record = Record("z", gradients=True)
    output, _ = made(given, record=record)
    (output.data if form == "packed" else output).square().sum().backward()
    assert record["z"].shape == record.gradient("z").shape == shape
    assert record.at("z", 0, 1).shape == record.gradient_at("z", 0, 1).shape == shape[1:]


def test_past_a_rows_end_records_and_error_terms_are_zero() -> None:
    record = Record(gradients=True)
    output, _ = layer("lstm", I, H, bidirectional=True)(
        random(T, N, I), lengths=LENGTHS, record=record
    )
    (output * random(T, N, 2 * H)).sum().backward()
    for name in record.names:
        for n, length in enumerate(LENGTHS):
            assert not record[name][:, length:, n].any()
            assert not record.gradient(name)[:, length:, n].any()
            assert record.gradient(name)[:, :length, n].abs().sum() > 0 or length == 0


@pytest.mark.parametrize("cell", ["lstm", "gru", "gru_reset_before", "lstm_peephole"])
def test_error_terms_are_the_losses_derivatives(cell: str) -> None:
    """A value's error term at one step is what the loss changes by when it is pushed there."""
    made = layer(cell, I, H, 2, bidirectional=True)
    x, weights = random(T, N, I), random(T, N, 2 * H)
    record = Record(gradients=True)
    (made(x, record=record)[0] * weights).sum().backward()
    unit = (2, 1, 3)
    for name in record.names:
        for direction in (0, 1):
            change = loss_change(made, x, weights, name, (0, direction), unit)
            found = record.gradient_at(name, 0, direction)[unit].item()
            assert found == pytest.approx(change, rel=1e-6, abs=1e-9), name


def loss_change(
    made: Recurrent,
    x: Tensor,
    weights: Tensor,
    name: str,
    place: tuple[int, int],
    unit: tuple[int, ...],
) -> float:
    """Central difference of the loss by one unit of a value of the first layer."""

    def loss(push: float) -> float:
        class Pushed(Record):
            def probes(self, program, sizes, x, layer, direction):
                probes = super().probes(program, sizes, x, layer, direction)
                assert probes is not None
                if (layer, direction) == place:
                    probes[name].data[unit] = push
                return probes

        record = Pushed(name, gradients=True)
        return (made(x, record=record)[0] * weights).sum().item()

    return (loss(1e-6) - loss(-1e-6)) / 2e-6


def test_recorded_values_are_differentiable_and_reach_the_parameters() -> None:
    made, record = layer("lstm", I, H), Record("f", gradients=True)
    made(random(T, N, I), record=record)
    (record["f"] - 1).square().sum().backward()
    assert made.get_parameter("W_l0").grad is not None
    # The last step's forget gate acts on the loss only by itself.
    torch.testing.assert_close(record.gradient("f")[0, -1], 2 * (record["f"][0, -1] - 1))


def test_recording_changes_no_result() -> None:
    made, x = layer("gru", I, H, 2, bidirectional=True), random(T, N, I)
    torch.testing.assert_close(made(x, record=Record(gradients=True))[0], made(x)[0])


def test_a_record_serves_again_and_forgets_the_last_run() -> None:
    made, record = layer("gru", I, H), Record("z", gradients=True)
    made(random(T, N, I), record=record)[0].sum().backward()
    made(random(2, N, I), record=record)
    assert record["z"].shape == (1, 2, N, H)
    with pytest.raises(RuntimeError, match="no error terms yet; call backward"):
        record.gradient("z")


def test_layers_of_different_widths_are_asked_one_by_one() -> None:
    record = Record("c", gradients=True)
    made = layer("lstm", I, [3, 6], 2)
    made(random(T, N, I), record=record)[0].sum().backward()
    with pytest.raises(ValueError, match=r"\(3, 6\); ask for one at a time: record.at\('c', layer"):
        record["c"]
    assert record.at("c", 0).shape == (T, N, 3)
    assert record.gradient_at("c", 1).shape == (T, N, 6)


def test_masks_and_torchlike_layers_are_recorded_too() -> None:
    record = Record("i", "c", gradients=True)
    made = hn.LSTM(I, H, 2, zoneout={"c": 0.3}, dropout=0.2)
    made(torch.randn(T, N, I), record=record)[0].sum().backward()
    assert record["c"].shape == record.gradient("i").shape == (2, T, N, H)


def test_error_terms_exist_under_autocast() -> None:
    record = Record("i", gradients=True)
    made = hn.LSTM(I, H)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, _ = made(torch.randn(T, N, I), record=record)
    output.float().sum().backward()
    assert record["i"].dtype == record.gradient("i").dtype == torch.float32


def test_wrong_questions_are_explained() -> None:
    made, x = layer("lstm", I, H), random(T, N, I)
    with pytest.raises(ValueError, match=r"'lstm' has no value named 'z'; its values are .*f"):
        made(x, record=Record("z"))
    with pytest.raises(TypeError, match="names must be strings, got list"):
        Record(["i"])  # type: ignore[arg-type]
    record = Record("c")
    with pytest.raises(RuntimeError, match="nothing recorded yet; pass this record to a layer"):
        record["c"]
    made(x, record=record)
    with pytest.raises(KeyError, match="'i' was not recorded; recorded: c"):
        record["i"]
    with pytest.raises(KeyError, match="no layer 1 with direction 0"):
        record.at("c", 1)
    with pytest.raises(RuntimeError, match=r"make it with Record\(\.\.\., gradients=True\)"):
        record.gradient("c")
    record = Record("c", gradients=True)
    with torch.no_grad():
        made(x, record=record)
    with pytest.raises(RuntimeError, match="the run was made without gradients"):
        record.gradient("c")
