"""Watching a module: one forward run that keeps what every layer did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from headgate.nn import Record
from headgate.nn.layout import Batch
from headgate.nn.stack import Stack
from headgate.program import Program

from .observation import Layer, Observation, Place

Loss = Callable[[Any], Tensor]


def observe(
    module: nn.Module,
    input: Any,
    *,
    lengths: Any = None,
    names: Sequence[str] = (),
    loss: Loss | None = None,
    gradients: bool = False,
    **arguments: Any,
) -> Observation:
    """Everything inside a module's recurrent layers while it runs once.

    module: any torch module with exactly one stack of recurrent layers in it (``Recurrent``,
        ``LSTM``, ``GRU`` or ``RNN`` of Headgate), which it calls once.
    input, arguments: what the module is called with.
    lengths: valid steps of each row (N,); they go to the module where its forward takes them, else
        to the layers alone.
    names: values of the equations to keep; none means all.
    gradients: also keep the error terms ∂loss/∂value.
    loss: from what the module returns to a scalar; None: the sum of each row's last output (of all
        outputs, where they have no axis of steps).

    The run is in evaluation mode. Modes, hooks and gradients of the module's parameters are
    afterwards as they were before, also after an error. `inputs` are what the first layer read.

    Raises ValueError where the module has no such layer or several, where it does not call it just
    once, where a name is unknown, and where the loss is no scalar that depends on the layers.
    """
    return watched(module, input, lengths, names, gradients, loss, arguments)[0]


def watched(
    module: nn.Module,
    input: Any,
    lengths: Any,
    names: Sequence[str],
    gradients: bool,
    loss: Loss | None,
    arguments: Mapping[str, Any],
) -> tuple[Observation, Any]:
    """What ``observe`` returns, and what the module returned."""
    watch = _Watch(recurrent_of(module), names, gradients, lengths)
    if lengths is not None and "lengths" in signature(module.forward).parameters:
        arguments = {**arguments, "lengths": lengths}
    with _watching(module, watch), torch.set_grad_enabled(gradients):
        result = module(input, **arguments)
        if watch.calls != 1:
            raise ValueError(
                "inspect: expected a module that calls its recurrent layers once, got "
                f"{watch.calls} calls; inspect those layers themselves"
            )
        if gradients:
            watch.go_back(loss(result) if loss else last_outputs(result, watch.batch))
    return watch.observation(), result


def recurrent_of(module: nn.Module) -> Stack:
    """The only stack of recurrent layers in a module. Raises ValueError where it is not one."""
    found = {name: each for name, each in module.named_modules() if isinstance(each, Stack)}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise ValueError(
            f"inspect: expected one recurrent layer stack in {type(module).__name__}, got "
            f"{len(found)}: {', '.join(found)}; inspect one of them at a time"
        )
    torchs = [type(each).__name__ for each in module.modules() if isinstance(each, nn.RNNBase)]
    hint = (
        f"put headgate.{torchs[0]} in place of torch.nn.{torchs[0]}, which takes the same weights"
        if torchs
        else "its layers must be headgate's Recurrent, LSTM, GRU or RNN"
    )
    raise ValueError(
        f"inspect: expected a recurrent layer in {type(module).__name__}, got none; {hint}"
    )


def last_outputs(result: Any, batch: Batch) -> Tensor:
    """The sum of each row's output at its last step, of what a module returned."""
    output, first = result, batch.batch_first and not batch.unbatched
    while isinstance(output, tuple | list) and not isinstance(output, PackedSequence):
        output = output[0]
    if isinstance(output, PackedSequence):
        output, first = pad_packed_sequence(output)[0], False
    if not isinstance(output, Tensor):
        raise ValueError(
            "inspect: expected a loss for a module that returns no tensor first, got "
            f"{type(output).__name__}; give loss=, a function of what the module returns"
        )
    if batch.unbatched and output.dim() == 2:
        output = output.unsqueeze(1)
    if first and output.dim() > 2:
        output = output.transpose(0, 1)
    steps, rows = batch.x.shape[:2]
    if output.dim() < 3 or output.shape[:2] != (steps, rows):
        return output.sum()
    lengths = _lengths(batch)
    read = lengths > 0
    return output[lengths[read] - 1, torch.arange(rows, device=output.device)[read]].sum()


@contextmanager
def _watching(module: nn.Module, watch: _Watch) -> Iterator[None]:
    modes = [(each, each.training) for each in module.modules()]
    hook = watch.recurrent.register_forward_pre_hook(watch.enter, with_kwargs=True)
    module.eval()
    try:
        yield
    finally:
        hook.remove()
        for each, training in modes:
            each.training = training


class _Watch(Record):
    """A record that also keeps what each layer reads, and all states whether asked for or not."""

    def __init__(
        self, recurrent: Stack, names: Sequence[str], gradients: bool, lengths: Any
    ) -> None:
        super().__init__(*names, gradients=gradients)
        self.recurrent, self.lengths, self.calls = recurrent, lengths, 0
        self.read: dict[int, Tensor] = {}
        self.zeros: list[Tensor] = []
        self.batch: Batch
        self.hx: Any = None

    def enter(self, _: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        """Before the layers run: see what they are given, and have this record filled."""
        if given.get("record") is not None:
            raise ValueError(
                "inspect: expected a module that leaves record= to this function, but it passes a "
                "Record of its own to its recurrent layers; inspect those layers themselves"
            )
        input = args[0] if args else given.get("input")
        if self.lengths is not None and given.get("lengths") is None:
            given = {**given, "lengths": self.lengths}
        self.batch = self.recurrent._enter(input, given.get("lengths"))  # type: ignore[arg-type]
        self.hx = args[1] if len(args) > 1 else given.get("hx")
        self.calls += 1
        return args, {**given, "record": self}

    def start(self, program: Program, layout: Any) -> tuple[str, ...]:
        return super().start(program, lambda value: value)

    def resolve(self, program: Program) -> tuple[str, ...]:
        self.shown = super().resolve(program)
        return tuple(dict.fromkeys((*self.shown, *(state.name for state in program.states))))

    def probes(
        self, program: Program, sizes: Mapping[str, int], x: Tensor, layer: int, direction: int
    ) -> dict[str, Tensor] | None:
        self.read[layer] = x.detach()
        found = super().probes(program, sizes, x, layer, direction)
        self.zeros += [found[name] for name in self.shown] if found else []
        return found

    def go_back(self, loss: Any) -> None:
        """Error terms of the values, and gradients of nothing else."""
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            came = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(
                f"inspect: expected a loss that is one number, got {came}; take a sum or a mean"
            )
        if loss.requires_grad:
            loss.backward(inputs=self.zeros)
        if all(zero.grad is None for zero in self.zeros):
            raise ValueError(
                "inspect: expected a loss that depends on the recurrent layers' output, got one "
                "that does not; compute it from what the module returns"
            )

    def observation(self) -> Observation:
        lengths = _lengths(self.batch)
        inside = (torch.arange(self.batch.x.shape[0]) < lengths.cpu()[:, None]).numpy()[..., None]
        layers = {place: self._layer(place, inside) for place in self.recurrent._places()}
        inputs = next(iter(layers.values())).input
        width = inputs.shape[-1]
        return Observation(
            layers=layers,
            lengths=lengths.cpu().numpy(),
            inputs=inputs,
            input_names=("x",) if width == 1 else tuple(f"x{k}" for k in range(width)),
            time=[np.arange(length) for length in lengths.tolist()],
            ids=("",) * len(lengths),
        )

    def _layer(self, place: Place, inside: np.ndarray) -> Layer:
        recurrent, program = self.recurrent, self.recurrent.program
        states = [state.name for state in program.states]
        starts = recurrent._initial(self.hx, self.batch)[recurrent._places().index(place)]
        kept = {name: _rows_first(self.at(name, *place)) for name in self.names}
        gradients = None
        if self.gradients:
            gradients = {name: _rows_first(self.gradient_at(name, *place)) for name in self.shown}
        return Layer(
            program=program,
            sizes=recurrent.layer_sizes[place[0]],
            values={name: kept[name] for name in self.shown},
            gradients=gradients,
            weights={k: _array(v) for k, v in recurrent._families(*place).items()},
            input=np.where(inside, _rows_first(self.read[place[0]]), 0),
            initial={name: _array(start) for name, start in zip(states, starts, strict=True)},
            states={name: kept[name] for name in states},
        )


def _lengths(batch: Batch) -> Tensor:
    steps, rows = batch.x.shape[:2]
    if batch.lengths is not None:
        return batch.lengths
    return torch.full((rows,), steps, device=batch.x.device)


def _rows_first(value: Tensor) -> np.ndarray:
    """(T, N, ·) as (N, T, ·)."""
    return _array(value.transpose(0, 1))


def _array(value: Tensor) -> np.ndarray:
    value = value.detach().cpu()
    half = value.dtype in (torch.float16, torch.bfloat16)
    return (value.float() if half else value).numpy()
