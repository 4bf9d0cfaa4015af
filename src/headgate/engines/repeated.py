"""Plain calls again and again: layers one on another, with nothing between them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from headgate import native
from headgate.engines import cpu
from headgate.engines.dispatch import REMEMBERED, Direction, choose, inside_functorch, job_of
from headgate.program.program import Program

SMALL = 1 << 14
"""Numbers in a state of all rows; where there are more, the shorter way saves too little."""


@dataclass(frozen=True)
class _Known:
    """What serves all calls of one shape: how to predict, and each layer's job and states where
    none are given: (N, width) each, and of a single layer (1, N, width)."""

    predict: cpu.Repeated
    jobs: list[cpu.Job]
    states: list[list[Tensor]]


_known: dict[Any, _Known | None] = {}


def worth_remembering(x: Tensor, widths: Sequence[tuple[int, ...]]) -> bool:
    """Whether ``repeated`` may serve a call; asks nothing of the weights, which a module may have
    to compute."""
    return (
        native.available
        and os.environ.get("HEADGATE_ENGINE") in (None, "", "cpu")
        and x.device.type == "cpu"
        and x.numel() > 0
        and x.shape[1] * max(map(max, widths)) <= SMALL
        and len(set(widths)) == 1
        and not torch.is_autocast_enabled("cpu")
        and not inside_functorch()
    )


def repeated(
    program: Program,
    x: Tensor,
    families: Sequence[Mapping[str, Tensor]],
    widths: Sequence[tuple[int, ...]],
    initial: Sequence[Tensor] | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]] | None:
    """The output (T, N, H) and final states (layers, N, width) of layers one on another, where the
    compiled engine runs.

    A small network's call takes as long as all that comes before it, so what was worked out for one
    call serves those of the same shapes. ``x`` is ``worth_remembering``. ``widths``: of each
    layer's states. ``initial``: a tensor (layers, N, width) for each state, checked already as
    ``lengths`` are; None: the states' initial values. None where that cannot be:
    ``run_directions``.
    """
    tensors = [[layer[name] for name in program.families] for layer in families]
    shapes = [(t.shape, t.dtype) for layer in tensors for t in layer]
    key = (program, x.shape, x.stride(), x.dtype, *widths, *shapes)
    try:
        known = _known[key]
    except KeyError:
        if len(_known) >= REMEMBERED:
            _known.clear()
        known = _known[key] = _know(program, x, families, widths)
    if known is None:
        return None
    if lengths is None and not torch.is_grad_enabled():
        return known.predict(x, tensors, initial)
    states: Sequence[Sequence[Tensor]] = known.states
    if initial is not None:
        alone = len(families) == 1
        states = [initial] if alone else list(zip(*[t.unbind(0) for t in initial], strict=True))
    return _layer_by_layer(known, x, tensors, states, lengths)


def _layer_by_layer(
    known: _Known,
    x: Tensor,
    families: Sequence[Sequence[Tensor]],
    states: Sequence[Sequence[Tensor]],
    lengths: Tensor | None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """With a graph for the way back where gradients are wanted, or of ragged rows."""
    finals, options = [], cpu.Options(lengths, False, None)
    for job, begun, own in zip(known.jobs, states, families, strict=True):
        fresh = cpu.Job(job.call, options, [*begun, *[t.contiguous() for t in own]])
        ((x, *last),) = cpu.returned([fresh], x)
        finals.append(last)
    if len(finals) == 1:
        return x, tuple(finals[0])
    return x, tuple(map(torch.stack, zip(*finals, strict=True)))


def _know(
    program: Program,
    x: Tensor,
    families: Sequence[Mapping[str, Tensor]],
    widths: Sequence[tuple[int, ...]],
) -> _Known | None:
    if choose(program, like=x).engine != "cpu":
        return None
    jobs, starts, seen = [], [], x.detach()
    for layer, own in zip(families, widths, strict=True):
        with torch.inference_mode(False):  # they serve training too
            starts.append(
                [
                    torch.full((x.shape[1], width), state.initial, dtype=x.dtype)
                    for state, width in zip(program.states, own, strict=True)
                ]
            )
        jobs.append(job_of(program, Direction(layer, starts[-1]), seen, None, ()))
        seen = x.new_empty(()).expand(*x.shape[:2], starts[-1][0].shape[1])
    try:
        predict = cpu.Repeated(jobs, x)
    except ValueError:
        return None
    if len(starts) == 1:  # states as a user gets them need nothing done to them
        starts = [[t.unsqueeze(0) for t in starts[0]]]
    return _Known(predict, [replace(job, tensors=()) for job in jobs], starts)
