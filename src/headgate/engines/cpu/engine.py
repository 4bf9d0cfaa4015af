"""The compiled engine: a Plan's time loop in native code, what surrounds it in torch operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from headgate import native
from headgate.engines.cpu.code import Packing
from headgate.engines.cpu.compile import Compiler, Name
from headgate.engines.cpu.memory import Lease
from headgate.engines.cpu.products import AfterLoop, Joined
from headgate.engines.cpu.sources import (
    Layout,
    backward_source,
    fixed_nodes,
    forward_source,
    histories,
    joined_deltas,
    only,
    read_outside,
)
from headgate.engines.cpu.weights import instruction_set, machine_for, packed
from headgate.engines.evaluate import Runner, Values, Weights, leaf_constants
from headgate.engines.layout import reversed_rows
from headgate.engines.reference import (
    OUTPUT,
    Call,
    cotangent_name,
    in_time,
    through_autograd,
    through_torch,
)
from headgate.program.program import COMPARISONS, Program


@dataclass
class Compiled:
    """A native plan, its tensors and weights by name, and how often it may be run."""

    plan: Any
    tensors: list[Name]
    weights: list[Packing]


@lru_cache(maxsize=512)
def compiled(program: Program, layout: Layout, backward: bool) -> Compiled:
    source = (backward_source if backward else forward_source)(program, layout)
    compiler = Compiler(source, layout.machine)
    native_plan = native.extension.Plan(**compiler.arguments())  # type: ignore[union-attr]
    return Compiled(native_plan, list(compiler.tensors), list(compiler.weights))


FUSED_FROM = 8
"""Rows that fill the product's tile, so that nothing is gained by taking steps together."""

Argument = tuple[int, int, int, int]
Options = tuple[Tensor | None, bool, bool]


@dataclass
class Job:
    """One call in one direction: how it is laid out, and the tensors by name."""

    call: Call
    program: Program
    layout: Layout
    weights: Weights
    lengths: Tensor | None
    reverse: bool
    shape: tuple[int, int]
    like: Tensor
    arguments: dict[Name, Argument]
    lease: Lease

    def step(self, name: Name, tensor: Tensor) -> None:
        """A tensor (T, N, width)."""
        self.arguments[name] = (tensor.data_ptr(), 0, tensor.stride(0), tensor.stride(1))

    def fixed(self, name: Name, tensor: Tensor) -> None:
        """A tensor that is the same at every step, (N, width) or (width)."""
        row = tensor.stride(0) if tensor.dim() == 2 else 0
        self.arguments[name] = (tensor.data_ptr(), 0, 0, row)

    def state(self, name: Name, start: Tensor, end: Tensor) -> None:
        self.arguments[name] = (start.data_ptr(), end.data_ptr(), 0, 0)

    def room(self, *shape: int) -> Tensor:
        """Memory for values of every step; past a ragged row's end it must be zero."""
        make = self.like.new_empty if self.lengths is None else self.like.new_zeros
        return make(shape)

    def run(self, backward: bool) -> None:
        made = compiled(self.program, self.layout, backward)
        used = [packed(self.weights, packing) for packing in made.weights]
        native.extension.run(  # type: ignore[union-attr]
            instruction_set()[0],
            made.plan,
            self.like.dtype == torch.float64,
            *self.shape,
            0 if self.lengths is None else self.lengths.data_ptr(),
            self.reverse,
            torch.get_num_threads(),
            [self.arguments.get(name, (0, 0, 0, 0)) for name in made.tensors],
            [tensor.data_ptr() for tensor in used],
        )


def start(
    call: Call,
    tensors: Sequence[Tensor],
    lengths: Tensor | None,
    reverse: bool,
    drawn: bool,
    kept: bool,
) -> Job:
    x, _, weights, _ = call.unpack(tensors)
    layout = Layout(
        sizes=tuple(sorted(call.sizes.items())),
        machine=machine_for(x.dtype),
        drawn=drawn,
        kept=kept,
        shifted=not (reverse and lengths is not None),
        fused=x.shape[1] >= FUSED_FROM,
        names=call.names,
        probed=call.probed,
    )
    program = call.plan.source
    return Job(
        call,
        program,
        layout,
        weights,
        lengths,
        reverse,
        (x.shape[0], x.shape[1]),
        x,
        {},
        Lease(x, lengths is not None),
    )


def forward(job: Job, tensors: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Values]:
    """Output, final states and records; and the kept values by forward node."""
    call, plan, program = job.call, job.call.plan, job.call.plan.program
    x, states, _, _ = call.unpack(tensors)
    (T, N), sizes = job.shape, job.layout.table()
    values = known_values(job, x)
    for index, value in values.items():
        if program.nodes[index].op == "input":
            job.step(("x",), value)
        elif index in plan.timed:
            job.step(("value", index), value)
        else:
            job.fixed(("value", index), value)
    kept = dict(values)
    finals = {
        state.name: s.new_empty(s.shape) for state, s in zip(program.states, states, strict=True)
    }
    starts = {state.name: s.contiguous() for state, s in zip(program.states, states, strict=True)}
    for name, first in starts.items():
        job.state(("state", name), first, finals[name])
    remembered: dict[str, Tensor] = {}
    output: Tensor | None = None
    inner = {
        name: (T + 1, N, sizes[program.widths[new]])
        for name, (_, new) in histories(plan, job.layout).items()
        if name != program.states[0].name
    }
    spaces = dict(zip(inner, job.lease.room(*inner.values()), strict=True))
    for name, (old, new) in histories(plan, job.layout).items():
        history = spaces.get(name)
        if history is None:
            history = job.room(T + 1, N, sizes[program.widths[new]])
        history[T if job.reverse else 0] = starts[name]
        before, after = (history[1:], history[:-1]) if job.reverse else (history[:-1], history[1:])
        job.step(("past", name), before)
        job.step(("history", name), after)
        kept[old], kept[new] = before, after
        remembered[name] = history
        if name == program.states[0].name:
            output = after
    if output is None:
        output = job.room(T, N, sizes[program.output_width])
        job.step(("output",), output)
    missing = [i for i in plan.back.kept if i not in kept] if job.layout.kept else []
    rooms = job.lease.room(*((T, N, sizes[program.widths[i]]) for i in missing))
    for index, room in zip(missing, rooms, strict=True):
        kept[index] = room
        job.step(("keep", index), room)
    records = [job.room(T, N, sizes[program.width_of(name)]) for name in call.names]
    for name, record in zip(call.names, records, strict=True):
        job.step(("record", name), record)
    job.run(backward=False)
    for name, history in remembered.items():
        finals[name].copy_(_last_of(history, job))
    return (output, *finals.values(), *records), kept


def _last_of(history: Tensor, job: Job) -> Tensor:
    """The final state of every row (N, width), out of its values at T + 1 times."""
    if job.lengths is not None:
        index = job.lengths.view(1, -1, 1).expand(1, -1, history.shape[-1])
        return history.gather(0, index)[0]
    return history[0] if job.reverse else history[-1]


def inner_contiguous(value: Tensor) -> Tensor:
    """The values of one row lie side by side."""
    return value if value.dim() == 0 or value.stride(-1) == 1 else value.contiguous()


def known_values(job: Job, x: Tensor) -> Values:
    """Leaves and what torch computes ahead: parameters, masks, values that no step changes."""
    plan, nodes = job.call.plan, job.call.plan.program.nodes
    fixed = set(fixed_nodes(plan))
    values = leaf_constants(nodes, x, job.call.sizes) if fixed else {}
    for index, mask in job.call.masks.items():
        turned = job.reverse and job.layout.drawn and mask.dim() == 3
        values[index] = reversed_rows(mask, job.lengths) if turned else mask
    for index, node in enumerate(nodes):
        if node.op == "parameter":
            values[index] = job.weights.vector(node["family"], node["block"])
        elif node.op == "input":
            values[index] = x
    if fixed:
        Runner(nodes, only(plan.before, fixed), job.weights)(values)
    return {i: inner_contiguous(v) for i, v in values.items()}


def backward(
    job: Job, tensors: Sequence[Tensor], kept: Values, cotangents: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Gradients in the order of ``tensors``."""
    call, plan = job.call, job.call.plan
    program, back = plan.program, plan.back
    x, states, weights, _ = call.unpack(tensors)
    (T, N), sizes, count = job.shape, job.layout.table(), len(states)
    for index, value in kept.items():
        if value.dim() == 3:
            job.step(("kept", index), value)
        elif value.dim():
            job.fixed(("kept", index), value)
    carries = [s.new_empty(s.shape) for s in states]
    held = []
    for state, given, first, last in zip(
        program.states, cotangents[1 : 1 + count], states, carries, strict=True
    ):
        held.append(first.new_zeros(first.shape) if given is None else given.contiguous())
        job.state(("carry", state.name), held[-1], last)
    offered = {OUTPUT: cotangents[0], **dict(zip(call.names, cotangents[1 + count :], strict=True))}
    values: Values = {}
    if any(phase.values for phase in back.after):
        values = leaf_constants(back.backward.nodes, x, call.sizes)
    for index, node in enumerate(back.backward.nodes):
        if node.op == "kept" and node["node"] in kept:
            found = kept[node["node"]]
            truth = program.nodes[node["node"]].op in COMPARISONS  # the loop keeps it as 0 and 1
            values[index] = found != 0 if truth else found
        elif node.op == "cotangent" and node.attrs[0][0] != "state":
            given = offered[cotangent_name(node)]
            width = sizes[back.backward.widths[index]]
            none = x.new_zeros(width).expand(T, N, width)
            recorded = cotangent_name(node) != OUTPUT  # it may be an error term as it is
            if given is not None and call.active is not None and recorded:
                given = torch.where(call.active, given, 0)
            values[index] = none if given is None else inner_contiguous(given)
            job.step(("cotangent", cotangent_name(node)), values[index])
    widths = back.backward.widths
    joined: dict[int, Joined] = {}
    for key, name in joined_deltas(plan).items():
        each = [sizes[widths[i]] for i in key]
        (room,) = job.lease.room((T, N, sum(each)))
        job.step(name, room)
        start = 0
        for k, (index, width) in enumerate(zip(key, each, strict=True)):
            joined[index] = Joined(room, start, start + width)
            values[index] = room[..., start : start + width]
            job.step(("delta", key, k), values[index])
            start += width
    missing = [i for i in back.carried if i not in values]
    rooms = job.lease.room(*((T, N, sizes[widths[i]]) for i in missing))
    for index, room in zip(missing, rooms, strict=True):
        values[index] = room
        job.step(("carried", index), room)
    early = {i for p in back.before for i in p.values} & read_outside(back)
    if early:
        Runner(back.backward.nodes, back.before, weights)(values)
    job.run(backward=True)
    after = AfterLoop(weights, sizes, call.active, joined)
    after.run(back, values)
    families = after.gradients(back, values, kept)
    gradient = _own(values, back.backward.input, back.carried, x)
    errors = [back.backward.errors[name] for name in call.probed]
    probes = [_own(values, e, back.carried, None) for e in errors]
    return [gradient, *carries, *(families[name] for name in program.families), *probes]


def _own(
    values: Values, node: int | None, leased: Sequence[int], like: Tensor | None
) -> Tensor | None:
    """A value that outlives the call: leased memory is copied."""
    if node is None:
        return None
    value = values[node] if like is None else values[node].expand_as(like)
    return value.clone() if node in leased else value


class CompiledLoop(torch.autograd.Function):
    """The compiled loop forward and back; second derivatives by the reference engine."""

    @staticmethod
    def forward(ctx: Any, call: Call, options: Options, *tensors: Tensor) -> Any:
        job = start(call, tensors, *options, kept=True)
        found, kept = forward(job, tensors)
        wanted = {i: kept[i] for i in call.plan.back.kept}
        ctx.call, ctx.options, ctx.nodes, ctx.count = call, options, list(wanted), len(tensors)
        ctx.lease = job.lease
        ctx.save_for_backward(*tensors, *wanted.values())
        ctx.set_materialize_grads(False)
        return found

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        tensors, kept = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        needs = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            lengths, reverse, _ = ctx.options
            inner = partial(through_torch, ctx.call)
            run = partial(in_time, inner, ctx.call, lengths, reverse)
            return (None, None, *through_autograd(run, tensors, cotangents, needs))
        job = start(ctx.call, tensors, *ctx.options, kept=True)
        values = dict(zip(ctx.nodes, kept, strict=True))
        found = backward(job, tensors, values, cotangents)
        return (None, None, *(g if need else None for g, need in zip(found, needs, strict=True)))


def returned(
    call: Call, lengths: Tensor | None, reverse: bool, drawn: bool, tensors: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Output, final states and records, (T, N, …) in the order of time."""
    options = (lengths, reverse, drawn)
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return CompiledLoop.apply(call, options, *tensors)  # type: ignore[return-value]
    found, _ = forward(start(call, tensors, *options, kept=False), tensors)
    return found
