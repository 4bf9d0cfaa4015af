"""Layers one on another that run one step at a time and keep their states between steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from headgate import native
from headgate.engines import cpu
from headgate.engines.dispatch import choose, run
from headgate.engines.reference import Call
from headgate.program.program import Program
from headgate.program.schedule import schedule

States = list[tuple[Tensor, ...]]
"""For each layer a tensor (N, width) for each state."""


@dataclass(frozen=True)
class Layer:
    """One layer's parameter families, the number of every width, and whether y = f(x) + x."""

    families: Mapping[str, Tensor]
    sizes: Mapping[str, int]
    residual: bool


class Stepper(Protocol):
    """One step of all layers, and their states between steps.

    ``step`` returns None where x (N, I) or out (N, H) is not a C-contiguous array of that shape
    and of the layers' dtype.
    """

    def step(self, x: Any, out: Any) -> Any: ...

    def read(self) -> States: ...

    def write(self, states: States) -> None: ...


def stepper(program: Program, layers: Sequence[Layer], states: States) -> Stepper:
    """Starts from ``states``. A later change of the families' values does not reach it."""
    made = CompiledStepper if choose(program, like=states[0][0]).engine == "cpu" else TorchStepper
    return made(program, layers, states)


class TorchStepper:
    """Every step is a call of T = 1 on the engine that ``choose`` takes."""

    def __init__(self, program: Program, layers: Sequence[Layer], states: States) -> None:
        self._program, self._states = program, states
        rows = states[0][0].shape[0]
        self._x_shape = (rows, layers[0].sizes[program.input_width])
        self._y_shape = (rows, layers[-1].sizes[program.output_width])
        self._dtype = _dtype(states)
        self._layers = [
            Layer({k: v.detach().clone() for k, v in y.families.items()}, y.sizes, y.residual)
            for y in layers
        ]

    @torch.inference_mode()
    def step(self, x: Any, out: Any) -> Any:
        if not self._fits(x, self._x_shape):
            return None
        if out is not None and not (self._fits(out, self._y_shape) and out.flags.writeable):
            return None
        device = self._states[0][0].device
        y, after = torch.tensor(x, device=device).unsqueeze(0), []
        for layer, states in zip(self._layers, self._states, strict=True):
            result = run(self._program, layer.families, y, states)
            y = result.output + y if layer.residual else result.output
            after.append(result.states)
        self._states = after
        found = y[0].cpu().numpy()
        if out is None:
            return np.array(found)
        out[...] = found
        return out

    def _fits(self, array: Any, shape: tuple[int, int]) -> bool:
        return (
            isinstance(array, np.ndarray)
            and array.dtype == self._dtype
            and array.shape == shape
            and array.flags.c_contiguous
        )

    def read(self) -> States:
        return self._states

    def write(self, states: States) -> None:
        self._states = states


class CompiledStepper:
    """All layers' compiled loops, prepared for one step; the states lie inside."""

    def __init__(self, program: Program, layers: Sequence[Layer], states: States) -> None:
        like = states[0][0]
        plan, rows = schedule(program, (), False), like.shape[0]
        prepared = []
        for layer, start in zip(layers, states, strict=True):
            x = like.new_zeros(1, rows, layer.sizes[program.input_width])
            call = Call(plan, layer.sizes, None, {}, (), ())
            families = [layer.families[name].detach().contiguous() for name in program.families]
            prepared.append(cpu.prepared(call, [x, *start, *families], layer.residual))
        self._shapes = [[(tuple(s.shape), s.dtype) for s in start] for start in states]
        self._native = native.extension.Stream(  # type: ignore[union-attr]
            cpu.instruction_set()[0],
            like.dtype == torch.float64,
            rows,
            layers[0].sizes[program.input_width],
            [p.arguments for p in prepared],
            torch.get_num_threads(),
            tuple(p.kept for p in prepared),
            np.empty,
            (rows, layers[-1].sizes[program.output_width]),
            _dtype(states),
        )
        self.step = self._native.step
        self.write(states)

    def read(self) -> States:
        found = [tuple(torch.empty(s, dtype=d) for s, d in layer) for layer in self._shapes]
        for k, layer in enumerate(found):
            for j, state in enumerate(layer):
                self._native.read(k, j, state.data_ptr())
        return found

    def write(self, states: States) -> None:
        for k, layer in enumerate(states):
            for j, state in enumerate(layer):
                values = state.contiguous()
                self._native.write(k, j, values.data_ptr())


def _dtype(states: States) -> np.dtype[Any]:
    return np.dtype(np.float64 if states[0][0].dtype == torch.float64 else np.float32)
