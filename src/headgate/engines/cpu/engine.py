"""The compiled engine: a Plan's time loop and the products after it in native code."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from headgate import native
from headgate.engines.cpu.bind import Shape, bind_forward
from headgate.engines.cpu.bind_backward import bind_backward, bind_last_backward
from headgate.engines.cpu.loop import Compiled, Loop, loop_for
from headgate.engines.cpu.memory import Lease
from headgate.engines.cpu.sources import Layout, fixed_nodes, histories
from headgate.engines.cpu.weights import instruction_set, machine_for
from headgate.engines.evaluate import Runner, Values, Weights, leaf_constants
from headgate.engines.random import MaskKey
from headgate.engines.reference import Call, in_time, through_autograd, through_torch
from headgate.program.schedule import Phase

FUSED_FROM = 8
"""Rows that fill the product's tile, so that nothing is gained by taking steps together."""
READ_ONCE, MANY_ROWS = 1 << 20, 32
"""Numbers of weights that are too far to be read at every step for fewer than so many rows: those
of the input are then read once for several steps."""
BOUND_AT_MOST = 64
"""Shapes of calls for which a loop remembers where its tensors lie."""
LOOPS_AT_MOST = 256
NO_STREAMS: list[int] = []

NativeCall = tuple[Any, list[int], int, int, int, list[int]]
"""Binding, addresses, address of the lengths; seed, first step and streams of masks."""

_loops: dict[Any, Loop] = {}


@dataclass(frozen=True)
class Options:
    """What a call fixes besides its tensors: valid steps, direction, masks' key (None: no draw)."""

    lengths: Tensor | None
    reverse: bool
    key: MaskKey | None


@dataclass(frozen=True)
class Job:
    """A call, its options, and its tensors but for the input: states, families, probes.

    States are (N, width); those of a single layer may be (1, N, width), as a user has them.
    """

    call: Call
    options: Options
    tensors: Sequence[Tensor]


class Run:
    """One call in one direction, and what its way back needs."""

    def __init__(self, call: Call, options: Options, tensors: Sequence[Tensor], kept: bool) -> None:
        program = call.plan.source
        states, families = len(program.states), len(program.families)
        x = tensors[0]
        self.call, self.options = call, options
        self.x = x if x.stride(2) == 1 or x.shape[2] == 1 else x.contiguous()
        self.states = [t.contiguous() for t in tensors[1 : 1 + states]]
        self.families = list(tensors[1 + states : 1 + states + families])
        self.loop = self._loop(kept)
        self.shape: Shape = (
            x.shape[0], x.shape[1], options.reverse, (self.x.stride(0), self.x.stride(1)), ()
        )  # fmt: skip
        self.fixed = self._fixed()

    def _loop(self, kept: bool) -> Loop:
        call, options, x = self.call, self.options, self.x
        shifted = not (options.reverse and options.lengths is not None)
        fused = x.shape[1] >= FUSED_FROM and (
            x.shape[1] >= MANY_ROWS or sum(f.numel() for f in self.families) <= READ_ONCE
        )
        key = (
            call.plan, x.dtype, options.key is None, kept, shifted, fused, *call.sizes.items(),
        )  # fmt: skip
        found = _loops.get(key)
        if found is None:
            layout = Layout(
                sizes=tuple(sorted(call.sizes.items())),
                double=x.dtype == torch.float64,
                machine=machine_for(x.dtype),
                drawn=options.key is not None,
                kept=kept,
                shifted=shifted,
                fused=fused,
                names=call.names,
                probed=call.probed,
            )
            found = _loops[key] = loop_for(call.plan.source, layout)
            for old in list(_loops)[:-LOOPS_AT_MOST]:
                _loops.pop(old, None)
        return found

    def _fixed(self) -> list[Tensor]:
        """What torch computes ahead: values that no step and no row changes."""
        plan = self.loop.plan
        wanted = fixed_nodes(plan)
        if not wanted:
            return []
        nodes = plan.program.nodes
        families = dict(zip(plan.program.families, self.families, strict=True))
        weights = Weights(plan.program, families, self.call.sizes)
        values: Values = leaf_constants(nodes, self.x, self.call.sizes)
        for index, node in enumerate(nodes):
            if node.op == "parameter":
                values[index] = weights.vector(node["family"], node["block"])
        inside = set(wanted)
        phases = [
            Phase(
                tuple(g for g in p.products if g.nodes[0] in inside),
                tuple(i for i in p.values if i in inside),
            )
            for p in plan.before
        ]
        Runner(nodes, phases, weights)(values)
        return [values[i].contiguous() for i in wanted]

    def fixed_value(self, index: int) -> Tensor:
        return self.fixed[fixed_nodes(self.loop.plan).index(index)]

    def _addresses(self, kept: int) -> list[int]:
        """In the order of ``common_names``."""
        common = [self.x.data_ptr(), self.buffer.data_ptr(), kept]
        common += [t.data_ptr() for t in self.states]
        common += [t.data_ptr() for t in self.families]
        return common + [t.data_ptr() for t in self.fixed]

    def _native(self, compiled: Compiled, bound: Any, addresses: list[int]) -> NativeCall:
        key, lengths = self.options.key, self.options.lengths
        if key is None:
            seed, first, streams = 0, 0, NO_STREAMS
        else:
            place = f"{key.layer}/{key.direction}/"
            streams = [zlib.crc32((place + name).encode()) for name in compiled.masks]
            seed, first = key.seed & (2**64 - 1), key.first_step
        at = 0 if lengths is None else lengths.data_ptr()
        return bound, addresses, at, seed, first, streams

    def forward(self) -> tuple[NativeCall, tuple[Tensor, ...]]:
        """A call, and what it fills: output, final states and records.

        Memory for the way back is leased.
        """
        loop, x, (T, N) = self.loop, self.x, self.shape[:2]
        program, sizes = loop.plan.program, loop.sizes
        bound = _bound(loop, self.shape, bind_forward)
        first = program.states[0]
        remembered = first.name in histories(loop.plan, loop.layout)
        self.buffer = x.new_empty(T + remembered, N, sizes[program.output_width])
        output = self.buffer
        if remembered:
            output = self.buffer[:-1] if self.options.reverse else self.buffer[1:]
        finals = [s.new_empty(s.shape) for s in self.states]
        records = [x.new_empty(T, N, sizes[program.width_of(n)]) for n in loop.layout.names]
        self.lease = Lease(bound.workspace, x.dtype) if bound.workspace else None
        addresses = self._addresses(0 if self.lease is None else self.lease.address)
        addresses += [t.data_ptr() for t in finals]
        addresses += [t.data_ptr() for t in records]
        call = self._native(loop.forward, bound.binding, addresses)
        return call, (output, *finals, *records)

    def backward(
        self, cotangents: Sequence[Tensor | None]
    ) -> tuple[NativeCall, list[Tensor | None]]:
        """A call, and what it fills: gradients by x, the states, the families and the probes."""
        loop, x, (T, N) = self.loop, self.x, self.shape[:2]
        program, sizes, back = loop.plan.program, loop.sizes, loop.plan.back.backward
        count = len(program.states)
        offered = [_steps(c) for c in (cotangents[0], *cotangents[1 + count :])]
        strides = tuple(None if c is None else (c.stride(0), c.stride(1)) for c in offered)
        shape = (*self.shape[:4], strides)
        bound = _bound(loop, shape, bind_backward if _graph_is_kept() else bind_last_backward)
        zeros = x.new_zeros(N * max(s.shape[-1] for s in self.states) + max(sizes.values()))
        lasts = [zeros if c is None else c.contiguous() for c in cotangents[1 : 1 + count]]
        firsts = [s.new_empty(s.shape) for s in self.states]
        gradient = x.new_empty(x.shape)
        covered = {term.family for term in back.terms}
        families = [
            (torch.zeros_like if name in loop.covered_again else torch.empty_like)(t)
            for name, t in zip(program.families, self.families, strict=True)
        ]
        errors = []
        for name in loop.layout.probed:
            error = back.errors[name]
            width = sizes[program.width_of(name) if error is None else back_width(loop, error)]
            errors.append(x.new_empty(T, N, width))
        self.deltas = lease = Lease(bound.workspace, x.dtype) if bound.workspace else None
        self.zeros = zeros
        addresses = self._addresses(0 if self.lease is None else self.lease.address)
        addresses += [0 if lease is None else lease.address, zeros.data_ptr(), gradient.data_ptr()]
        for tensor in (*offered, *lasts, *firsts, *families, *errors):
            addresses.append(0 if tensor is None else tensor.data_ptr())
        call = self._native(loop.backward, bound.binding, addresses)
        self.held = (offered, lasts)  # until the call is done
        by_family = [
            t if name in covered else None
            for name, t in zip(program.families, families, strict=True)
        ]
        by_probe = [
            None if back.errors[name] is None else error
            for name, error in zip(loop.layout.probed, errors, strict=True)
        ]
        return call, [None if back.input is None else gradient, *firsts, *by_family, *by_probe]

    def let_go(self) -> None:
        """After the way back: its workspace goes to the next call."""
        self.deltas = self.held = self.zeros = None


def _graph_is_kept() -> bool:
    """Whether the way back may be asked for once more."""
    autograd: Any = torch._C._autograd  # pyright: ignore
    asked = getattr(autograd, "_get_current_graph_task_keep_graph", None)
    return asked is None or asked()


def back_width(loop: Loop, node: int) -> str:
    return loop.plan.back.backward.widths[node]


def _steps(cotangent: Tensor | None) -> Tensor | None:
    """The values of one row and step lie side by side."""
    if cotangent is None or cotangent.stride(2) == 1 or cotangent.shape[2] == 1:
        return cotangent
    return cotangent.contiguous()


def _bound(loop: Loop, shape: Shape, bind: Any) -> Any:
    found = loop.bound.get((bind, shape))
    if found is None:
        found = loop.bound[bind, shape] = bind(loop, shape)
        for key in list(loop.bound)[:-BOUND_AT_MOST]:
            loop.bound.pop(key, None)
    return found


def _run(calls: list[NativeCall], chain: bool = False) -> None:
    run = native.extension.run  # type: ignore[union-attr]
    run(instruction_set()[0], calls, torch.get_num_threads(), chain)


def _split(jobs: Sequence[Job], tensors: Sequence[Any]) -> list[Sequence[Any]]:
    """What belongs to each job, out of one list."""
    found, start = [], 0
    for job in jobs:
        found.append(tensors[start : start + len(job.tensors)])
        start += len(job.tensors)
    return found


class CompiledLoop(torch.autograd.Function):
    """The compiled loops forward and back; second derivatives by the reference engine.

    What all jobs return stands one after another.
    """

    @staticmethod
    def forward(ctx: Any, jobs: Sequence[Job], x: Tensor, *tensors: Tensor) -> Any:
        ctx.jobs = jobs
        ctx.runs = [Run(job.call, job.options, (x, *job.tensors), kept=True) for job in jobs]
        begun = [run.forward() for run in ctx.runs]
        _run([call for call, _ in begun])
        ctx.save_for_backward(x, *tensors, *(found[0] for _, found in begun))
        ctx.set_materialize_grads(False)
        return tuple(t for _, found in begun for t in found)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        jobs, runs = ctx.jobs, ctx.runs
        x, *tensors = ctx.saved_tensors[: -len(jobs)]
        needs = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():
            again = partial(_by_torch, jobs)
            return (None, *through_autograd(again, [x, *tensors], cotangents, needs))
        each = len(cotangents) // len(jobs)
        begun = [run.backward(cotangents[k * each : (k + 1) * each]) for k, run in enumerate(runs)]
        _run([call for call, _ in begun])
        for run in runs:
            run.let_go()
        by_x = [found[0] for _, found in begun if found[0] is not None] if needs[0] else []
        gradient = by_x[0] if by_x else None
        for other in by_x[1:]:
            gradient = gradient + other
        rest = [g for _, found in begun for g in found[1:]]
        return (None, gradient, *(g if n else None for g, n in zip(rest, needs[1:], strict=True)))


def _by_torch(jobs: Sequence[Job], tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    found: list[Tensor] = []
    for job, mine in zip(jobs, _split(jobs, tensors[1:]), strict=True):
        options, count = job.options, len(job.call.plan.source.states)
        call, x = job.call.on(tensors[0], options.lengths, options.key)
        run = partial(through_torch, call)
        states = [t.reshape(t.shape[-2:]) for t in mine[:count]]
        output, *rest = in_time(
            run, call, options.lengths, options.reverse, [x, *states, *mine[count:]]
        )
        finals = [t.reshape(s.shape) for t, s in zip(rest, mine[:count], strict=False)]
        found += [output, *finals, *rest[count:]]
    return tuple(found)


def returned(jobs: Sequence[Job], x: Tensor) -> list[tuple[Tensor, ...]]:
    """Each job's output, final states and records, (T, N, …) in the order of time."""
    tensors = [t for job in jobs for t in job.tensors]
    if torch.is_grad_enabled() and (x.requires_grad or any(t.requires_grad for t in tensors)):
        found: Any = CompiledLoop.apply(jobs, x, *tensors)
        each = len(found) // len(jobs)
        return [found[k * each : (k + 1) * each] for k in range(len(jobs))]
    runs = [Run(job.call, job.options, (x, *job.tensors), kept=False) for job in jobs]
    begun = [run.forward() for run in runs]
    _run([call for call, _ in begun])
    return [found for _, found in begun]


def chained(jobs: Sequence[Job], x: Tensor) -> list[tuple[Tensor, ...]]:
    """What ``returned`` gives for layers one on another, each of which reads the output of the one
    before; without derivatives. Small batches run them side by side, one a few steps behind the
    other."""
    runs, begun = [], []
    for job in jobs:
        runs.append(Run(job.call, job.options, (x, *job.tensors), kept=False))
        begun.append(runs[-1].forward())
        x = begun[-1][1][0]
    _run([call for call, _ in begun], chain=True)
    return [found for _, found in begun]
