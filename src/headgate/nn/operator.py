"""A stack as a function of tensors, and that function as one torch operator.

Modules call ``run_layers`` where torch runs eagerly. Inside ``torch.compile`` and ``torch.export``
they call ``headgate::stack``, which is the same function behind a schema: a graph holds one node
for all layers and directions. Lists of tensors are flat over (layer, direction), in torch's order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from headgate.engines import Direction, Result, run_chain, run_directions
from headgate.engines.random import MaskKey
from headgate.engines.reference import through_autograd
from headgate.nn.initialise import recurrent_families
from headgate.nn.layout import Batch, enter
from headgate.nn.randomness import dropout, weight_drop
from headgate.program import Program

Merge = Callable[[Sequence[Tensor]], Tensor]
Families = dict[str, Tensor]
Probes = Callable[[Tensor, int, int], dict[str, Tensor] | None]

MERGES: dict[str, Merge] = {
    "concat": lambda ys: torch.cat(list(ys), -1),
    "sum": lambda ys: ys[0] + ys[1],
    "mean": lambda ys: (ys[0] + ys[1]) / 2,
    "product": lambda ys: ys[0] * ys[1],
}


class Options(NamedTuple):
    """What a stack does besides its equations. The order is that of the operator's arguments.

    what: opens the error messages. residual: add a layer's input where the widths agree. dropout:
    rate on what each layer but the first receives. dtype: what enters a recurrence is converted to
    it, None: not at all. last: return each direction's own final output. checkpoint: steps between
    the states that are kept for the way back, None: keep every step.
    """

    what: str
    num_layers: int = 1
    num_directions: int = 1
    merge: str = "concat"
    residual: bool = False
    dropout: float = 0.0
    weight_drop: float = 0.0
    dtype: torch.dtype | None = None
    last: bool = False
    checkpoint: int | None = None


def run_layers(
    program: Program,
    options: Options,
    batch: Batch,
    states: Sequence[Sequence[Tensor]],
    families: Sequence[Families],
    seed: int | None,
    *,
    names: Sequence[str] = (),
    probes: Probes | None = None,
    run: Callable[..., list[Result]] = run_directions,
) -> tuple[Tensor, list[Result]]:
    """The output, (T, N, H) or (N, H), and what each layer and direction returns.

    states: initial states, (N, width) each. seed: None where nothing is drawn. names, probes: what
    to record, see ``run_directions``; ``probes`` gets a layer's input, the layer, the direction.
    """
    count = options.num_directions
    x, output, top, results = batch.x, batch.x, [], []

    def direction(place: int) -> Direction:
        layer, d = divmod(place, count)
        key = None if seed is None else MaskKey(seed, layer, d)
        return Direction(
            _entering(program, options, families[place], key),
            _converted(states[place], options),
            d == 1,
            key if program.has_masks else None,
        )

    if run is run_directions and _nothing_between(options, seed, names):
        seen = _converted([x], options)[0]
        layers = [direction(layer) for layer in range(options.num_layers)]
        results = run_chain(program, layers, seen, lengths=batch.lengths)
        top = results[-1]
        return top.states[0] if options.last else top.output, results
    for layer in range(options.num_layers):
        seen = x
        if layer and seed is not None and options.dropout:
            seen = dropout(x, options.dropout, MaskKey(seed, layer, 0))
        seen = _converted([seen], options)[0]
        directions = [direction(layer * count + d) for d in range(count)]
        if probes is not None:
            directions = [
                replace(each, probes=probes(seen, layer, d)) for d, each in enumerate(directions)
            ]
        top = run(
            program, directions, seen,
            lengths=batch.lengths, names=names, checkpoint=options.checkpoint,
        )  # fmt: skip
        results += top
        output = _merged(options, [result.output for result in top], x, batch)
        if layer < options.num_layers - 1:
            x = output
    if options.last:
        output = _last(options, [result.states[0] for result in top], x, batch)
    return output, results


def _nothing_between(options: Options, seed: int | None, names: Sequence[str]) -> bool:
    """Whether layers without gradients only hand their outputs on, one to the next."""
    dropped = seed is not None and options.dropout > 0
    return (
        options.num_layers > 1
        and options.num_directions == 1
        and not (options.residual or dropped or names or torch.is_grad_enabled())
    )


def _converted(values: Sequence[Tensor], options: Options) -> Sequence[Tensor]:
    return values if options.dtype is None else [value.to(options.dtype) for value in values]


def _entering(
    program: Program, options: Options, families: Families, key: MaskKey | None
) -> Families:
    """One layer's and direction's families after weight drop."""
    if key is not None and options.weight_drop:
        rate = options.weight_drop
        families = families | {f: weight_drop(families[f], rate, key, f) for f in _drops(program)}
    if options.dtype is None:
        return families
    return dict(zip(families, _converted(list(families.values()), options), strict=True))


@lru_cache(maxsize=256)
def _drops(program: Program) -> tuple[str, ...]:
    return recurrent_families(program)


def _merged(options: Options, ys: Sequence[Tensor], x: Tensor, batch: Batch) -> Tensor:
    y = ys[0] if len(ys) == 1 else MERGES[options.merge](ys)
    return y + _inside(x, batch) if options.residual and x.shape[-1] == y.shape[-1] else y


def _last(options: Options, top: Sequence[Tensor], x: Tensor, batch: Batch) -> Tensor:
    """Each direction's own final output (N, H), merged; x (T, N, ·) enters the top layer."""
    y = top[0] if len(top) == 1 else MERGES[options.merge](top)
    if not options.residual or x.shape[-1] != y.shape[-1] or x.shape[0] == 0:
        return y
    x = _inside(x, batch)
    if batch.lengths is None:
        ends = x[-1]
    else:
        index = (batch.lengths - 1).clamp_min(0)
        ends = x[index, torch.arange(batch.rows, device=x.device)]
    if options.num_directions == 2:
        width = x.shape[-1] // 2
        ends = torch.cat([ends[:, :width], x[0][:, width:]], -1)
    return y + ends


def _inside(x: Tensor, batch: Batch) -> Tensor:
    """x with zeros past each row's end, whatever the padding holds."""
    valid = batch.valid()
    return x if valid is None else torch.where(valid, x, 0.0)


def call_operator(
    equations: str,
    options: Options,
    x: Tensor,
    states: Sequence[Sequence[Tensor]],
    families: Sequence[Families],
    lengths: Any,
    *,
    draws: bool,
) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """``run_layers`` as one node of a graph: the output, and the final states of each place.

    equations: the Program's canonical JSON. lengths: as a user gives them; the operator checks
    them, since a graph knows no values. draws: draw a seed, anew in every call of the graph.
    """
    if lengths is not None and not isinstance(lengths, Tensor):
        lengths = torch.as_tensor(lengths)
    found = torch.ops.headgate.stack(
        x,
        [state for place in states for state in place],
        [family for place in families for family in place.values()],
        lengths,
        torch.randint(2**63 - 1, ()) if draws else None,
        equations,
        *options,
    )
    count = len(states[0])
    finals = [tuple(found[k : k + count]) for k in range(1, len(found), count)]
    return found[0], finals


_INPUTS = "Tensor x, Tensor[] states, Tensor[] families, Tensor? lengths, Tensor? seed"
_OPTIONS = (
    "str equations, str what, int num_layers, int num_directions, str merge, bool residual, "
    "float dropout, float weight_drop, ScalarType? dtype, bool last, "
    "int? checkpoint"
)


@torch.library.custom_op(
    "headgate::stack", mutates_args=(), schema=f"({_INPUTS}, {_OPTIONS}) -> Tensor[]"
)
def _stack(
    x: Tensor,
    states: Sequence[Tensor],
    families: Sequence[Tensor],
    lengths: Tensor | None,
    seed: Tensor | None,
    *options: Any,
) -> list[Tensor]:
    """The output, then the final states of each layer and direction."""
    _refuse_forward_mode()
    tensors = [x, *states, *families]
    with torch.no_grad():
        return _owned(_returned(tensors, lengths, seed, options), tensors)


def _returned(
    tensors: Sequence[Tensor],
    lengths: Tensor | None,
    seed: Tensor | None,
    options: Sequence[Any],
    run: Callable[..., list[Result]] = run_directions,
) -> tuple[Tensor, ...]:
    """The run that the operator's arguments describe; ``tensors`` are x, states and families."""
    program, how = _program(options[0]), Options(*options[1:])
    places = how.num_layers * how.num_directions
    end = 1 + places * len(program.states)
    states = _cut(tensors[1:end], places)
    families = [
        dict(zip(program.families, place, strict=True)) for place in _cut(tensors[end:], places)
    ]
    batch = enter(how.what, tensors[0], lengths, batch_first=False)
    drawn = None if seed is None else int(seed)
    output, results = run_layers(program, how, batch, states, families, drawn, run=run)
    return (output, *(state for result in results for state in result.states))


def _cut(flat: Sequence[Tensor], places: int) -> list[Sequence[Tensor]]:
    each = len(flat) // places
    return [flat[k * each : (k + 1) * each] for k in range(places)]


@lru_cache(maxsize=256)
def _program(equations: str) -> Program:
    return Program.from_json(equations)


def _owned(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Outputs, contiguous, none of which shares memory with an input or with another."""
    used = {t.untyped_storage().data_ptr() for t in inputs}
    owned = []
    for output in outputs:
        own = output.contiguous()
        if own.untyped_storage().data_ptr() in used:
            own = output.clone(memory_format=torch.contiguous_format)
        used.add(own.untyped_storage().data_ptr())
        owned.append(own)
    return owned


def _refuse_forward_mode() -> None:
    """An operator has no tangents: without this they would be zero and nobody would know."""
    if torch.autograd.forward_ad._current_level >= 0:
        raise RuntimeError(
            "headgate::stack: expected no forward-mode differentiation of a compiled or exported "
            "model, which knows reverse mode only; call the module that it was made from"
        )


@_stack.register_fake
def _(
    x: Tensor,
    states: Sequence[Tensor],
    families: Sequence[Tensor],
    lengths: Tensor | None,
    seed: Tensor | None,
    *options: Any,
) -> list[Tensor]:
    found = _returned([x, *states, *families], None, None, options, _shapes)
    return [t.new_empty(t.shape) for t in found]


def _shapes(program: Program, directions: Sequence[Direction], x: Tensor, **_: Any) -> list[Result]:
    """What ``run_directions`` returns, without its values."""
    return [
        Result(
            x.new_empty(*x.shape[:2], d.states[0].shape[-1]),
            tuple(state.new_empty(state.shape) for state in d.states),
            {},
        )
        for d in directions
    ]


@torch.library.custom_op(
    "headgate::stack_backward",
    mutates_args=(),
    schema=f"({_INPUTS}, Tensor?[] cotangents, bool[] needs, {_OPTIONS}) -> Tensor[]",
)
def _stack_backward(
    x: Tensor,
    states: Sequence[Tensor],
    families: Sequence[Tensor],
    lengths: Tensor | None,
    seed: Tensor | None,
    cotangents: Sequence[Tensor | None],
    needs: Sequence[bool],
    *options: Any,
) -> list[Tensor]:
    """Gradients by those of x, the states and the families that need one.

    It runs forward once more, with the same masks, since an operator keeps nothing: a training
    step costs one forward run more than an eager one, and between forward and backward it holds
    no more than the operator's inputs.
    """
    given = [x, *states, *families]
    with torch.inference_mode(False):  # inside an operator torch records no gradients but so
        inner = [t.detach().requires_grad_(need) for t, need in zip(given, needs, strict=True)]
        wanted = [t for t in inner if t.requires_grad]
        outputs = _returned(inner, lengths, seed, options)
        used = [
            (output, cotangent)
            for output, cotangent in zip(outputs, cotangents, strict=True)
            if cotangent is not None and output.requires_grad
        ]
        found: Sequence[Tensor | None] = [None] * len(wanted)
        if used and wanted:
            ys, weights = zip(*used, strict=True)
            found = torch.autograd.grad(ys, wanted, weights, allow_unused=True)
    gradients = [
        torch.zeros_like(t) if g is None else g for t, g in zip(wanted, found, strict=True)
    ]
    return _owned(gradients, [*given, *(c for c in cotangents if c is not None)])


@_stack_backward.register_fake
def _(
    x: Tensor,
    states: Sequence[Tensor],
    families: Sequence[Tensor],
    lengths: Tensor | None,
    seed: Tensor | None,
    cotangents: Sequence[Tensor | None],
    needs: Sequence[bool],
    *options: Any,
) -> list[Tensor]:
    given = zip([x, *states, *families], needs, strict=True)
    return [t.new_empty(t.shape) for t, need in given if need]


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    x, states, families, lengths, seed, *options = inputs
    ctx.save_for_backward(lengths, seed, x, *states, *families)
    ctx.states, ctx.options = len(states), options
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, cotangents: Sequence[Tensor | None]) -> tuple[Any, ...]:
    lengths, seed, *tensors = ctx.saved_tensors
    split, options = 1 + ctx.states, ctx.options
    by_x, by_states, by_families = ctx.needs_input_grad[:3]
    needs = [by_x, *by_states, *by_families]
    if torch.is_grad_enabled():  # second derivatives are asked for
        run = partial(_returned, lengths=lengths, seed=seed, options=options)
        found = through_autograd(run, tensors, cotangents, needs)
    else:
        x, states, families = tensors[0], tensors[1:split], tensors[split:]
        gradients = iter(
            torch.ops.headgate.stack_backward(
                x, states, families, lengths, seed, list(cotangents), needs, *options
            )
        )
        found = [next(gradients) if need else None for need in needs]
    return (found[0], found[1:split], found[split:], None, None, *[None] * len(options))


_stack.register_autograd(_differentiate, setup_context=_save)
