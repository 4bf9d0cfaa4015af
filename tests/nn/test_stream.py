"""Streams: one step at a time, NumPy in and out, the same as the layer on the whole sequence."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from headgate import cell, native, sigmoid, tanh
from headgate import nn as hn

T, N, I, H = 9, 3, 7, 13
CELLS = [
    "rnn",
    "rnn_relu",
    "lstm",
    "lstm_peephole",
    "lstm_coupled",
    "lstm_original",
    "gru",
    "gru_reset_before",
    "gru_single_bias",
    "lstm_layer_norm",
]
STACKS: dict[str, dict[str, Any]] = {
    "residual": {"num_layers": 3, "residual": True},
    "widths": {"num_layers": 2, "hidden_size": [5, 17]},
    "learned start": {"num_layers": 2, "learn_initial_state": True},
    "dropped": {"num_layers": 2, "dropout": 0.4, "weight_drop": 0.3},
    "masks": {"recurrent_dropout": 0.3, "zoneout": {"h": 0.2, "c": 0.1}},
    "clip": {"clip_state": 0.3},
    "projected": {"cell": "lstm_projected", "sizes": {"projection": 4}, "num_layers": 2},
    "last": {"output_mode": "last"},
    "batch first": {"batch_first": True},
}


def layer(cell: Any = "lstm", hidden_size: Any = H, **options: Any) -> hn.Recurrent:
    torch.manual_seed(3)
    module = hn.Recurrent(cell, I, hidden_size, **options)
    for name, value in module.named_parameters():
        if name.startswith("initial"):
            torch.nn.init.normal_(value)
    return module


def streamed(stream: hn.Stream, x: Tensor) -> np.ndarray:
    return np.stack([stream.step(step) for step in x.numpy()])


def flat(state: Any) -> list[Any]:
    state = state if isinstance(state, tuple) else (state,)
    return [v for s in state for v in (s if isinstance(s, tuple) else (s,))]


def assert_streams(module: Any, x: Tensor, engine: str) -> None:
    """A stream is the layer in evaluation mode, bit for bit where both are compiled."""
    stream = module.stream(x.shape[1])
    found = streamed(stream, x)
    module.eval()
    with torch.no_grad():
        y, state = module(x.transpose(0, 1) if getattr(module, "batch_first", False) else x)
    pairs = list(zip(flat(stream.state), flat(state), strict=True))
    if getattr(module, "output_mode", "") == "last":
        found, y = found[-1], y
    elif module.batch_first:
        y = y.transpose(0, 1)
    for ours, theirs in [(found, y), *pairs]:
        assert ours.dtype == theirs.numpy().dtype
        if engine == "cpu":
            assert np.array_equal(ours, theirs.numpy())
        else:
            torch.testing.assert_close(torch.from_numpy(ours), theirs)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, N, 9])
def test_every_cell_streams_as_its_layer(
    name: str, dtype: torch.dtype, rows: int, engine: str
) -> None:
    assert_streams(
        layer(name, num_layers=2, dtype=dtype), torch.randn(T, rows, I).to(dtype), engine
    )


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("options", STACKS.values(), ids=STACKS)
def test_every_stack_streams_as_its_layer(options: dict[str, Any], engine: str) -> None:
    assert_streams(layer(**options), torch.randn(T, N, I), engine)


def test_sizes_are_not_taken_for_each_other(engine: str) -> None:
    with torch.no_grad():
        hn.Recurrent("lstm", 12, 19)(torch.randn(T, 1, 12))
    assert_streams(hn.Recurrent("lstm", 19, 12), torch.randn(T, 1, 19), engine)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_torch_likes_stream(kind: str, engine: str) -> None:
    assert_streams(getattr(hn, kind)(I, H, 2), torch.randn(T, N, I), engine)


@pytest.mark.parametrize("size", [1, 2, 17, 33, 65, 129])
def test_odd_sizes_stream(size: int, engine: str) -> None:
    torch.manual_seed(1)
    module = hn.Recurrent("lstm_layer_norm", size, size, 2, residual=True)
    assert_streams(module, torch.randn(4, 2, size), engine)


def test_a_users_cell_streams(engine: str) -> None:
    @cell
    def minimal(x, h, *, W, R, b):
        f = sigmoid(W.f @ x + R.f @ h + b.f)
        z = tanh(W.z @ x + R.z @ (f * h) + b.z)
        h = (1 - f) * h + f * z
        return h

    assert_streams(layer(minimal, num_layers=2), torch.randn(T, N, I), engine)


def test_a_stream_goes_on_from_what_the_layer_read(engine: str) -> None:
    module, x = layer(num_layers=2), torch.randn(T, N, I)
    with torch.no_grad():
        y, _ = module(x)
        _, state = module(x[:5])
    stream = module.stream(N)
    stream.state = tuple(s.numpy() for s in state)
    np.testing.assert_allclose(streamed(stream, x[5:]), y[5:].numpy(), rtol=1e-5, atol=1e-6)


def test_the_state_read_is_a_copy_that_can_be_set_again(engine: str) -> None:
    module, x = layer(num_layers=2), torch.randn(T, N, I)
    stream = module.stream(N)
    streamed(stream, x[:3])
    kept = stream.state
    assert [s.shape for s in flat(kept)] == [(2, N, H), (2, N, H)]
    first = streamed(stream, x[3:])
    stream.state = kept
    np.testing.assert_allclose(streamed(stream, x[3:]), first, rtol=1e-5, atol=1e-7)


def test_reset_rows_start_anew_and_others_go_on(engine: str) -> None:
    module, x = layer(num_layers=2, learn_initial_state=True), torch.randn(T, N, I)
    stream, other = module.stream(N), module.stream(N)
    streamed(stream, x[:4])
    streamed(other, x[:4])
    stream.reset([0, 2])
    found, on = streamed(stream, x), streamed(other, x)
    stream.reset()
    anew = streamed(stream, x)
    np.testing.assert_allclose(found[:, [0, 2]], anew[:, [0, 2]], rtol=1e-6)
    assert np.array_equal(found[:, 1], on[:, 1])
    assert not np.allclose(found[:, 1], anew[:, 1])
    with pytest.raises(IndexError, match=r"Stream.reset: rows must be among the 3 of this stream"):
        stream.reset(3)


def test_new_weights_count_after_refresh_and_the_state_stays(engine: str) -> None:
    module, x = layer(num_layers=2), torch.randn(T, N, I)
    stream, same = module.stream(N), module.stream(N)
    streamed(stream, x)
    streamed(same, x)
    with torch.no_grad():
        for value in module.parameters():
            value.mul_(1.5)
    assert np.array_equal(streamed(stream, x), streamed(same, x))
    state = stream.state
    stream.refresh()
    assert all(np.array_equal(a, b) for a, b in zip(stream.state, state, strict=True))
    found, state = streamed(stream, x), tuple(torch.from_numpy(s) for s in state)
    with torch.no_grad():
        np.testing.assert_allclose(found, module(x, state)[0].numpy(), rtol=1e-5, atol=1e-6)


def test_a_module_in_another_dtype_counts_after_refresh(engine: str) -> None:
    module, x = layer(num_layers=2), torch.randn(2, N, I)
    stream = module.stream(N)
    first = stream.step(x[0].numpy())
    module.double()
    stream.refresh()
    stream.step(x[1].double().numpy())
    with torch.no_grad():
        y, _ = module(x.double())
    found = stream.state[0]
    assert found.dtype == np.float64  # type: ignore[union-attr]
    np.testing.assert_allclose(first, y[0].numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], y[1].numpy(), rtol=1e-5, atol=1e-6)


def test_out_is_filled_and_fresh_arrays_are_new(engine: str) -> None:
    module, x = layer(hidden_size=I, residual=True), torch.randn(2, 1, I).numpy()
    stream = module.stream()
    expected = [stream.step(step) for step in x]
    assert expected[0] is not expected[1]
    stream.reset()
    out = np.full((1, I), np.nan, dtype=np.float32)
    assert stream.step(x[0], out) is out
    assert np.array_equal(out, expected[0])
    over = x[1].copy()
    assert np.array_equal(stream.step(over, out=over), expected[1])


def test_a_step_allocates_nothing_where_out_is_given(use_engine) -> None:
    if not native.available:
        pytest.skip("without the compiled extension a step is a call of torch")
    with use_engine("cpu"):
        stream = layer(num_layers=2).stream(N)
    x, out = np.zeros((N, I), np.float32), np.zeros((N, H), np.float32)
    stream.step(x, out)
    tracemalloc.start()
    for _ in range(100):
        stream.step(x, out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1024


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "a tensor": (torch.zeros(N, I), TypeError, r"got Tensor"),
    "a list": ([[0.0] * I] * N, TypeError, r"got list"),
    "dtype": (np.zeros((N, I)), TypeError, r"float32, got float64; convert it"),
    "byte order": (np.zeros((N, I), ">f4"), TypeError, r"got >f4"),
    "shape": (np.zeros((N, I + 1), np.float32), ValueError, r"\(3, 7\).* got shape \(3, 8\)"),
    "axes": (np.zeros(I, np.float32), ValueError, r"got shape \(7,\)"),
    "strides": (np.zeros((I, N), np.float32).T, ValueError, r"not contiguous"),
}


@pytest.mark.parametrize(("x", "error", "message"), WRONG.values(), ids=WRONG)
def test_wrong_inputs_are_one_clear_error(
    x: Any, error: type[Exception], message: str, engine: str
) -> None:
    stream = layer().stream(N)
    with pytest.raises(error, match=f"Stream.step: expected x as .*{message}"):
        stream.step(x)
    out = np.zeros((N, I), np.float32)
    with pytest.raises(ValueError, match=r"Stream.step: expected out as .*\(3, 13\)"):
        stream.step(np.zeros((N, I), np.float32), out)
    frozen = np.zeros((N, H), np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"expected out to be writable, got one that is read-only"):
        stream.step(np.zeros((N, I), np.float32), frozen)
    assert not any(np.any(s) for s in flat(stream.state))


def test_a_read_only_input_is_read(engine: str) -> None:
    x = np.zeros((N, I), np.float32)
    x.flags.writeable = False
    assert layer().stream(N).step(x).shape == (N, H)


def test_wrong_states_are_refused(engine: str) -> None:
    stream = layer().stream(N)
    with pytest.raises(TypeError, match=r"expected a tuple of 2 initial states \(h, c\), got 1"):
        stream.state = (np.zeros((1, N, H), np.float32),)
    with pytest.raises(ValueError, match=r"expected initial state c of shape \(1, 3, 13\)"):
        stream.state = (np.zeros((1, N, H), np.float32), np.zeros((1, N, I), np.float32))
    with pytest.raises(TypeError, match=r"expected NumPy arrays of float32, got float64"):
        stream.state = (np.zeros((1, N, H)), np.zeros((1, N, H)))


def test_what_cannot_stream_says_so() -> None:
    with pytest.raises(ValueError, match=r"Recurrent.stream: a bidirectional module reads"):
        layer(bidirectional=True).stream()
    with pytest.raises(ValueError, match=r"LSTM.stream: a bidirectional module reads"):
        hn.LSTM(I, H, bidirectional=True).stream()
    with pytest.raises(ValueError, match=r"batch_size must be a positive integer, got 0"):
        layer().stream(0)
    with pytest.raises(TypeError, match=r"float32 or float64, got torch.bfloat16"):
        layer().bfloat16().stream()


def test_nan_and_infinity_pass_through_in_their_row(engine: str) -> None:
    stream = layer("rnn_relu").stream(N)
    x = np.zeros((N, I), np.float32)
    x[1, 0] = np.nan
    found = stream.step(x)
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[[0, 2]]).all()
