"""What calls alike share: worked out at the first of them and remembered."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from headgate.engines.cpu.bind import Bound, Strides, bind_forward
from headgate.engines.cpu.bind_backward import bind_backward
from headgate.engines.cpu.loop import loop_for
from headgate.engines.cpu.sources import Layout, fixed_nodes, histories, late
from headgate.engines.cpu.weights import machine_for
from headgate.engines.reference import Call
from headgate.program.program import Program

FUSED_FROM = 8
"""Rows that fill the product's tile, so that nothing is gained by taking steps together."""
READ_ONCE, MANY_ROWS = 1 << 20, 32
"""Numbers of weights that are too far to be read at every step for fewer than so many rows: those
of the input are then read once for several steps."""
FORMS_AT_MOST, BOUND_AT_MOST = 1024, 16


class Form:
    """A call's loop for given numbers of steps and rows, and where its tensors lie.

    ``kept``: values are kept for the way back. ``beside``: the outputs of both directions lie side
    by side; then nothing is kept.
    """

    def __init__(
        self,
        call: Call,
        x: Tensor,
        drawn: bool,
        reverse: bool,
        ragged: bool,
        kept: bool,
        beside: bool,
    ) -> None:
        program = call.plan.source
        T, N = x.shape[:2]
        numbers = sum(math.prod(program.shape(f, call.sizes)) for f in program.families)
        self.loop = loop = loop_for(
            program,
            Layout(
                sizes=tuple(sorted(call.sizes.items())),
                double=x.dtype == torch.float64,
                machine=machine_for(x.dtype),
                drawn=drawn,
                kept=kept,
                shifted=not (reverse and ragged),
                fused=N >= FUSED_FROM and (N >= MANY_ROWS or numbers <= READ_ONCE),
                names=call.names,
                probed=call.probed,
            ),
        )
        self.fixed = fixed_nodes(loop.plan)
        self.states, self.families = len(program.states), len(program.families)
        self.shape = (T, N, reverse, beside, (x.stride(0), x.stride(1)), ())
        self.forward = bind_forward(loop, self.shape)
        remembered = loop.plan.program.states[0].name in histories(loop.plan, loop.layout)
        sizes = loop.sizes
        self.buffer = (T + remembered, N, sizes[program.output_width] * (2 if beside else 1))
        self.output = None if not remembered else slice(-1) if reverse else slice(1, None)
        """Which steps of the buffer are the output; None: all."""
        self.records = [(T, N, sizes[loop.plan.program.width_of(n)]) for n in call.names]
        self._backward: dict[Any, Bound] = {}

    def backward(self, strides: tuple[Strides | None, ...], spend: bool, by_input: bool) -> Bound:
        """``strides``: of the cotangents of the output and the records. See ``bind_backward``."""
        key = (strides, spend, by_input)
        found = self._backward.get(key)
        if found is None:
            if len(self._backward) >= BOUND_AT_MOST:
                self._backward.clear()
            shape = (*self.shape[:5], strides)
            found = self._backward[key] = bind_backward(self.loop, shape, spend, by_input)
        return found

    @cached_property
    def reached(self) -> bool:
        """Whether the input has a gradient."""
        return self.loop.plan.back.backward.input is not None

    @cached_property
    def always(self) -> bool:
        """Whether the input's gradient is made in the loop, wanted or not."""
        return self.reached and not late(self.loop.plan)[0]

    @cached_property
    def zeros(self) -> Tensor:
        """In place of a cotangent that is none."""
        sizes, dtype = self.loop.sizes, torch.float64 if self.loop.layout.double else torch.float32
        widest = max(sizes[state.width] for state in self._program.states)
        with torch.inference_mode(False):
            return torch.zeros(self.shape[1] * widest + max(sizes.values()), dtype=dtype)

    @cached_property
    def family_gradients(self) -> list[Any]:
        """For each family what makes the memory of its gradient; None where it has none."""
        covered = {term.family for term in self.loop.plan.back.backward.terms}
        again = self.loop.covered_again
        return [
            (torch.zeros_like if name in again else torch.empty_like) if name in covered else None
            for name in self._program.families
        ]

    @cached_property
    def passing(self) -> list[bool]:
        """For each probe whether its value has an error term."""
        errors = self.loop.plan.back.backward.errors
        return [errors[name] is not None for name in self.loop.layout.probed]

    @cached_property
    def errors(self) -> list[tuple[int, int, int]]:
        """For each probe the shape of its value's error term."""
        back, sizes, found = self.loop.plan.back.backward, self.loop.sizes, []
        for name in self.loop.layout.probed:
            error = back.errors[name]
            own = self._program.width_of(name) if error is None else back.widths[error]
            found.append((*self.shape[:2], sizes[own]))
        return found

    @property
    def _program(self) -> Program:
        return self.loop.plan.program


_forms: dict[Any, Form] = {}


def form_of(call: Call, x: Tensor, *how: bool) -> Form:
    """Of calls that share one ``Call``, whose inputs differ in values alone. ``how``: as ``Form``
    takes it."""
    key = (call, x.shape, x.stride(), x.dtype, *how)
    found = _forms.get(key)
    if found is None:
        found = _forms[key] = Form(call, x, *how)
        for old in list(_forms)[:-FORMS_AT_MOST]:
            _forms.pop(old, None)
    return found
