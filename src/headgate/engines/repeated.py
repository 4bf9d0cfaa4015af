"""Plain calls again and again: layers one on another, with nothing between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headgate.engines import cpu
from headgate.engines.dispatch import REMEMBERED, Direction, choose, inside_functorch, job_of
from headgate.engines.reference import Call
from headgate.program.program import Program

Layer = tuple[Sequence[Tensor], cpu.Parameters | None]
"""A layer's parameters, and how its families are made of them; None: they are these."""
PLAIN = cpu.Options(None, False, None)
SMALL = 1 << 14
"""Numbers in a state of all rows; where there are more, the shorter way saves too little."""


@dataclass(frozen=True)
class _Known:
    """What serves all calls of one shape: how to predict, and each layer's call and states where
    none are given: (N, width) each, and of a single layer (1, N, width)."""

    predict: cpu.Repeated
    calls: list[Call]
    states: list[list[Tensor]]


_known: dict[Any, _Known | None] = {}


def worth_remembering(x: Tensor, widest: int) -> bool:
    """Whether ``repeated`` may serve a call of states so wide; asks nothing of the weights, which a
    module may have to compute."""
    return (
        x.is_cpu
        and x.numel() > 0
        and x.shape[1] * widest <= SMALL
        and cpu.wanted()
        and not torch.is_autocast_enabled("cpu")
        and not inside_functorch()
    )


def repeated(
    program: Program,
    x: Tensor,
    layers: Sequence[Layer],
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
    shapes = [(made, *[(t.shape, t.dtype, t.is_cpu) for t in own]) for own, made in layers]
    key = (program, x.shape, x.stride(), x.dtype, *widths, *shapes)
    try:
        known = _known[key]
    except KeyError:
        if len(_known) >= REMEMBERED:
            _known.clear()
        known = _known[key] = _know(program, x, layers, widths)
    if known is None:
        return None
    if lengths is None and not torch.is_grad_enabled():
        return known.predict(x, list(map(_families, layers)), initial)
    states: Sequence[Sequence[Tensor]] = known.states
    if initial is not None:
        alone = len(layers) == 1
        states = [initial] if alone else list(zip(*[t.unbind(0) for t in initial], strict=True))
    return _layer_by_layer(known, x, layers, states, lengths)


def _layer_by_layer(
    known: _Known,
    x: Tensor,
    layers: Sequence[Layer],
    states: Sequence[Sequence[Tensor]],
    lengths: Tensor | None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """With a graph for the way back where gradients are wanted, or of ragged rows."""
    finals, options = [], PLAIN if lengths is None else cpu.Options(lengths, False, None)
    for call, begun, (own, made) in zip(known.calls, states, layers, strict=True):
        ((x, *last),) = cpu.returned([cpu.Job(call, options, [*begun, *own], made)], x)
        finals.append(last)
    if len(finals) == 1:
        return x, tuple(finals[0])
    return x, tuple(map(torch.stack, zip(*finals, strict=True)))


def _families(layer: Layer) -> Sequence[Tensor]:
    parameters, made = layer
    return parameters if made is None else made.families(parameters)


def _know(
    program: Program, x: Tensor, layers: Sequence[Layer], widths: Sequence[tuple[int, ...]]
) -> _Known | None:
    if choose(program, like=x).engine != "cpu":
        return None
    jobs, starts, seen = [], [], x.detach()
    for layer, own in zip(layers, widths, strict=True):
        with torch.inference_mode(False):  # they serve training too
            starts.append(
                [
                    torch.full((x.shape[1], width), state.initial, dtype=x.dtype)
                    for state, width in zip(program.states, own, strict=True)
                ]
            )
        families = dict(zip(program.families, _families(layer), strict=True))
        jobs.append(job_of(program, Direction(families, starts[-1]), seen, None, ()))
        seen = x.new_empty(()).expand(*x.shape[:2], starts[-1][0].shape[1])
    try:
        predict = cpu.Repeated(jobs, x)
    except ValueError:
        return None
    if len(starts) == 1:  # states as a user gets them need nothing done to them
        starts = [[t.unsqueeze(0) for t in starts[0]]]
    return _Known(predict, [job.call for job in jobs], starts)
