"""The aten engine: torch's own fused RNN, LSTM and GRU, where a Program is exactly theirs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from headgate.cells import BUILT_IN
from headgate.engines.reference import Call, through_autograd, through_torch
from headgate.program.lower import lower
from headgate.program.program import Program

_VF: Any = torch._VF  # type: ignore[attr-defined]


def _structure(program: Program) -> str:
    """The equations without the names in them, as text."""
    data = program.to_dict()
    families = {name: k for k, name in enumerate(program.families)}
    for _, _, attrs in data["nodes"]:
        if "family" in attrs:
            blocks = program.families[attrs["family"]].block_names
            attrs["block"] = blocks.index(attrs["block"])
            attrs["family"] = families[attrs["family"]]
        elif "name" in attrs:
            attrs["name"] = [state.name for state in program.states].index(attrs["name"])
    states = [state[1:] for state in data["states"]]
    return json.dumps([data["nodes"], data["widths"], states, [f[2] for f in data["families"]]])


_FUSED: dict[str, Callable[..., Any]] = {
    _structure(lower(BUILT_IN[name].program)): function
    for name, function in (
        ("lstm", _VF.lstm),
        ("lstm_projected", _VF.lstm),
        ("gru", _VF.gru),
        ("rnn", _VF.rnn_tanh),
        ("rnn_relu", _VF.rnn_relu),
    )
}


@lru_cache(maxsize=256)
def fused(program: Program) -> Callable[..., Any] | None:
    """Torch's function for these equations, None where it has none."""
    return None if program.has_masks else _FUSED.get(_structure(lower(program)))


def is_lstm(program: Program) -> bool:
    """Whether the equations are the LSTM's without projection."""
    return fused(program) is _VF.lstm and len(program.families) == 3


def run(
    program: Program,
    families: Mapping[str, Tensor],
    x: Tensor,
    states: Sequence[Tensor],
    lengths: Tensor | None,
) -> tuple[Tensor, ...]:
    """Output (T, N, H) and final states by torch's function; x is in the order of the steps."""
    function = fused(program)
    assert function is not None
    weights = _flat_weights(list(families.values()), function)
    train = torch.is_grad_enabled()
    options = (True, 1, 0.0, train, False)
    if lengths is None:
        initial = [s.unsqueeze(0).contiguous() for s in states]
        output, *finals = function(x, _hx(function, initial), weights, *options, False)
        return (output, *(f.squeeze(0) for f in finals))
    return _ragged(function, weights, options, x, states, lengths)


def _hx(function: Any, states: list[Tensor]) -> Any:
    return states if function is _VF.lstm else states[0]


def _flat_weights(families: list[Tensor], function: Any) -> list[Tensor]:
    """Torch's order: two matrices, two biases (one suffices, the other is zero), the projection."""
    w, r, b, *rest = families
    if function is _VF.gru:
        (d,) = rest
        return [w, r, b, torch.cat([d.new_zeros(2 * d.shape[0]), d])]
    return [w, r, b, torch.zeros_like(b), *rest]


def _ragged(
    function: Any,
    weights: list[Tensor],
    options: tuple[Any, ...],
    x: Tensor,
    states: Sequence[Tensor],
    lengths: Tensor,
) -> tuple[Tensor, ...]:
    """Rows without steps stay out of torch's packed batch; the others go in sorted by length."""
    steps, rows = x.shape[0], x.shape[1]
    order = lengths.argsort(descending=True, stable=True)
    order = order[: int((lengths > 0).sum())]
    if order.numel() == 0:
        return (x.new_zeros(steps, rows, states[0].shape[-1]), *states)
    packed = pack_padded_sequence(x[:, order], lengths[order].cpu())
    initial = [s[order].unsqueeze(0) for s in states]
    data, *finals = function(
        packed.data, packed.batch_sizes, _hx(function, initial), weights, *options
    )
    padded, _ = pad_packed_sequence(packed._replace(data=data), total_length=steps)
    output = padded.new_zeros(steps, rows, padded.shape[-1]).index_copy(1, order, padded)
    return (
        output,
        *(s.index_copy(0, order, f.squeeze(0)) for s, f in zip(states, finals, strict=True)),
    )


class Fused(torch.autograd.Function):
    """Torch's function, with second derivatives by way of the reference engine where torch's
    kernels have none."""

    @staticmethod
    def forward(ctx: Any, call: Call, lengths: Tensor | None, *tensors: Tensor) -> Any:
        inner = [t.detach().requires_grad_(t.requires_grad) for t in tensors]
        with torch.enable_grad():
            outputs = run_flat(call, lengths, inner)
        ctx.call, ctx.inner, ctx.outputs = call, inner, outputs
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        return tuple(o.detach() for o in outputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        needs = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            saved = ctx.saved_tensors
            run = partial(through_torch, ctx.call)
            return (None, None, *through_autograd(run, saved, cotangents, needs))
        used = [(o, c) for o, c in zip(ctx.outputs, cotangents, strict=True) if c is not None]
        used = [(o, c) for o, c in used if o.requires_grad]
        wanted = [t for t, need in zip(ctx.inner, needs, strict=True) if need]
        if not used or not wanted:
            return (None, None, *[None] * len(needs))
        found = iter(
            torch.autograd.grad(
                [o for o, _ in used],
                wanted,
                [c for _, c in used],
                retain_graph=True,
                allow_unused=True,
            )
        )
        return (None, None, *[next(found) if need else None for need in needs])


def run_flat(call: Call, lengths: Tensor | None, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    x, states, weights, _ = call.unpack(tensors)
    return run(call.plan.program, weights.families, x, states, lengths)
