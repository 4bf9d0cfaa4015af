"""The reference engine: the Plan run in torch operations, on any device and in any dtype.

It is the truth that every other engine is tested against. Derivatives come in two ways that agree:
``forward`` alone is ordinary torch code, so torch's autograd gives any order of derivative,
``vmap`` and forward mode; ``Recurrence`` runs our own backward Program, one step of
backpropagation through time after another, and falls back to the first way for second derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from headgate.engines.evaluate import Runner, Values, Weights, leaf_constants
from headgate.engines.layout import reversed_rows, valid_steps
from headgate.engines.random import MaskKey, uniform
from headgate.program.program import Node, Program
from headgate.program.schedule import BackwardPlan, Plan

OUTPUT = ""
"""What stands for the output among the names of recorded values."""


@dataclass(frozen=True, eq=False)
class Call:
    """What one call fixes besides its differentiable tensors. Calls alike may share one.

    ``active`` (T, N, 1) is None for a full batch; ``masks`` are the values of the mask nodes;
    ``names`` are recorded, ``probed`` have a probe added to them.
    """

    plan: Plan
    sizes: Mapping[str, int]
    active: Tensor | None
    masks: Values
    names: tuple[str, ...]
    probed: tuple[str, ...]

    def on(self, x: Tensor, lengths: Tensor | None, key: MaskKey | None) -> tuple[Call, Tensor]:
        """The call with its masks and valid steps, and x with zeros past each row's end."""
        active = valid_steps(lengths, x.shape[0])
        if active is not None:
            x = torch.where(active, x, x.new_zeros(()))
        masks = mask_values(self.plan.program, key, x, self.sizes)
        return replace(self, active=active, masks=masks), x

    def unpack(self, tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], Weights, Values]:
        """x, the states, the weights and the probes, out of the flat order of ``Recurrence``."""
        program = self.plan.program
        first, second = 1 + len(program.states), 1 + len(program.states) + len(program.families)
        families = dict(zip(program.families, tensors[first:second], strict=True))
        indices = [program.names[name] for name in self.probed]
        probes = dict(zip(indices, tensors[second:], strict=True))
        return tensors[0], list(tensors[1:first]), Weights(program, families, self.sizes), probes


@dataclass
class Trajectory:
    """All that a forward run leaves: what it returns, and the values it was asked to keep."""

    output: Tensor
    states: list[Tensor]
    records: list[Tensor]
    kept: Values

    def returned(self) -> tuple[Tensor, ...]:
        return (self.output, *self.states, *self.records)


def forward(call: Call, tensors: Sequence[Tensor], keep: Sequence[int] = ()) -> Trajectory:
    """Run the Plan forward over all steps, T ≥ 1. ``keep`` are nodes whose values are wanted."""
    plan, program, nodes = call.plan, call.plan.program, call.plan.program.nodes
    x, states, weights, probes = call.unpack(tensors)
    fixed = leaf_constants(nodes, x, call.sizes) | call.masks
    for index, node in enumerate(nodes):
        if node.op == "input":
            fixed[index] = x
        elif node.op == "parameter":
            fixed[index] = weights.vector(node["family"], node["block"])
    Runner(nodes, plan.before, weights)(fixed, probes)
    ahead = {i: v.unbind(0) for i, v in fixed.items() if i in plan.timed}
    always = {i: v for i, v in fixed.items() if i not in plan.timed}
    slots = {program.nodes[i]["name"]: i for i, n in enumerate(nodes) if n.op == "state"}
    state_nodes = [slots[state.name] for state in program.states]
    wanted = {program.names[name] for name in call.names} | set(keep)
    collected: dict[int, list[Tensor]] = {i: [] for i in wanted if i not in fixed}
    added = {i: p.unbind(0) for i, p in probes.items() if i not in fixed}
    step, outputs = Runner(nodes, plan.loop, weights), []
    for t in range(x.shape[0]):
        values = always | {i: v[t] for i, v in ahead.items()}
        values.update(zip(state_nodes, states, strict=True))
        step(values, {i: p[t] for i, p in added.items()})
        for index, series in collected.items():
            series.append(values[index])
        news = [values[state.next] for state in program.states]
        outputs.append(news[0])
        states = news if call.active is None else [
            torch.where(call.active[t], new, old) for new, old in zip(news, states, strict=True)
        ]  # fmt: skip
    kept = {i: torch.stack(series) for i, series in collected.items()}
    kept |= {i: fixed[i] for i in wanted if i in fixed}
    records = [_past_end_zero(call, kept[program.names[name]]) for name in call.names]
    return Trajectory(_past_end_zero(call, torch.stack(outputs)), states, records, kept)


def _past_end_zero(call: Call, values: Tensor) -> Tensor:
    return values if call.active is None else torch.where(call.active, values, values.new_zeros(()))


class Recurrence(torch.autograd.Function):
    """The forward run with our own backward Program behind it."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        back = call.plan.back
        run = forward(call, tensors, back.kept)
        ctx.call = call
        ctx.count = len(tensors)
        ctx.save_for_backward(*tensors, *(run.kept[i] for i in back.kept))
        ctx.set_materialize_grads(False)
        return tuple(t.view_as(t) for t in run.returned())

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        saved = ctx.saved_tensors
        tensors = saved[: ctx.count]
        needs = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():
            run = partial(through_torch, ctx.call)
            return (None, *through_autograd(run, tensors, cotangents, needs))
        kept = dict(zip(ctx.call.plan.back.kept, saved[ctx.count :], strict=True))
        return (None, *backward(ctx.call, tensors, kept, cotangents, needs))


def in_time(
    run: Callable[[Sequence[Tensor]], tuple[Tensor, ...]],
    call: Call,
    lengths: Tensor | None,
    reverse: bool,
    tensors: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """Run something that knows steps only on tensors that are ordered by time, and back."""
    if not reverse:
        return run(tensors)
    fixed = 1 + len(call.plan.program.states)
    probes = len(tensors) - len(call.probed)
    turned = [
        reversed_rows(t, lengths) if k == 0 or k >= probes else t for k, t in enumerate(tensors)
    ]
    returned = run(turned)
    return tuple(
        reversed_rows(t, lengths) if k == 0 or k >= fixed else t for k, t in enumerate(returned)
    )


def through_torch(call: Call, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What a run returns, by torch operations that autograd and functorch see."""
    return forward(call, tensors).returned()


def through_autograd(
    run: Callable[[Sequence[Tensor]], tuple[Tensor, ...]],
    tensors: Sequence[Tensor],
    cotangents: Sequence[Tensor | None],
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients as differentiable functions themselves: for second derivatives."""
    with torch.enable_grad():
        inputs = [t.view_as(t) for t in tensors]
        outputs = run(inputs)
        return vector_jacobian(outputs, inputs, cotangents, needs)


def vector_jacobian(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    cotangents: Sequence[Tensor | None],
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients by the inputs that need one, themselves differentiable."""
    used = [
        (o, c)
        for o, c in zip(outputs, cotangents, strict=True)
        if c is not None and o.requires_grad
    ]
    wanted = [t for t, need in zip(inputs, needs, strict=True) if need]
    if not used or not wanted:
        return [None] * len(inputs)
    found = iter(
        torch.autograd.grad(
            [o for o, _ in used], wanted, [c for _, c in used], create_graph=True, allow_unused=True
        )
    )
    return [next(found) if need else None for need in needs]


def backward(
    call: Call,
    tensors: Sequence[Tensor],
    kept: Values,
    cotangents: Sequence[Tensor | None],
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """Backpropagation through time by the backward Program. Cotangents in the order of
    ``Trajectory.returned``; gradients in the order of ``tensors``."""
    program, back = call.plan.program, call.plan.back
    x, states, weights, _ = call.unpack(tensors)
    count = len(program.states)
    finals = list(cotangents[1 : 1 + count])
    given = dict(zip(call.names, cotangents[1 + count :], strict=True)) | {OUTPUT: cotangents[0]}
    values = _known_before(call, kept, x, given)
    Runner(back.backward.nodes, back.before, weights)(values)
    carry = [
        torch.zeros_like(s) if final is None else final
        for s, final in zip(states, finals, strict=True)
    ]
    carry = _time_loop(call, values, carry, weights, x)
    Runner(back.backward.nodes, back.after, weights)(values)
    families = parameter_gradients(back, weights, values, kept, x)
    gradient_x = None if back.backward.input is None else values[back.backward.input].expand_as(x)
    errors = [back.backward.errors[name] for name in call.probed]
    probes = [None if e is None else values[e] for e in errors]
    found = [gradient_x, *carry, *(families[name] for name in program.families), *probes]
    return [g if need else None for g, need in zip(found, needs, strict=True)]


def cotangent_name(node: Node) -> str:
    """The named value whose cotangent a leaf is; OUTPUT for the output's."""
    return OUTPUT if node.attrs[0][0] == "output" else node["value"]


def _known_before(
    call: Call, kept: Values, x: Tensor, given: Mapping[str, Tensor | None]
) -> Values:
    nodes = call.plan.back.backward.nodes
    values = leaf_constants(nodes, x, call.sizes)
    for index, node in enumerate(nodes):
        if node.op == "kept" and node["node"] in kept:
            values[index] = kept[node["node"]]
        elif node.op == "cotangent" and node.attrs[0][0] != "state":
            cotangent = given[cotangent_name(node)]
            width = call.sizes[call.plan.back.backward.widths[index]]
            if cotangent is None:
                values[index] = x.new_zeros(()).expand(*x.shape[:2], width)
            else:
                values[index] = _past_end_zero(call, cotangent)
    return values


def _time_loop(
    call: Call,
    values: Values,
    carry: list[Tensor],
    weights: Weights,
    x: Tensor,
) -> list[Tensor]:
    """From the last step to the first; leaves the carried values of all steps in ``values``."""
    back, states = call.plan.back, call.plan.program.states
    nodes, zero = back.backward.nodes, x.new_zeros(())
    leaves = {
        n["state"]: i
        for i, n in enumerate(nodes)
        if n.op == "cotangent" and n.attrs[0][0] == "state"
    }
    read = {a for p in back.loop for i in p.values for a in nodes[i].args}
    read |= {a for p in back.loop for g in p.products for a in g.operands}
    read |= {e for e in back.backward.states if e is not None}
    timed = {i: v.unbind(0) for i, v in values.items() if i in back.timed and i in read}
    always = {i: v for i, v in values.items() if i not in back.timed}
    step = Runner(nodes, back.loop, weights)
    collected: dict[int, list[Tensor]] = {i: [] for i in back.carried}
    for t in range(x.shape[0] - 1, -1, -1):
        incoming = list(carry)
        if call.active is not None:
            incoming = [torch.where(call.active[t], c, zero) for c in incoming]
        here = always | {i: v[t] for i, v in timed.items()}
        here.update({leaves[s.name]: c for s, c in zip(states, incoming, strict=True)})
        step(here)
        for index, series in collected.items():
            series.append(here[index])
        news = [
            torch.zeros_like(c) if e is None else here[e].expand_as(c)
            for e, c in zip(back.backward.states, carry, strict=True)
        ]
        carry = news if call.active is None else [
            torch.where(call.active[t], new, old) for new, old in zip(news, carry, strict=True)
        ]  # fmt: skip
    values.update({i: torch.stack(series[::-1]) for i, series in collected.items()})
    return carry


Terms = dict[tuple[str, int, int | None], list[tuple[str, int]]]


def grouped_terms(back: BackwardPlan, weights: Weights) -> Terms:
    """Terms of the gradients by (family, part, operand): (block, delta) in the blocks' order."""
    grouped: Terms = {}
    for term in back.backward.terms:
        key = (term.family, term.part, term.operand)
        grouped.setdefault(key, []).append((term.block, term.delta))
    for (family, _, _), uses in grouped.items():
        order = list(weights.rows[family])
        uses.sort(key=lambda use: order.index(use[0]))
    return grouped


def parameter_gradients(
    back: BackwardPlan, weights: Weights, values: Values, kept: Values, x: Tensor
) -> dict[str, Tensor | None]:
    """Every family's gradient: products over all steps and rows at once."""
    gradients: dict[str, Tensor | None] = dict.fromkeys(weights.families)
    for (family, part, operand), uses in grouped_terms(back, weights).items():
        rows = weights.rows[family]
        stacked = torch.cat([values[delta].expand(*x.shape[:2], -1) for _, delta in uses], -1)
        if operand is None:
            found = stacked.sum((0, 1))
        else:
            inputs = kept[operand].expand(*x.shape[:2], -1)
            found = stacked.flatten(0, 1).T @ inputs.flatten(0, 1)
        total = gradients[family]
        if total is None:
            total = gradients[family] = torch.zeros_like(weights.families[family])
        sizes = [rows[block].stop - rows[block].start for block, _ in uses]
        for (block, _), piece in zip(uses, found.split(sizes), strict=True):
            target = total[rows[block]]
            if operand is not None:
                target = target[:, weights.columns[family][part]]
            target += piece
    return gradients


def mask_values(
    program: Program, key: MaskKey | None, x: Tensor, sizes: Mapping[str, int]
) -> Values:  # fmt: skip
    masks: Values = {}
    for index, node in enumerate(program.nodes):
        if node.op != "mask":
            continue
        rate, hit, miss = node["rate"], node["hit"], node["miss"]
        if key is None:
            expected = x.new_full((), rate * hit + (1.0 - rate) * miss)
            stepped = node["per"] == "step"
            masks[index] = expected.expand(x.shape[0], 1, 1) if stepped else expected
            continue
        steps = (key.first_step, x.shape[0]) if node["per"] == "step" else None
        draw = uniform(
            key, node["name"], x.shape[1], steps, sizes[program.widths[index]],
            device=x.device, dtype=x.dtype,
        )  # fmt: skip
        masks[index] = torch.where(draw < rate, x.new_full((), hit), x.new_full((), miss))
    return masks
