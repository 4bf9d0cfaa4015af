"""Rows of the engine's table about single calls: a streamed step, a first call, memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

import headgate
from benchmarks import peak_memory
from benchmarks.subjects import fresh_inputs, inference, like_torch, training
from benchmarks.timing import (
    Call,
    Measurement,
    Options,
    Rows,
    at_least,
    at_most,
    compare,
)

STREAMED = {16: (1.5, 8.0), 32: (1.5, 8.0), 64: (3.0, 8.0), 128: (7.0, 5.0), 256: (30.0, 2.5)}
"""By hidden size: the most microseconds, and the least speed over torch."""
SMALL = (100, 32, 64, 64)


def streaming(options: Options) -> Rows:
    if not hasattr(headgate.LSTM, "stream"):
        yield Measurement("one streamed step", skipped="this version has no module.stream")
        return
    for shape in options.of(*((1, 1, H, H) for H in STREAMED)):
        limit, speed = STREAMED[next((H for H in STREAMED if shape[3] <= H), 256)]
        I, H = shape[2:]
        stream = like_torch(headgate, "LSTM", shape).stream(1)  # type: ignore[operator]
        array = np.random.default_rng(2).standard_normal((1, I)).astype(np.float32)
        cell = torch.nn.LSTMCell(I, H).eval()
        x, state = torch.from_numpy(array), (torch.zeros(1, H), torch.zeros(1, H))

        def theirs(cell=cell, x=x, state=state) -> None:
            cell(x, state)

        with torch.inference_mode():
            ours = partial(stream.step, array)
            peers: dict[str, Call] = {"torch.nn.LSTMCell": theirs}
            what = "one streamed step"
            line = compare(what, shape, ours, peers, options.seconds, at_least(speed))
        yield line
        assert line.ours_ms is not None
        microseconds = line.ours_ms * 1e3
        yield Measurement(
            f"{what}, in µs", shape, at_most(limit), microseconds, line.ours_ms, peer="a limit"
        )


def first_call(options: Options) -> Rows:
    """Every first call has a number of steps and of rows that nothing has seen."""
    for shape in options.of(SMALL):
        module = like_torch(headgate, "LSTM", shape)
        unseen = fresh_inputs(shape)
        current = [next(unseen)]

        def again(module: torch.nn.Module = module, current: list[Tensor] = current) -> None:
            torch.autograd.grad(module(current[0])[0].sum(), list(module.parameters()))

        def first(
            again: Call = again, unseen: Iterator[Tensor] = unseen, x: list[Tensor] = current
        ) -> None:
            x[0] = next(unseen)
            again()

        what = "first call on a new shape, LSTM training"
        peers: dict[str, Call] = {"a repeated call": again}
        again()
        yield compare(what, shape, first, peers, options.seconds, at_most(2.0), single=True)


def two_directions(options: Options) -> Rows:
    def with_threads(threads: int, call: Call) -> Call:
        def run() -> None:
            torch.set_num_threads(threads)
            call()

        return run

    for shape in options.of((1000, 1, 128, 128)):
        for what, make in (("inference", inference), ("training", training)):
            both = make(like_torch(headgate, "LSTM", shape, bidirectional=True), shape)
            one = make(like_torch(headgate, "LSTM", shape), shape)
            try:
                yield compare(
                    f"two directions on two threads, LSTM {what}",
                    shape,
                    with_threads(2, both),
                    {"one direction on one thread": with_threads(1, one)},
                    options.seconds,
                    at_most(1.15),
                )
            finally:
                torch.set_num_threads(options.threads)


def memory(options: Options) -> Rows:
    """Times are absent: the ratio is of bytes, our peak over torch's."""
    if not peak_memory.available():
        yield Measurement("peak memory", skipped="needs /proc/self/clear_refs, which Linux has")
        return
    for shape in options.of((200, 64, 512, 512)):
        theirs = peak_memory.measure("torch", shape, options.threads)
        ours = peak_memory.measure("headgate", shape, options.threads)
        yield Measurement(
            "peak memory, LSTM training",
            shape,
            at_most(1.0),
            ours / max(theirs, 1),
            peer=f"torch: {theirs / 2**20:.0f} MiB, ours {ours / 2**20:.0f} MiB",
        )
