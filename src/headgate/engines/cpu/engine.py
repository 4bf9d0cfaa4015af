"""The compiled engine: a Plan's time loop and the products after it in native code."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import partial, reduce
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from headgate import native
from headgate.engines.cpu.bind import Bound
from headgate.engines.cpu.form import Form, form_of
from headgate.engines.cpu.loop import Compiled
from headgate.engines.cpu.memory import Lease
from headgate.engines.cpu.weights import instruction_set
from headgate.engines.evaluate import Runner, Values, Weights, leaf_constants
from headgate.engines.random import MaskKey
from headgate.engines.reference import Call, in_time, through_autograd, through_torch
from headgate.program.schedule import Phase

NO_STREAMS: list[int] = []

NativeCall = tuple[Any, list[int], int, int, int, list[int]]
"""Binding, addresses, address of the lengths; seed, first step and streams of masks."""


class Options(NamedTuple):
    """What a call fixes besides its tensors: valid steps, direction, masks' key (None: no draw)."""

    lengths: Tensor | None
    reverse: bool
    key: MaskKey | None


class Parameters(Protocol):
    """Tensors that a call's families are made of."""

    def families(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """In the program's order, by torch operations that can be differentiated."""
        ...

    def gradients(self, families: Sequence[Tensor | None]) -> list[Tensor | None]:
        """By each parameter, out of those by each family; None where there is none."""
        ...


class Job(NamedTuple):
    """A call, its options, and its tensors but for the input: states, families, probes.

    States are (N, width); those of a single layer may be (1, N, width), as a user has them. With
    ``parameters`` these stand in place of the families they make up, and there are no probes.
    """

    call: Call
    options: Options
    tensors: Sequence[Tensor]
    parameters: Parameters | None = None

    def families(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Out of tensors like the job's, states, families, probes."""
        states = len(self.call.plan.source.states)
        if self.parameters is None:
            return tensors[states : states + len(self.call.plan.source.families)]
        return self.parameters.families(tensors[states:])


class Run:
    """One call in one direction, and what its way back needs."""

    def __init__(self, job: Job, x: Tensor, kept: bool, beside: bool = False) -> None:
        options = job.options
        self.job = job
        self.x = x = x if x.stride(2) == 1 or x.shape[2] == 1 else x.contiguous()
        ragged = options.lengths is not None
        self.form: Form = form_of(
            job.call, x, options.key is not None, options.reverse, ragged, kept, beside
        )
        self.held: tuple[Any, ...] = ()
        self.states = [t.contiguous() for t in job.tensors[: self.form.states]]
        self.families = [t.contiguous() for t in job.families(job.tensors)]
        self.fixed = self._fixed() if self.form.fixed else []

    def _fixed(self) -> list[Tensor]:
        """What torch computes ahead: values that no step and no row changes."""
        plan, wanted = self.form.loop.plan, self.form.fixed
        nodes = plan.program.nodes
        families = dict(zip(plan.program.families, self.families, strict=True))
        weights = Weights(plan.program, families, self.job.call.sizes)
        values: Values = leaf_constants(nodes, self.x, self.job.call.sizes)
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
        return self.fixed[self.form.fixed.index(index)]

    def _native(
        self, compiled: Compiled, bound: Bound, others: Sequence[Tensor | Lease | None]
    ) -> NativeCall:
        """``others`` follow the memories of ``common_names``."""
        lengths, _, key = self.job.options
        memories = (
            self.x, self.buffer, self.lease, *self.states, *self.families, *self.fixed, *others,
        )  # fmt: skip
        addresses = [0 if memory is None else memory.data_ptr() for memory in memories]
        at = 0 if lengths is None else lengths.data_ptr()
        if key is None:
            return bound.binding, addresses, at, 0, 0, NO_STREAMS
        place = f"{key.layer}/{key.direction}/"
        streams = [zlib.crc32((place + name).encode()) for name in compiled.masks]
        return bound.binding, addresses, at, key.seed & (2**64 - 1), key.first_step, streams

    def forward(self, buffer: Tensor | None = None) -> tuple[NativeCall, tuple[Tensor, ...]]:
        """A call, and what it fills: output, final states and records.

        Memory for the way back is leased. ``buffer``: the other direction's, where this one's
        output lies beside it.
        """
        form, x = self.form, self.x
        self.buffer = x.new_empty(form.buffer) if buffer is None else buffer
        output = self.buffer if form.output is None else self.buffer[form.output]
        others = list(map(torch.empty_like, self.states))
        others += [x.new_empty(shape) for shape in form.records]
        workspace = form.forward.workspace
        self.lease = Lease(workspace, x.dtype) if workspace else None
        return self._native(form.loop.forward, form.forward, others), (output, *others)

    def backward(self, cotangents: Sequence[Tensor | None], needed: bool) -> NativeCall:
        """A call that fills ``gradients``; that by x only where it is ``needed``."""
        form, x = self.form, self.x
        end = 1 + form.states
        offered = [_steps(c) for c in (cotangents[0], *cotangents[end:])]
        lasts = [form.zeros if c is None else c.contiguous() for c in cotangents[1:end]]
        strides = tuple([None if c is None else (c.stride(0), c.stride(1)) for c in offered])
        zeros = form.zeros if None in strides else None
        made = needed or form.always
        bound = form.backward(strides, not _graph_is_kept(), made)
        workspace = Lease(bound.workspace, x.dtype) if bound.workspace else None
        found = [torch.empty_like(x, memory_format=torch.contiguous_format) if made else None]
        found += map(torch.empty_like, self.states)
        found += [
            None if make is None else make(t)
            for make, t in zip(form.family_gradients, self.families, strict=True)
        ]
        found += [x.new_empty(shape) for shape in form.errors]
        self.held = workspace, offered, lasts, found
        others = [workspace, zeros, found[0], *offered, *lasts, *found[1:]]
        return self._native(form.loop.backward, bound, others)

    def gradients(self) -> list[Tensor | None]:
        """By x, the states, the families or parameters, and the probes; once the call is done."""
        *_, found = self.held
        self.held = ()  # the workspace goes to the next call
        form, parameters = self.form, self.job.parameters
        if parameters is not None:
            start = 1 + form.states
            found[start : start + form.families] = parameters.gradients(found[start:])
        if not form.reached:
            found[0] = None
        if not all(form.passing):
            first = len(found) - len(form.passing)
            for k, passes in enumerate(form.passing, first):
                found[k] = found[k] if passes else None
        return found


def _graph_is_kept() -> bool:
    """Whether the way back may be asked for once more."""
    autograd: Any = torch._C._autograd  # pyright: ignore
    asked = getattr(autograd, "_get_current_graph_task_keep_graph", None)
    return asked is None or asked()


def _steps(cotangent: Tensor | None) -> Tensor | None:
    """The values of one row and step lie side by side."""
    if cotangent is None or cotangent.stride(2) == 1 or cotangent.shape[2] == 1:
        return cotangent
    return cotangent.contiguous()


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
        ctx.runs = [Run(job, x, kept=True) for job in jobs]
        begun = [run.forward() for run in ctx.runs]
        _run([call for call, _ in begun])
        ctx.save_for_backward(x, *tensors, *[found[0] for _, found in begun])
        ctx.set_materialize_grads(False)
        return tuple([t for _, found in begun for t in found])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        jobs, runs = ctx.jobs, ctx.runs
        x, *tensors = ctx.saved_tensors[: -len(jobs)]
        _, by_x, *needs = ctx.needs_input_grad
        if torch.is_grad_enabled():
            again = partial(_by_torch, jobs)
            return (None, *through_autograd(again, [x, *tensors], cotangents, [by_x, *needs]))
        each = len(cotangents) // len(jobs)
        _run([r.backward(cotangents[k * each : (k + 1) * each], by_x) for k, r in enumerate(runs)])
        by_input, rest = [], []
        for run in runs:
            first, *others = run.gradients()
            by_input += [first] if by_x and first is not None else []
            rest += others
        gradient = reduce(Tensor.add_, by_input) if by_input else None
        return (None, gradient, *[g if n else None for g, n in zip(rest, needs, strict=True)])


def _by_torch(jobs: Sequence[Job], tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    found: list[Tensor] = []
    for job, mine in zip(jobs, _split(jobs, tensors[1:]), strict=True):
        options, count = job.options, len(job.call.plan.source.states)
        call, x = job.call.on(tensors[0], options.lengths, options.key)
        run = partial(through_torch, call)
        states = [t.reshape(t.shape[-2:]) for t in mine[:count]]
        families = job.families(mine)
        probes = mine[len(mine) - len(call.probed) :]
        output, *rest = in_time(
            run, call, options.lengths, options.reverse, [x, *states, *families, *probes]
        )
        finals = [t.reshape(s.shape) for t, s in zip(rest, mine[:count], strict=False)]
        found += [output, *finals, *rest[count:]]
    return tuple(found)


def differentiated(jobs: Sequence[Job], x: Tensor) -> bool:
    """Whether a graph for the way back is made."""
    if not torch.is_grad_enabled():
        return False
    return x.requires_grad or any(t.requires_grad for job in jobs for t in job.tensors)


def returned(jobs: Sequence[Job], x: Tensor) -> list[tuple[Tensor, ...]]:
    """Each job's output, final states and records, (T, N, …) in the order of time."""
    if differentiated(jobs, x):
        tensors = [t for job in jobs for t in job.tensors]
        found: Any = CompiledLoop.apply(jobs, x, *tensors)
        if len(jobs) == 1:
            return [found]
        each = len(found) // len(jobs)
        return [found[k * each : (k + 1) * each] for k in range(len(jobs))]
    runs = [Run(job, x, kept=False) for job in jobs]
    begun = [run.forward() for run in runs]
    _run([call for call, _ in begun])
    return [found for _, found in begun]


def side_by_side(jobs: Sequence[Job], x: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
    """Both directions' outputs as one tensor (T, N, 2 · H), and each one's final states; without
    derivatives and records."""
    forward, reverse = (Run(job, x, kept=False, beside=True) for job in jobs)
    first, (output, *ends) = forward.forward()
    second, (_, *other_ends) = reverse.forward(forward.buffer)
    _run([first, second])
    return output, [ends, other_ends]


def chained(jobs: Sequence[Job], x: Tensor) -> list[tuple[Tensor, ...]]:
    """What ``returned`` gives for layers one on another, each of which reads the output of the one
    before; without derivatives. Small batches run them side by side, one a few steps behind the
    other."""
    runs, begun = [], []
    for job in jobs:
        runs.append(Run(job, x, kept=False))
        begun.append(runs[-1].forward())
        x = begun[-1][1][0]
    _run([call for call, _ in begun], chain=True)
    return [found for _, found in begun]
