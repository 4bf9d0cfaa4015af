"""Stream: a recurrent layer one step at a time, NumPy in and out, its state kept inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from headgate.engines.stepping import Layer, States, Stepper, stepper
from headgate.nn.layout import Batch

if TYPE_CHECKING:
    from headgate.nn.stack import Stack

Arrays = tuple[np.ndarray | tuple[np.ndarray, ...], ...]
DTYPES = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}


class Stream:
    """One step at a time of a module in evaluation mode (masks at their expectation).

    Made by ``module.stream(batch_size)``. N rows run side by side, each with its own state. The
    weights are those of the moment the stream was made, or of the last ``refresh()``.

    Raises ValueError for a bidirectional module and a ``batch_size`` below 1, TypeError where the
    parameters are neither float32 nor float64.
    """

    def __init__(self, module: Stack, batch_size: int = 1) -> None:
        what = f"{type(module).__name__}.stream"
        if module.bidirectional:
            raise ValueError(
                f"{what}: a bidirectional module reads each sequence from its end too, which a "
                "stream does not know; make the module with bidirectional=False"
            )
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"{what}: batch_size must be a positive integer, got {batch_size!r}")
        self._module, self.batch_size = module, batch_size
        self._stepper: Stepper
        self._step: Any
        self._take(None)

    def step(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The top layer's output (N, H) for the next input x (N, I).

        Arrays are C-contiguous and of the module's dtype. Nothing is allocated but the returned
        array, and not even that where ``out`` is given, which is filled and returned; it may be x.

        Raises TypeError or ValueError where x or out is another kind of array.
        """
        y = self._step(x, out)
        if y is None:
            raise self._refusal(x, out)
        return y

    @property
    def state(self) -> Arrays:
        """The states after the last step, in the form of the module's final states.

        A tuple with an array (layers, N, width) for each state of the cell; where the layers'
        widths differ, each is a tuple of arrays (N, width). What is read is a copy. Set it to go
        on from elsewhere: from an earlier ``state``, or from ``tensor.numpy()`` of what the module
        returned for the past.
        """
        joined = self._module._joined(self._stepper.read(), self._batch())
        return tuple(
            tuple(_array(part) for part in value) if isinstance(value, tuple) else _array(value)
            for value in joined
        )

    @state.setter
    def state(self, given: Arrays) -> None:
        if not isinstance(given, (tuple, list)):
            given = (given,)
        tensors = tuple(
            tuple(map(self._tensor, value))
            if isinstance(value, (tuple, list))
            else self._tensor(value)
            for value in given
        )
        self._stepper.write(self._module._initial(tensors, self._batch()))

    def reset(self, rows: Any = None) -> None:
        """Back to the initial states, all rows or the given ones.

        rows: what NumPy takes for an axis of length N: a number, a list, a slice, a mask.

        Raises IndexError where a row does not exist.
        """
        if rows is None:
            self._stepper.write(self._initial)
            return
        chosen = np.zeros(self.batch_size, dtype=bool)
        try:
            chosen[rows] = True
        except IndexError as error:
            raise IndexError(
                f"Stream.reset: rows must be among the {self.batch_size} of this stream, got "
                f"{rows!r}: {error}"
            ) from None
        mask = torch.from_numpy(chosen).unsqueeze(-1)
        now = self._stepper.read()
        self._stepper.write(
            [
                tuple(torch.where(mask.to(a.device), a, b) for a, b in zip(first, old, strict=True))
                for first, old in zip(self._initial, now, strict=True)
            ]
        )

    def refresh(self) -> None:
        """Take the module's weights and learned initial states as they are now; keep the state."""
        self._take(self._stepper.read())

    @torch.no_grad()
    def _take(self, now: States | None) -> None:
        """The module's weights, and the states ``now``, or the initial ones."""
        module = self._module
        like = next(module.parameters()).detach()
        if like.dtype not in DTYPES:
            raise TypeError(
                f"{type(module).__name__}.stream: expected parameters in float32 or float64, got "
                f"{like.dtype}; convert the module, as in module.float()"
            )
        self._like, self._dtype = like, DTYPES[like.dtype]
        self.input_size: int = module.input_size
        self.output_size: int = module._output_size(module.num_layers - 1)
        self._initial: States = [
            tuple(state.detach().clone() for state in layer)
            for layer in module._initial(None, self._batch())
        ]
        layers = [
            Layer(module._families(k, 0), module.layer_sizes[k], k in module._residual_layers)
            for k in range(module.num_layers)
        ]
        start = [tuple(s.to(like) for s in layer) for layer in now or self._initial]
        self._stepper = stepper(module.program, layers, start)
        self._step = self._stepper.step

    def _batch(self) -> Batch:
        x = self._like.new_empty((1, self.batch_size, self._module.input_size))
        return Batch(x, None, False, False, None)

    def _tensor(self, value: Any) -> Tensor:
        if not isinstance(value, np.ndarray) or value.dtype != self._dtype:
            came = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
            raise TypeError(
                f"Stream.state: expected NumPy arrays of {self._dtype}, got {came}; convert it"
            )
        return torch.tensor(value, device=self._like.device)

    def _refusal(self, x: Any, out: Any) -> Exception:
        """What is wrong with the arguments of ``step``, one of which does not fit."""
        for name, array, width in (("x", x, self.input_size), ("out", out, self.output_size)):
            shape = (self.batch_size, width)
            wanted = (
                f"Stream.step: expected {name} as a C-contiguous NumPy array {shape} of "
                f"{self._dtype}"
            )
            if name == "out" and array is None:
                continue
            if not isinstance(array, np.ndarray):
                return TypeError(
                    f"{wanted}, got {type(array).__name__}; numpy.ascontiguousarray makes one"
                )
            if array.dtype != self._dtype:
                return TypeError(
                    f"{wanted}, got {array.dtype}; convert it, as in {name}.astype('{self._dtype}')"
                )
            if array.shape != shape:
                return ValueError(
                    f"{wanted}, got shape {array.shape}; reshape it to (N, "
                    f"{'I' if name == 'x' else 'H'}), or make a stream for another batch_size"
                )
            if not array.flags.c_contiguous:
                return ValueError(
                    f"{wanted}, got one that is not contiguous; numpy.ascontiguousarray makes one"
                )
        return ValueError("Stream.step: expected out to be writable, got one that is read-only")


def _array(value: Tensor) -> np.ndarray:
    return np.array(value.cpu().numpy())
