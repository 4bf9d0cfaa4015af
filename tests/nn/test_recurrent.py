"""Recurrent: the promises on ragged batches, pieces, directions, layouts and masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from headgate.nn import Recurrent
from headgate.program import cell
from headgate.program.functions import exp, sigmoid, tanh

T, N, I, H = 6, 4, 3, 5
LENGTHS = [3, 6, 0, 5]
CELLS = ("rnn", "lstm", "lstm_peephole", "lstm_coupled", "gru", "gru_reset_before")


@cell
def leaky(x, h, m=-1.0, *, W, R, b, a):
    """A cell of a user's own: a second state with its own start, a vector that multiplies."""
    f = sigmoid(W.f @ x + R.f @ h + b.f)
    n = tanh(W.n @ x + a * h + b.n)
    m = f * m + (1 - f) * n
    h = m * exp(-m * m)
    return h, m


def layer(name: Any, *arguments: Any, **options: Any) -> Recurrent:
    """A float64 layer all of whose parameters are random."""
    made = Recurrent(name, *arguments, dtype=torch.float64, **options)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.uniform_(-0.8, 0.8)
    return made


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def states_of(made: Recurrent, rows: int = N) -> tuple[Any, ...]:
    """Random initial states for a stack."""
    zeros = made(torch.zeros(0, rows, made.input_size, dtype=torch.float64))[1]
    assert all(isinstance(state, Tensor) for state in zeros)
    return tuple(random(*state.shape) for state in zeros)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", [*CELLS, leaky], ids=str)
@pytest.mark.parametrize("merge", ["concat", "product"])
def test_a_ragged_batch_is_its_rows_one_by_one(
    name: Any, merge: str, engine: str, assert_same, gradients
) -> None:
    made = layer(name, I, H, 2, bidirectional=True, merge=merge)
    x, states = random(T, N, I), states_of(made)
    parameters = list(made.parameters())
    output, finals = made(x, states, lengths=LENGTHS)
    rows = []
    for n, length in enumerate(LENGTHS):
        y, final = made(x[:length, n], tuple(s[:, n] for s in states))
        padding = y.new_zeros(T - length, y.shape[1])
        rows.append((torch.cat([y, padding]), *final))
    expected = [torch.stack(parts, 1) for parts in zip(*rows, strict=True)]
    found = [output, *finals]
    assert_same(found, expected, "output, states")
    wanted = [x, *states, *parameters]
    assert_same(gradients(found, wanted), gradients(expected, wanted), "gradients")


@pytest.mark.parametrize("name", [*CELLS, leaky], ids=str)
def test_padding_may_hold_anything(name: Any, engine: str, gradients) -> None:
    made = layer(name, I, I, 2, bidirectional=True, merge="sum", residual=True)
    x = torch.randn(T, N, I, dtype=torch.float64)
    poisoned = x.clone()
    for n, length in enumerate(LENGTHS):
        poisoned[length:, n] = float("nan")
        x[length:, n] = 0.0
    results = []
    for values in (x, poisoned):
        values.requires_grad_()
        output, finals = made(values, lengths=LENGTHS)
        results.append(
            [output, *finals, *gradients([output, *finals], [values, *made.parameters()])]
        )
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)


def test_a_row_without_steps_returns_its_state_and_passes_the_cotangent(engine: str) -> None:
    made = layer("lstm", I, H)
    h, c = states_of(made)
    x = random(T, N, I)
    output, (h_n, c_n) = made(x, (h, c), lengths=LENGTHS)
    assert torch.equal(h_n[:, 2], h[:, 2])
    assert torch.equal(c_n[:, 2], c[:, 2])
    assert not output[:, 2].any()
    cotangent = torch.randn_like(c_n)
    found = torch.autograd.grad(c_n, [x, c], cotangent)
    assert torch.equal(found[1][:, 2], cotangent[:, 2])
    assert not found[0][:, 2].any()


@pytest.mark.parametrize("name", [*CELLS, leaky], ids=str)
@settings(max_examples=10)
@given(cut=st.integers(0, T), ragged=st.booleans())
def test_a_sequence_is_its_pieces_with_carried_state(
    name: Any, cut: int, ragged: bool, assert_same
) -> None:
    torch.manual_seed(2)
    made = layer(name, I, H, 2, residual=False)
    x, states = random(T, N, I), states_of(made)
    lengths = torch.tensor(LENGTHS) if ragged else torch.full((N,), T)
    output, final = made(x, states, lengths=lengths)
    first, carried = made(x[:cut], states, lengths=lengths.clamp(max=cut))
    second, last = made(x[cut:], carried, lengths=(lengths - cut).clamp(min=0))
    assert_same([torch.cat([first, second]), *last], [output, *final])


@pytest.mark.parametrize("name", [*CELLS, leaky], ids=str)
def test_the_reverse_direction_is_forward_on_the_reversed_input(
    name: Any, engine: str, assert_same
) -> None:
    both, forward = layer(name, I, H, bidirectional=True), layer(name, I, H)
    with torch.no_grad():
        for parameter_name, parameter in forward.named_parameters():
            parameter.copy_(both.get_parameter(parameter_name + "_reverse"))
    x = random(T, N, I)
    output, finals = both(x)
    expected, expected_finals = forward(x.flip(0))
    assert_same([output[..., H:], *(f[1:] for f in finals)], [expected.flip(0), *expected_finals])


def test_packed_input_gives_packed_output(engine: str, assert_same) -> None:
    made, x = layer("lstm_peephole", I, H, 2, bidirectional=True), random(T, N, I)
    lengths = [3, 6, 1, 5]
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    output, finals = made(packed)
    assert isinstance(output, PackedSequence)
    assert output.unsorted_indices is packed.unsorted_indices
    expected, expected_finals = made(x, lengths=lengths)
    assert_same([pad_packed_sequence(output)[0], *finals], [expected, *expected_finals])
    with pytest.raises(ValueError, match="a PackedSequence holds its own lengths"):
        made(packed, lengths=lengths)


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_lengths_come_as_list_array_or_tensor(kind: Any) -> None:
    made, x = layer("rnn", I, H), random(T, N, I)
    assert torch.equal(made(x, lengths=kind(LENGTHS))[0], made(x, lengths=LENGTHS)[0])


def test_a_length_of_one_unbatched_sequence_is_a_number() -> None:
    made, x = layer("rnn", I, H), random(T, I)
    output, (h,) = made(x, lengths=4)
    assert not output[4:].any()
    torch.testing.assert_close(h[0], output[3])


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([1, 2, 3], ValueError, r"expected one length a row, shape \(4,\), got \(3,\)"),
        ([1, 2, 3, 7], ValueError, r"lengths must lie in 0…6, the steps of the input, got 1…7"),
        ([1, 2, 3, -1], ValueError, r"got -1…3"),
        ([1.0, 2.0, 3.0, 4.0], TypeError, "lengths must be integers, got float32"),
        ([True, False, True, True], TypeError, "lengths must be integers, got bool"),
        ("1234", TypeError, "a list, an array or a tensor of integers, got str"),
    ],
)
def test_wrong_lengths_are_explained(lengths: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        layer("rnn", I, H)(random(T, N, I), lengths=lengths)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"input": torch.zeros(T, N, I + 1)}, ValueError, r"input of width 3 .*got 4 in shape"),
        ({"input": torch.zeros(T)}, ValueError, r"expected input of shape \(T, N, I\), or"),
        ({"input": [[1.0]]}, TypeError, "expected a tensor or a PackedSequence as input, got list"),
        (
            {"input": torch.zeros(T, N, I).double()},
            ValueError,
            "input is torch.float64 but the par",
        ),
        ({"hx": (torch.zeros(1, N, H),)}, TypeError, r"2 initial states \(h, c\), got 1"),
        ({"hx": (1.0, 2.0)}, TypeError, "initial state h must be a tensor, got float"),
        (
            {"hx": (torch.zeros(1, N, H), torch.zeros(N, H))},
            ValueError,
            r"initial state c of shape",
        ),
        ({"hx": ([torch.zeros(N, H)] * 2,) * 2}, ValueError, "h needs 1 tensors, one for each"),
        ({"hx": ([torch.zeros(N, 1)],) * 2}, ValueError, r"h\[0\] of shape \(4, 5\), got \(4, 1\)"),
    ],
)
def test_wrong_calls_are_explained(call: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Recurrent("lstm", I, H)(**{"input": torch.zeros(T, N, I)} | call)


def test_a_state_of_layers_with_different_widths_comes_as_a_tuple() -> None:
    made = Recurrent("rnn", I, [4, 6], 2)
    with pytest.raises(ValueError, match=r"have widths \[4, 6\]; give a tuple of tensors"):
        made(torch.zeros(T, N, I), (torch.zeros(2, N, 4),))


def test_masks_depend_on_torchs_seed_alone() -> None:
    made = Recurrent("gru", I, H, 3, dropout=0.4, weight_drop=0.2, recurrent_dropout=0.0)
    x = torch.randn(T, N, I)
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(made(x)[0])
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    torch.manual_seed(1)
    assert not torch.equal(made(x[:, :2])[0], outputs[2][:, :2])
    torch.manual_seed(1)
    torch.testing.assert_close(made(x[:, :2])[0], outputs[0][:, :2])


def test_nothing_random_draws_nothing() -> None:
    made = Recurrent("gru", I, H, 2, dropout=0.4)
    made.eval()
    torch.manual_seed(1)
    made(torch.randn(T, N, I))
    after = torch.randn(3)
    torch.manual_seed(1)
    torch.randn(T, N, I)
    assert torch.equal(after, torch.randn(3))
