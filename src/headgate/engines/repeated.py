"""Plain calls again and again: layers one on another, in one direction or both, with nothing
between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headgate.engines import cpu
from headgate.engines.dispatch import REMEMBERED, Direction, choose, inside_functorch, job_of
from headgate.engines.random import MaskKey
from headgate.engines.reference import Call
from headgate.program.program import Program

Place = tuple[Sequence[Tensor], cpu.Parameters | None]
"""The parameters of a layer in a direction, and how its families are made of them; None: they are
these."""
SMALL = 1 << 14
"""Numbers in a state of all rows; where there are more, the shorter way saves too little."""


def undisturbed(x: Tensor) -> bool:
    """Whether the compiled engine would run x, by all that is not the module's."""
    return (
        x.is_cpu
        and cpu.wanted()
        and not torch.is_autocast_enabled("cpu")
        and not inside_functorch()
    )


def worth_remembering(x: Tensor, widest: int) -> bool:
    """Whether ``known_for`` may serve a call of states so wide; asks nothing of the weights, which
    a module may have to compute."""
    return x.numel() > 0 and x.shape[1] * widest <= SMALL and undisturbed(x)


@dataclass(frozen=True)
class Known:
    """What serves all plain calls of one shape: how to predict in one direction, and of each place
    its call and states where none are given: (N, width) each, and of a single place (1, N, width).
    """

    predict: cpu.Repeated | None
    calls: list[Call]
    states: list[list[Tensor]]
    directions: int

    def __call__(
        self,
        x: Tensor,
        places: Sequence[Place],
        initial: Sequence[Tensor] | None = None,
        lengths: Tensor | None = None,
        seed: int | None = None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The output (T, N, directions · H) and final states (layers · directions, N, width).

        ``initial``: a tensor (layers · directions, N, width) for each state, checked already as
        ``lengths`` are; None: the states' initial values. ``seed``: of the cell's masks; None: no
        draw.
        """
        lasting = lengths is None and seed is None and not torch.is_grad_enabled()
        if self.predict is not None and lasting:
            return self.predict(x, [_families(place) for place in places], initial)
        states: Sequence[Sequence[Tensor]] = self.states
        if initial is not None:
            alone = len(places) == 1
            states = [initial] if alone else list(zip(*[t.unbind(0) for t in initial], strict=True))
        jobs = []
        for k, (call, begun, (own, made)) in enumerate(
            zip(self.calls, states, places, strict=True)
        ):
            layer, direction = divmod(k, self.directions)
            key = None if seed is None else MaskKey(seed, layer, direction)
            options = cpu.Options(lengths, direction == 1, key)
            jobs.append(cpu.Job(call, options, [*begun, *own], made))
        return _layer_by_layer(jobs, x, self.directions)


def _layer_by_layer(
    jobs: Sequence[cpu.Job], x: Tensor, directions: int
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """With a graph for the way back where gradients are wanted."""
    finals = []
    for first in range(0, len(jobs), directions):
        layer = jobs[first : first + directions]
        if directions == 2 and not cpu.differentiated(layer, x):
            x, ends = cpu.side_by_side(layer, x)
            finals += ends
            continue
        found = cpu.returned(layer, x)
        finals += [last for _, *last in found]
        x = found[0][0] if directions == 1 else torch.cat([y for y, *_ in found], -1)
    if len(finals) == 1:
        return x, tuple(finals[0])
    return x, tuple(map(torch.stack, zip(*finals, strict=True)))


def _families(place: Place) -> Sequence[Tensor]:
    parameters, made = place
    return parameters if made is None else made.families(parameters)


_known: dict[Any, Known | None] = {}


def known_for(
    program: Program,
    x: Tensor,
    places: Sequence[Place],
    directions: int,
    widths: Sequence[tuple[int, ...]],
) -> Known | None:
    """What serves layers one on another, where the compiled engine runs them.

    A small network's call takes as long as all that comes before it, so what was worked out for one
    call serves those of the same shapes. ``x`` is ``worth_remembering``. ``places``: every layer
    and direction, in torch's order. ``widths``: of each place's states. None where that cannot be:
    ``run_directions``.
    """
    shapes = [(made, *[(t.shape, t.dtype, t.is_cpu) for t in own]) for own, made in places]
    key = (program, x.shape, x.stride(), x.dtype, directions, *widths, *shapes)
    try:
        return _known[key]
    except KeyError:
        if len(_known) >= REMEMBERED:
            _known.clear()
        found = _known[key] = _know(program, x, places, directions, widths)
        return found


def _know(
    program: Program,
    x: Tensor,
    places: Sequence[Place],
    directions: int,
    widths: Sequence[tuple[int, ...]],
) -> Known | None:
    if choose(program, like=x).engine != "cpu":
        return None
    jobs, starts, seen = [], [], x.detach()
    for k, (place, own) in enumerate(zip(places, widths, strict=True)):
        with torch.inference_mode(False):  # they serve training too
            starts.append(
                [
                    torch.full((x.shape[1], width), state.initial, dtype=x.dtype)
                    for state, width in zip(program.states, own, strict=True)
                ]
            )
        if k and k % directions == 0:
            seen = x.new_empty(()).expand(*x.shape[:2], directions * starts[-1][0].shape[1])
        families = dict(zip(program.families, _families(place), strict=True))
        jobs.append(job_of(program, Direction(families, starts[-1]), seen, None, ()))
    predict = None
    if directions == 1:
        try:
            predict = cpu.Repeated(jobs, x)
        except ValueError:
            return None
    if len(starts) == 1:  # states as a user gets them need nothing done to them
        starts = [[t.unsqueeze(0) for t in starts[0]]]
    return Known(predict, [job.call for job in jobs], starts, directions)
