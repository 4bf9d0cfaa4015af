"""Which engine runs a layer, why, and the running of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from headgate import native
from headgate.engines import aten, cpu
from headgate.engines.evaluate import infer_sizes
from headgate.engines.pieces import InPieces, Pieces, check_checkpoint
from headgate.engines.random import MaskKey
from headgate.engines.reference import Call, Recurrence, in_time, through_torch
from headgate.program.program import Program
from headgate.program.schedule import schedule

ENGINES = ("reference", "aten", "cpu")
NOTHING = nullcontext()


@dataclass(frozen=True)
class Choice:
    """An engine's name and why it was taken."""

    engine: str
    reason: str


@dataclass(frozen=True)
class Result:
    """What a layer returns: output (T, N, H), a final state (N, width) each, and the records."""

    output: Tensor
    states: tuple[Tensor, ...]
    records: dict[str, Tensor]


def choose(
    program: Program,
    *,
    like: Tensor | None = None,
    names: Sequence[str] = (),
    engine: str | None = None,
    one_step: bool = False,
) -> Choice:
    """Which engine runs this Program.

    ``like`` is its input (T, N, I); where None, a few rows in float32 on the CPU.
    ``engine``, or the environment variable HEADGATE_ENGINE, asks for one by name.
    ``one_step`` says that a cell is called, not a layer.

    Raises ValueError for an engine that does not exist or cannot run this Program.
    """
    asked = engine or native.environment("HEADGATE_ENGINE") or None
    if asked is not None and asked not in ENGINES:
        raise ValueError(f"choosing an engine: expected one of {ENGINES}, got '{asked}'")
    if asked == "reference":
        return Choice("reference", "asked for by name")
    obstacles = {"cpu": _not_for_cpu(program, names, like), "aten": _not_for_aten(program, names)}
    if asked in obstacles and obstacles[asked] is None:
        return Choice(asked, "asked for by name")
    if engine in obstacles:
        raise ValueError(
            f"choosing an engine: {engine} cannot run cell '{program.name}': {obstacles[engine]}"
        )
    if one_step and obstacles["aten"] is None:
        return Choice("aten", "torch's function is the shortest way to do one step")
    if obstacles["cpu"] is None:
        return Choice("cpu", "the compiled engine runs every cell on the CPU")
    if obstacles["aten"] is None:
        return Choice("aten", f"torch's own fused function, since {obstacles['cpu']}")
    return Choice("reference", f"{obstacles['cpu']}, and {obstacles['aten']}")


def _not_for_cpu(program: Program, names: Sequence[str], like: Tensor | None) -> str | None:
    if not native.available:
        return f"the compiled engine is {native.reason}"
    if like is not None and like.device.type != "cpu":
        return f"the compiled engine runs on the CPU, not on {like.device}"
    if like is not None and like.dtype not in (torch.float32, torch.float64):
        return f"the compiled engine knows float32 and float64, not {like.dtype}"
    if inside_functorch():
        return "torch.func or forward mode differentiates through torch operations"
    if not cpu.supported(program, tuple(names)):
        return "some state of this cell passes nothing back through time"
    return None


def _not_for_aten(program: Program, names: Sequence[str]) -> str | None:
    if aten.fused(program) is None:
        return "torch has no fused function for these equations"
    if names:
        return "values inside the step are recorded"
    if inside_functorch():
        return "torch.func or forward mode differentiates through torch operations"
    return None


def inside_functorch() -> bool:
    if torch._C._functorch.peek_interpreter_stack() is not None:  # pyright: ignore
        return True
    return torch.autograd.forward_ad._current_level >= 0


@dataclass(frozen=True)
class Direction:
    """One layer in one direction, beside others that read the same input.

    Args:
        families: a contiguous tensor for each parameter family.
        states: initial states, (N, width) each.
        reverse: start at each row's own last step; outputs stay at their input's step.
        mask_key: what dropout and zoneout masks are drawn from; None outside training, where each
            mask is its expectation.
        probes: for some of the recorded names a zero tensor (T, N, width) that is added to the
            value, so that its gradient is the value's error term.
    """

    families: Mapping[str, Tensor]
    states: Sequence[Tensor]
    reverse: bool = False
    mask_key: MaskKey | None = None
    probes: Mapping[str, Tensor] | None = None


def run(
    program: Program,
    families: Mapping[str, Tensor],
    x: Tensor,
    states: Sequence[Tensor],
    *,
    lengths: Tensor | None = None,
    reverse: bool = False,
    mask_key: MaskKey | None = None,
    names: Sequence[str] = (),
    probes: Mapping[str, Tensor] | None = None,
    engine: str | None = None,
    derivative: str = "program",
    checkpoint: int | None = None,
) -> Result:
    """Run one layer in one direction: see ``run_directions`` and ``Direction``."""
    direction = Direction(families, states, reverse, mask_key, probes)
    (result,) = run_directions(
        program, [direction], x, lengths=lengths, names=names, engine=engine,
        derivative=derivative, checkpoint=checkpoint,
    )  # fmt: skip
    return result


def run_directions(
    program: Program,
    directions: Sequence[Direction],
    x: Tensor,
    *,
    lengths: Tensor | None = None,
    names: Sequence[str] = (),
    engine: str | None = None,
    derivative: str = "program",
    checkpoint: int | None = None,
) -> list[Result]:
    """Run the directions of one layer.

    Args:
        x: input (T, N, I); past a row's length it may hold anything.
        lengths: valid steps of each row, int64 (N,); None means all T.
        names: values to record, (T, N, width) each, zero past a row's end.
        engine: ask for an engine by name.
        derivative: how the reference engine differentiates: by our backward "program", or by
            torch's "autograd", which any order of derivative uses anyway.
        checkpoint: where gradients are wanted, keep the states of every so many steps only, and
            run what lies between them again on the way back (``engines/pieces.py``). Within
            torch.func and forward mode everything is kept.

    Raises ValueError where a shape, a dtype, the engine's name or checkpoint does not fit.
    """
    check_checkpoint(f"running cell '{program.name}'", checkpoint)
    like = x if lengths is None else x[:, :0]  # of a ragged batch no row is full
    choice = choose(program, like=like, names=names, engine=engine)
    probed = any(bool(p.any()) for d in directions for p in (d.probes or {}).values())
    if choice.engine == "cpu" and probed:
        choice = Choice("reference", "a probe that is not zero changes the values")
    names = tuple(names)
    jobs = [job_of(program, d, x, lengths, names) for d in directions]
    if x.shape[0] == 0 or x.shape[1] == 0:
        return [
            _nothing_to_do(program, x, d.states, names, job.call.sizes)
            for job, d in zip(jobs, directions, strict=True)
        ]
    with _without_autocast(x):
        if checkpoint is not None and checkpoint < x.shape[0] and _differentiated(jobs, x):
            found = [_in_pieces(choice.engine, derivative, job, x, checkpoint) for job in jobs]
        elif choice.engine == "cpu":
            found = cpu.returned(jobs, x)
        else:
            found = [
                _through(choice.engine, derivative, job.call, job.options, [x, *job.tensors])
                for job in jobs
            ]
    return [_result(program, names, tensors) for tensors in found]


def run_chain(
    program: Program, layers: Sequence[Direction], x: Tensor, *, lengths: Tensor | None = None
) -> list[Result]:
    """Run layers one on another, where no gradients are wanted: each but the first reads the output
    of the one before. See ``run_directions``.

    On the compiled engine small batches run side by side, one layer a few steps behind the other.
    """
    like = x if lengths is None else x[:, :0]
    seen, results = x, []
    if x.numel() == 0 or choose(program, like=like).engine != "cpu":
        for layer in layers:
            results += run_directions(program, [layer], seen, lengths=lengths)
            seen = results[-1].output
        return results
    jobs = []
    for layer in layers:
        jobs.append(job_of(program, layer, seen, lengths, ()))
        seen = x.new_empty(()).expand(*x.shape[:2], layer.states[0].shape[1])
    return [_result(program, (), tensors) for tensors in cpu.chained(jobs, x)]


def job_of(
    program: Program, d: Direction, x: Tensor, lengths: Tensor | None, names: tuple[str, ...]
) -> cpu.Job:
    call = _call(program, d, x, names)
    return cpu.Job(call, cpu.Options(lengths, d.reverse, d.mask_key), _tensors(program, d))


def _result(program: Program, names: Sequence[str], tensors: Sequence[Tensor]) -> Result:
    count = 1 + len(program.states)
    records = dict(zip(names, tensors[count:], strict=True))
    return Result(tensors[0], tuple(tensors[1:count]), records)


def _without_autocast(x: Tensor) -> Any:
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else NOTHING


def _tensors(program: Program, d: Direction) -> list[Tensor]:
    families = [d.families[name].contiguous() for name in program.families]
    return [*d.states, *families, *(d.probes or {}).values()]


def _differentiated(jobs: Sequence[cpu.Job], x: Tensor) -> bool:
    """Whether a graph for backward() is made."""
    return not inside_functorch() and cpu.differentiated(jobs, x)


def _in_pieces(
    engine: str, derivative: str, job: cpu.Job, x: Tensor, size: int
) -> tuple[Tensor, ...]:
    pieces = Pieces(
        partial(_through, engine, derivative, job.call),
        partial(_through, "reference", "autograd", job.call),
        job.options,
        len(job.call.plan.source.states),
        len(job.call.probed),
        size,
    )
    return InPieces.apply(pieces, x, *job.tensors)  # type: ignore[return-value]


def _through(
    engine: str, derivative: str, call: Call, options: cpu.Options, tensors: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """One direction's output, final states and records; the tensors are x and those of a Job."""
    if engine == "cpu":
        return cpu.returned([cpu.Job(call, options, tensors[1:])], tensors[0])[0]
    call, x = call.on(tensors[0], options.lengths, options.key)
    run_on = partial(_returned, engine, call, options.lengths, derivative)
    return in_time(run_on, call, options.lengths, options.reverse, [x, *tensors[1:]])


_known_calls: dict[Any, Call] = {}
REMEMBERED = 1024
"""Combinations of shapes that were checked."""


def _call(program: Program, d: Direction, x: Tensor, names: tuple[str, ...]) -> Call:
    """What is checked once, and shared by calls whose widths and rows are alike."""
    tensors, probed = (*d.states, *d.families.values()), tuple(d.probes or ())
    key = (
        program,
        x.shape[1:] if x.dim() == 3 else None,
        *[(t.shape, t.dtype == x.dtype, t.device == x.device) for t in tensors],
        *d.families,
        names,
        probed,
    )
    found = _known_calls.get(key)
    if found is None:
        _check(program, d.families, x, d.states)
        families = {name: d.families[name] for name in program.families}
        sizes = infer_sizes(program, x, d.states, families)
        plan = schedule(program, names, bool(probed))
        if len(_known_calls) >= REMEMBERED:
            _known_calls.clear()
        found = _known_calls[key] = Call(plan, sizes, None, {}, names, probed)
    return found


def _returned(
    engine: str, call: Call, lengths: Tensor | None, derivative: str, tensors: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    differentiated = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    if engine == "aten":
        if differentiated:
            return aten.Fused.apply(call, lengths, *tensors)  # type: ignore[return-value]
        return aten.run_flat(call, lengths, tensors)
    if differentiated and derivative == "program" and not inside_functorch():
        return Recurrence.apply(call, *tensors)  # type: ignore[return-value]
    return through_torch(call, tensors)


def _check(
    program: Program, families: Mapping[str, Tensor], x: Tensor, states: Sequence[Tensor]
) -> None:
    where = f"running cell '{program.name}'"
    missing = [name for name in program.families if name not in families]
    if missing:
        raise ValueError(f"{where}: families {missing} have no tensor")
    if x.dim() != 3:
        raise ValueError(f"{where}: the input must be (T, N, I), got shape {tuple(x.shape)}")
    if len(states) != len(program.states):
        raise ValueError(f"{where}: expected {len(program.states)} states, got {len(states)}")
    for tensor in (*states, *families.values()):
        if tensor.dtype != x.dtype or tensor.device != x.device:
            raise ValueError(
                f"{where}: input, states and parameters must share dtype and device; the input is "
                f"{x.dtype} on {x.device}, another is {tensor.dtype} on {tensor.device}"
            )
    for state, tensor in zip(program.states, states, strict=True):
        if tensor.dim() != 2 or tensor.shape[0] != x.shape[1]:
            raise ValueError(
                f"{where}: state {state.name} must be (N, {state.width}) with N = {x.shape[1]}, "
                f"got {tuple(tensor.shape)}"
            )


def _nothing_to_do(
    program: Program,
    x: Tensor,
    states: Sequence[Tensor],
    names: Sequence[str],
    sizes: Mapping[str, int],
) -> Result:
    steps, rows = x.shape[:2]
    records = {n: x.new_zeros(steps, rows, sizes[program.width_of(n)]) for n in names}
    output = x.new_zeros(steps, rows, sizes[program.output_width])
    return Result(output, tuple(state.clone() for state in states), records)
