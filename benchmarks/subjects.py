"""What is timed: layers and their inputs, made from fixed seeds, and cells as torch loops."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import headgate
from benchmarks.timing import Call, Shape
from headgate import cell, exp, sigmoid, softplus, tanh

Run = Callable[..., Any]
FRESH = 16384


@cell
def own(x, h, c, *, W, R, b, p):
    """A user's cell: the forget gate decays with a positive rate, and sees the cell state."""
    i = sigmoid(W.i @ x + R.i @ h + b.i)
    f = exp(-softplus(W.f @ x + R.f @ h + p.f * c + b.f))
    g = tanh(W.g @ x + R.g @ h + b.g)
    o = sigmoid(W.o @ x + R.o @ h + b.o)
    c = f * c + i * g
    h = o * tanh(c)
    return h, c


CELLS: dict[str, Any] = {
    "peephole": "lstm_peephole",
    "coupled": "lstm_coupled",
    "layer norm": "lstm_layer_norm",
    "GRU, reset before": "gru_reset_before",
    "projected": "lstm_projected",
    "a user's own": own,
}


def layer(kind: Any, shape: Shape, **options: Any) -> headgate.Recurrent:
    torch.manual_seed(1)
    H = shape[3]
    sizes = {"projection": math.ceil(H / 2)} if kind == "lstm_projected" else None
    return headgate.Recurrent(kind, shape[2], H, sizes=sizes, **options)


def like_torch(family: Any, name: str, shape: Shape, **options: Any) -> nn.Module:
    """headgate.LSTM or torch.nn.LSTM, and so on, started from one seed."""
    torch.manual_seed(1)
    return getattr(family, name)(shape[2], shape[3], **options)


def inputs(shape: Shape) -> Tensor:
    T, N, I = shape[:3]
    return torch.randn(T, N, I, generator=torch.Generator().manual_seed(2))


def fresh_inputs(shape: Shape) -> Iterator[Tensor]:
    """Inputs whose steps and rows differ from one to the next; making one takes no time."""
    T, N, I = shape[:3]
    room = torch.randn((T + FRESH // N + 1) * 2 * N * I)
    for k in cycle(range(FRESH)):
        steps, rows = T + k // N, N + k % N
        yield room[: steps * rows * I].view(steps, rows, I)


def ragged_lengths(shape: Shape) -> Tensor:
    T, N = shape[:2]
    generator = torch.Generator().manual_seed(3)
    return torch.randint(max(1, T // 4), T + 1, (N,), generator=generator)


def flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for part in value for t in flat(part)]


def training(module: nn.Module, shape: Shape, run: Run | None = None, **options: Any) -> Call:
    """Forward and backward, with gradients of input, initial states and every parameter."""
    run = run or module
    x = inputs(shape).requires_grad_()
    with torch.no_grad():
        output, state = run(x, None, **options)
    hx = [torch.zeros_like(s).requires_grad_() for s in flat(state)]
    given: Any = hx[0] if isinstance(state, Tensor) else tuple(hx)
    generator = torch.Generator().manual_seed(4)
    cotangents = [torch.randn(t.shape, generator=generator) for t in (output, *hx)]
    wanted = [x, *hx, *module.parameters()]

    def step() -> Any:
        output, state = run(x, given, **options)
        return torch.autograd.grad([output, *flat(state)], wanted, cotangents)

    return step


def inference(module: nn.Module, shape: Shape, **options: Any) -> Call:
    x = inputs(shape)
    module.eval()

    def step() -> Any:
        with torch.inference_mode():
            return module(x, **options)

    return step


def packed(module: nn.Module, lengths: Tensor) -> Run:
    """torch's way with ragged batches; padded in, padded out."""

    def run(x: Tensor, hx: Any) -> Any:
        rows = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        output, state = module(rows, hx)
        return nn.utils.rnn.pad_packed_sequence(output, total_length=x.shape[0])[0], state

    return run


def operations(module: headgate.Recurrent, shape: Shape, passes: int = 3) -> float:
    """Floating-point operations of the products; a training step is three passes."""
    weights = [p for name, p in module.named_parameters() if p.dim() == 2]
    return passes * 2.0 * shape[0] * shape[1] * sum(p.numel() for p in weights)


def lstm_operations(shape: Shape, passes: int = 3) -> float:
    T, N, I, H = shape
    return passes * 2.0 * T * N * 4 * H * (I + H)


def onnx_inference(module: nn.LSTM, shape: Shape, threads: int) -> Call | str:
    """The same LSTM in ONNX Runtime; a reason where this installation cannot."""
    try:
        onnx, ort = (importlib.import_module(name) for name in ("onnx", "onnxruntime"))
    except ImportError as error:
        return f"without ONNX Runtime ({error})"
    T, N, I, H = shape

    def reordered(*names: str) -> np.ndarray:
        tensors = [module.get_parameter(name + "_l0") for name in names]
        parts = [t.detach().reshape(4, H, -1)[[0, 3, 1, 2]].reshape(4 * H, -1) for t in tensors]
        return torch.cat(parts).numpy()[None]

    weights = {
        "W": reordered("weight_ih"),
        "R": reordered("weight_hh"),
        "B": reordered("bias_ih", "bias_hh")[..., 0],
    }
    node = onnx.helper.make_node("LSTM", ["x", *weights], ["y", "h", "c"], hidden_size=H)
    info, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node],
        "lstm",
        [info("x", kind, [T, N, I])],
        [info("y", kind, [T, 1, N, H]), *(info(s, kind, [1, N, H]) for s in "hc")],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset = [onnx.helper.make_opsetid("", 14)]
    model = onnx.helper.make_model(graph, ir_version=8, opset_imports=opset)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {"x": inputs(shape).numpy()}
    with torch.no_grad():
        expected = module(inputs(shape))[0].numpy()
    np.testing.assert_allclose(session.run(None, feed)[0][:, 0], expected, rtol=1e-3, atol=1e-4)
    return lambda: session.run(None, feed)
