"""The rows of the engine's table by name. Here throughput; single calls are in `calls`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

import headgate
from benchmarks.calls import first_call, memory, streaming, two_directions
from benchmarks.loops import STEPS, loop
from benchmarks.subjects import (
    CELLS,
    inference,
    layer,
    like_torch,
    lstm_operations,
    onnx_inference,
    operations,
    packed,
    ragged_lengths,
    training,
)
from benchmarks.timing import (
    Call,
    Options,
    Rows,
    Shape,
    at_least,
    at_most,
    compare,
    geometric_mean,
)

LSTM_SHAPES: list[Shape] = [
    (100, 32, 64, 64),
    (100, 32, 128, 128),
    (100, 32, 256, 256),
    (200, 64, 512, 512),
    (35, 20, 650, 650),
    (24, 64, 12, 100),
    (96, 256, 7, 64),
    (1000, 1, 64, 128),
    (500, 1, 1, 32),
]
SMALL: Shape = (100, 32, 64, 64)
LARGE: Shape = (100, 32, 256, 256)
MATRIX = 1024
VALUES = ("i", "f", "g", "o", "c", "h")


def lstm_training(options: Options) -> Rows:
    rows = []
    for shape in options.of(*LSTM_SHAPES):
        ours = training(like_torch(headgate, "LSTM", shape), shape)
        peer = training(like_torch(torch.nn, "LSTM", shape), shape)
        what, peers = "LSTM training", {"torch": peer}
        rows.append(compare(what, shape, ours, peers, options.seconds, at_least(0.95)))
        yield rows[-1]
    yield geometric_mean("LSTM training: geometric mean", rows, at_least(1.5))


def lstm_inference(options: Options) -> Rows:
    rows, missing = [], ""
    for shape in options.of(*LSTM_SHAPES):
        theirs = like_torch(torch.nn, "LSTM", shape)
        assert isinstance(theirs, torch.nn.LSTM)
        peers = {"torch": inference(theirs, shape)}
        other = onnx_inference(theirs, shape, options.threads)
        if isinstance(other, str):
            missing = other
        else:
            peers["ONNX Runtime"] = other
        ours = inference(like_torch(headgate, "LSTM", shape), shape)
        what = "LSTM inference"
        rows.append(
            compare(
                what,
                shape,
                ours,
                peers,
                options.seconds,
                at_least(0.95),
                apart=len(peers) > 1,
            )
        )
        yield rows[-1]
    mean = geometric_mean("LSTM inference: geometric mean", rows, at_least(1.25))
    yield replace(mean, peer=missing or "the faster of torch and ONNX Runtime")


def floating_point_rate(options: Options) -> Rows:
    torch.manual_seed(5)
    a, b = torch.randn(2, MATRIX, MATRIX)
    out = torch.empty(MATRIX, MATRIX)
    peers: dict[str, Call] = {"torch.mm": lambda: torch.mm(a, b, out=out)}
    large = [s for s in LSTM_SHAPES if s[3] >= 256 and s[1] >= 20]
    for shape in options.of(*large):
        for what, make, passes, bound in (
            ("training", training, 3, 0.80),
            ("inference", inference, 1, 0.90),
        ):
            ours = make(like_torch(headgate, "LSTM", shape), shape)
            scale = lstm_operations(shape, passes) / (2.0 * MATRIX**3)
            yield compare(
                f"LSTM {what}, floating-point rate",
                shape,
                ours,
                peers,
                options.seconds,
                at_least(bound),
                scale=scale,
            )


def gru_rnn_training(options: Options) -> Rows:
    for kind, small, large in (("GRU", 6.0, 1.8), ("RNN", 5.0, 1.8)):
        for shape in options.of(SMALL, LARGE):
            yield compare(
                f"{kind} training",
                shape,
                training(like_torch(headgate, kind, shape), shape),
                {"torch": training(like_torch(torch.nn, kind, shape), shape)},
                options.seconds,
                at_least(small if shape[3] <= 64 else large),
            )


def cells_per_operation(options: Options) -> Rows:
    for cell, kind in CELLS.items():
        for shape in options.of(SMALL, LARGE):
            small, large = (0.5, 0.75) if cell == "layer norm" else (0.75, 0.9)
            module, peer = layer(kind, shape), layer("lstm", shape)
            yield compare(
                f"{cell}, training, per operation",
                shape,
                training(module, shape),
                {"our LSTM": training(peer, shape)},
                options.seconds,
                at_least(small if shape[3] <= 64 else large),
                scale=operations(module, shape) / operations(peer, shape),
            )


def _against_loops(options: Options, what: str, compiled: bool) -> Rows:
    for cell, kind in CELLS.items():
        for shape in options.of(SMALL, LARGE):
            module = layer(kind, shape)
            run = loop(STEPS[cell], module)
            if compiled:
                torch.compiler.reset()  # else it gives up after eight shapes, and runs eagerly
                run = torch.compile(run)
            small, large = (3.0, 3.0) if compiled else (8.0, 2.5)
            yield compare(
                f"{cell}, training",
                shape,
                training(module, shape),
                {what: training(module, shape, run)},
                options.seconds,
                at_least(small if shape[3] <= 64 else large),
                apart=compiled,  # what torch.compile makes has a thread pool of its own
            )


def cells_torch_loop(options: Options) -> Rows:
    yield from _against_loops(options, "a torch loop", compiled=False)


def cells_compiled(options: Options) -> Rows:
    yield from _against_loops(options, "torch.compile of a loop", compiled=True)


def ragged(options: Options) -> Rows:
    for shape in options.of(SMALL):
        lengths = ragged_lengths(shape)
        module = like_torch(headgate, "LSTM", shape)
        ours = training(module, shape, lengths=lengths)
        share = float(lengths.sum()) / (shape[0] * shape[1])
        line = partial(compare, "ragged LSTM training", shape, ours, seconds=options.seconds)
        padded = {f"{share:.3f} of the padded time": training(module, shape)}
        yield line(peers=padded, target=at_most(1.15), scale=1 / share)
        theirs = like_torch(torch.nn, "LSTM", shape)
        peers = {"torch, packed": training(theirs, shape, packed(theirs, lengths))}
        yield line(peers=peers, target=at_least(8.0))


def recording(options: Options) -> Rows:
    for shape in options.of(SMALL, LARGE):
        module = layer("lstm", shape)
        ours = inference(module, shape, record=headgate.Record(*VALUES))
        peers = {"without": inference(module, shape)}
        what = "recording all gates and states, inference"
        yield compare(what, shape, ours, peers, options.seconds, at_most(1.4))


def masks(options: Options) -> Rows:
    for what, added in (("recurrent dropout", "recurrent_dropout"), ("zoneout", "zoneout")):
        for shape in options.of(SMALL, LARGE):
            ours = training(layer("lstm", shape, **{added: 0.25}), shape)
            peers = {"without": training(layer("lstm", shape), shape)}
            what_ = f"{what}, LSTM training"
            yield compare(what_, shape, ours, peers, options.seconds, at_most(1.2))


ROWS: dict[str, Callable[[Options], Rows]] = {
    "lstm-training": lstm_training,
    "lstm-inference": lstm_inference,
    "floating-point-rate": floating_point_rate,
    "gru-rnn-training": gru_rnn_training,
    "cells-per-operation": cells_per_operation,
    "cells-torch-loop": cells_torch_loop,
    "cells-compiled": cells_compiled,
    "ragged": ragged,
    "recording": recording,
    "masks": masks,
    "streaming": streaming,
    "first-call": first_call,
    "two-directions": two_directions,
    "memory": memory,
}
ASKED_FOR = {"cells-compiled"}
"""Rows that take minutes and run only where asked for by name or by --compile."""
