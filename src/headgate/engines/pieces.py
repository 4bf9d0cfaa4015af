"""Training in pieces of k steps: the states at the pieces' starts are kept, the rest is run again.

    forward    s_0, s_k, s_2k, … are kept; of what happens between them, only what is returned
    backward   last piece first: run it again from its start, and differentiate it

So the way back needs memory for k steps and for T / k states, at the price of one more forward run.

Source: Gruslys, Munos, Danihelka, Lanctot & Graves, "Memory-efficient backpropagation through
time" (2016), with pieces of one length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from headgate.engines.cpu import Options
from headgate.engines.reference import through_autograd

Run = Callable[[Options, Sequence[Tensor]], tuple[Tensor, ...]]
"""From x (T, N, I), states, families and probes to the output, the final states and the records."""


def check_checkpoint(what: str, checkpoint: Any) -> None:
    """Raise ValueError unless ``checkpoint`` is a number of steps or None. ``what`` opens it."""
    if checkpoint is None:
        return
    if isinstance(checkpoint, bool) or not isinstance(checkpoint, int) or checkpoint < 1:
        raise ValueError(
            f"{what}: checkpoint must be a positive integer, the steps of a piece that is run "
            f"again, or None to keep every step; got {checkpoint!r}"
        )


@dataclass(frozen=True)
class Piece:
    """Steps of one run, from 0 in its own direction, and where they lie in (T, N, width).

    times: a slice, or where rows turn at different times each step's time in each row (count, N).
    options: of the piece's own run.
    """

    times: slice | Tensor
    options: Options

    def take(self, values: Tensor) -> Tensor:
        """The piece's share (count, N, width)."""
        if isinstance(self.times, slice):
            return values[self.times]
        return values.gather(0, self._index(values))

    def put(self, share: Tensor, values: Tensor) -> None:
        """Write the piece's share into (T, N, width)."""
        if isinstance(self.times, slice):
            values[self.times] = share
        else:
            values.scatter_(0, self._index(values), share)

    def _index(self, values: Tensor) -> Tensor:
        assert isinstance(self.times, Tensor)
        return self.times[..., None].expand(-1, -1, values.shape[2])


def piece(options: Options, steps: int, first: int, size: int) -> Piece:
    """The steps first … first + size − 1 of a run over ``steps``, or those there are.

    A piece of a ragged reverse run is a forward run: its input is turned as it is taken.
    """
    last = min(first + size, steps)
    key, lengths = options.key, options.lengths
    if key is not None:
        key = replace(key, first_step=key.first_step + first)
    if lengths is None:
        times = slice(steps - last, steps - first) if options.reverse else slice(first, last)
        return Piece(times, Options(None, options.reverse, key))
    own = Options((lengths - first).clamp(0, last - first), False, key)
    if not options.reverse:
        return Piece(slice(first, last), own)
    step = torch.arange(first, last, device=lengths.device)[:, None]
    return Piece(torch.where(step < lengths, lengths - 1 - step, step), own)


@dataclass(frozen=True)
class Pieces:
    """A run of one direction in pieces.

    run: what runs a piece. whole: what runs all steps so that torch differentiates it any number
    of times. states, probes: how many tensors of each stand among a run's. size: steps of a piece.
    """

    run: Run
    whole: Run
    options: Options
    states: int
    probes: int
    size: int

    def cut(self, x: Tensor) -> list[Piece]:
        steps = x.shape[0]
        return [
            piece(self.options, steps, first, self.size) for first in range(0, steps, self.size)
        ]

    def timed(self, tensors: Sequence[Any]) -> list[bool]:
        """Which of a run's tensors have a value for each step: x and the probes."""
        return [k == 0 or k >= len(tensors) - self.probes for k in range(len(tensors))]

    def forward(
        self, tensors: Sequence[Tensor]
    ) -> tuple[list[Sequence[Tensor]], tuple[Tensor, ...]]:
        """The states at the start of each piece but the first, and what the run returns."""
        x, states = tensors[0], tensors[1 : 1 + self.states]
        starts: list[Sequence[Tensor]] = []
        series: list[Tensor] = []
        for each in self.cut(x):
            output, *rest = self.run(each.options, self._given(each, tensors, states))
            shares = [output, *rest[self.states :]]
            series = series or [s.new_empty(x.shape[0], *s.shape[1:]) for s in shares]
            for share, values in zip(shares, series, strict=True):
                each.put(share, values)
            states = rest[: self.states]
            starts.append(states)
        return starts[:-1], (series[0], *(s.view_as(s) for s in states), *series[1:])

    def backward(
        self,
        tensors: Sequence[Tensor],
        starts: Sequence[Sequence[Tensor]],
        cotangents: Sequence[Tensor | None],
        needs: Sequence[bool],
    ) -> list[Tensor | None]:
        """Gradients by ``tensors``; ``starts`` are those of every piece."""
        count = 1 + self.states
        timed = self.timed(tensors)
        totals: list[Tensor | None] = [None] * len(tensors)
        carry, series = cotangents[1:count], [cotangents[0], *cotangents[count:]]
        for number, each in reversed(list(enumerate(self.cut(tensors[0])))):
            here = [n or bool(number and 0 < k < count) for k, n in enumerate(needs)]
            shares = [None if c is None else each.take(c) for c in series]
            ends = [shares[0], *carry, *shares[1:]]
            found = self._differentiated(each, tensors, starts[number], ends, here)
            carry = found[1:count]
            for k, gradient in enumerate(found):
                if gradient is None or 0 < k < count:
                    continue
                total = totals[k]
                if timed[k]:
                    total = tensors[k].new_zeros(tensors[k].shape) if total is None else total
                    each.put(gradient, total)
                    totals[k] = total
                else:
                    totals[k] = gradient if total is None else total + gradient
        totals[1:count] = carry
        return totals

    def _given(
        self, each: Piece, tensors: Sequence[Tensor], states: Sequence[Tensor]
    ) -> list[Tensor]:
        """What one piece is run on."""
        pairs = zip(self.timed(tensors), tensors, strict=True)
        given = [each.take(t) if timed else t for timed, t in pairs]
        given[1 : 1 + self.states] = states
        return given

    def _differentiated(
        self,
        each: Piece,
        tensors: Sequence[Tensor],
        start: Sequence[Tensor],
        cotangents: Sequence[Tensor | None],
        needs: Sequence[bool],
    ) -> list[Tensor | None]:
        """Gradients by what one piece is run on. All that it kept is free on return."""
        given = self._given(each, tensors, start)
        inner = [t.detach().requires_grad_(n) for t, n in zip(given, needs, strict=True)]
        with torch.enable_grad(), torch.autocast(inner[0].device.type, enabled=False):
            returned = self.run(each.options, inner)
        ends = [
            (value, cotangent)
            for value, cotangent in zip(returned, cotangents, strict=True)
            if cotangent is not None and value.requires_grad
        ]
        wanted = [t for t in inner if t.requires_grad]
        if not ends or not wanted:
            return [None] * len(inner)
        values, weights = zip(*ends, strict=True)
        found = iter(torch.autograd.grad(values, wanted, weights, allow_unused=True))
        return [next(found) if t.requires_grad else None for t in inner]


class InPieces(torch.autograd.Function):
    """A run that keeps the states at the starts of its pieces, and runs each again to go back."""

    @staticmethod
    def forward(ctx: Any, pieces: Pieces, *tensors: Tensor) -> tuple[Tensor, ...]:
        starts, returned = pieces.forward(tensors)
        ctx.pieces, ctx.count = pieces, len(tensors)
        ctx.save_for_backward(*tensors, *(state for start in starts for state in start))
        ctx.set_materialize_grads(False)
        return returned

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        pieces, saved = ctx.pieces, ctx.saved_tensors
        tensors, kept = saved[: ctx.count], saved[ctx.count :]
        needs = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():  # second derivatives are asked for
            with torch.autocast(tensors[0].device.type, enabled=False):

                def run(given: Sequence[Tensor]) -> tuple[Tensor, ...]:
                    return pieces.whole(pieces.options, given)

                return (None, *through_autograd(run, tensors, cotangents, needs))
        each = pieces.states
        starts = [tensors[1 : 1 + each]]
        starts += [kept[k : k + each] for k in range(0, len(kept), each)]
        return (None, *pieces.backward(tensors, starts, cotangents, needs))
