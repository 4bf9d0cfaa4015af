"""Gradient flow: how much of a loss's gradient arrives at the states of earlier steps.

For a loss L at step T, ∂L/∂s(t) is a product of T − t derivatives of one step by the one before. It
vanishes or explodes with T − t where they shrink or stretch, as they do in a plain recurrent
network; a cell state that passes through an open forget gate keeps it (Hochreiter & Schmidhuber
1997). Sources: Y. Bengio, P. Simard & P. Frasconi, "Learning long-term dependencies with gradient
descent is difficult", IEEE Transactions on Neural Networks 5 (1994); R. Pascanu, T. Mikolov &
Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013.

Axes: N rows, T steps, H units; K steps back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import e
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from headgate.nn.layout import check_lengths

from .observation import Observation
from .outputs import output_at, output_of
from .watch import Loss, observe, recurrent_of

Key = tuple[int, int, str]
"""Layer, direction (1: the reverse one) and state."""

SCHEMA = {
    "layer": pl.Int64,
    "direction": pl.Int64,
    "state": pl.String,
    "steps_back": pl.Int64,
    "norm": pl.Float64,
    "relative": pl.Float64,
}


@dataclass(frozen=True, eq=False)
class Flow:
    """Norms of ∂loss/∂state by the number of steps back from the loss.

    norms: for each layer, direction and state (K + 1,), the mean over rows of the norm over units,
    from 0 steps back to K. cell: the name of the cell.
    """

    norms: Mapping[Key, np.ndarray]
    cell: str

    def table(self) -> pl.DataFrame:
        """Columns: layer, direction, state, steps_back, norm, relative (to 0 steps back)."""
        parts = [
            pl.DataFrame(
                {
                    "layer": layer,
                    "direction": direction,
                    "state": state,
                    "steps_back": np.arange(len(norm)),
                    "norm": norm,
                    "relative": _relative(norm),
                },
                schema=SCHEMA,
            )
            for (layer, direction, state), norm in self.norms.items()
        ]
        return pl.concat(parts)

    def carrier(self, layer: int | None = None, direction: int = 0) -> str:
        """The state that carries the gradient back: c in an LSTM, h in a GRU.

        It is the one whose norm is largest, on the mean of its logarithm over all steps back but 0.
        """
        found = {
            state: norm for (*place, state), norm in self.norms.items()
            if place == [self._layer(layer), direction]
        }  # fmt: skip
        if not found:
            raise self._absent(self._layer(layer), direction, "")
        tiny = np.finfo(np.float64).tiny
        return max(found, key=lambda s: np.log(np.maximum(found[s], tiny))[1:].sum())

    def relative(
        self, state: str | None = None, layer: int | None = None, direction: int = 0
    ) -> np.ndarray:
        """Norms (K + 1,) divided by that of 0 steps back.

        state: None is the carrier. layer: None is the last. Raises KeyError for what is not there.
        """
        key = (self._layer(layer), direction, state or self.carrier(layer, direction))
        if key not in self.norms:
            raise self._absent(*key)
        return _relative(self.norms[key])

    def decay(
        self,
        state: str | None = None,
        layer: int | None = None,
        direction: int = 0,
        *,
        share: float = 1 / e,
    ) -> int | None:
        """The steps back from which on the norm stays under a share of that of 0 steps back.

        None where it does not within the data.
        """
        relative = self.relative(state, layer, direction)
        last = int(np.flatnonzero(~(relative < share))[-1])
        return None if last == len(relative) - 1 else last + 1

    def _layer(self, layer: int | None) -> int:
        return max(key[0] for key in self.norms) if layer is None else layer

    def _absent(self, layer: int, direction: int, state: str) -> KeyError:
        known = ", ".join(map(str, self.norms))
        return KeyError(
            f"Flow: nothing of layer {layer}, direction {direction}, state {state!r}; there are "
            f"(layer, direction, state) = {known}"
        )


def gradient_flow(
    module: nn.Module,
    input: Any,
    *,
    loss: Loss | None = None,
    at: int | None = None,
    lengths: Any = None,
    **arguments: Any,
) -> Flow:
    """How ‖∂loss/∂h(t)‖, ‖∂loss/∂c(t)‖, … change with the steps from t to the loss.

        ∂loss/∂s(t): the total derivative by the state s after step t, through all later steps

    module: one stack of Headgate's recurrent layers, or a torch module with exactly one in it.
    input, arguments: what it is called with.
    loss: from what the module returns to a scalar; None: the sum of each row's last output. A
        constant factor of the loss changes no relative norm.
    at: take the sum of the outputs at this step instead: from 0, or back from each row's end.
    lengths: valid steps of each row (N,).

    Steps are counted back in the order in which a direction reads, in each row from the last step
    that the loss depends on. Rows that are too short leave the mean. The reverse direction has read
    a single step at a row's last output: to see it, take an `at` in the middle, or a module whose
    output is each direction's own last. A loss over many steps mixes their flows.

    The run is in evaluation mode; parameters, their gradients and modes stay as they were.

    Raises ValueError where the module has no such stack or several, for a loss that is no scalar or
    does not reach the states, for both `loss` and `at`, and for a step that no row has.
    """
    recurrent = recurrent_of(module)
    if at is not None:
        if loss is not None:
            raise ValueError(
                "gradient_flow: expected loss= or at=, got both; take the step inside your loss"
            )
        loss = _loss_at(at, lengths, recurrent.batch_first)
    names = [state.name for state in recurrent.program.states]
    seen = observe(
        module, input, lengths=lengths, names=names, loss=loss, gradients=True, **arguments
    )
    return Flow(_norms(seen), recurrent.program.name)


def _loss_at(at: int, lengths: Any, batch_first: bool) -> Loss:
    def loss(result: Any) -> Tensor:
        output = output_of(result, batch_first=batch_first)
        first = result[0] if isinstance(result, tuple | list) else result
        output = output[None] if output.dim() == 2 else output
        if output.dim() != 3:
            raise ValueError(
                "gradient_flow: at= needs an output (N, T, ·) of every step, got shape "
                f"{tuple(output.shape)}; leave at out, or give loss="
            )
        rows, steps = output.shape[:2]
        if isinstance(first, PackedSequence):
            valid = _packed_lengths(first)
        elif lengths is not None:
            valid = check_lengths("gradient_flow", lengths, steps=steps, rows=rows)
        else:
            valid = torch.full((rows,), steps)
        if not -int(valid.max()) <= at < int(valid.max()):
            raise ValueError(
                f"gradient_flow: no row has a step {at}; the longest has {int(valid.max())} steps"
            )
        return output_at(output, valid, at).sum()

    return loss


def _packed_lengths(packed: PackedSequence) -> Tensor:
    return torch.nn.utils.rnn.pad_packed_sequence(packed)[1]


def _norms(seen: Observation) -> dict[Key, np.ndarray]:
    found: dict[Key, np.ndarray] = {}
    for (layer, direction), each in seen.layers.items():
        gradients = each.gradients or {}
        norms = {name: np.linalg.norm(value, axis=-1) for name, value in gradients.items()}
        reached = np.sum([norm > 0 for norm in norms.values()], axis=0) > 0
        for name, norm in norms.items():
            mean = _by_steps_back(norm, reached, seen.lengths, reverse=direction == 1)
            if len(mean):
                found[layer, direction, name] = mean
    if not found:
        raise ValueError(
            "gradient_flow: expected a loss that depends on the states, but all derivatives are "
            "zero; look at lengths, and at what the loss takes of the output"
        )
    return found


def _by_steps_back(
    norm: np.ndarray, reached: np.ndarray, lengths: np.ndarray, *, reverse: bool
) -> np.ndarray:
    """Norms (N, T) as the mean (K + 1,) over the rows that are long enough."""
    total, count = np.zeros(norm.shape[1]), np.zeros(norm.shape[1], int)
    for row, length in enumerate(lengths):
        order = slice(None, None, -1) if reverse else slice(None)
        steps = np.flatnonzero(reached[row, :length][order])
        if steps.size:
            back = norm[row, :length][order][: steps[-1] + 1][::-1]
            total[: len(back)] += back
            count[: len(back)] += 1
    longest = int((count > 0).sum())
    return total[:longest] / count[:longest]


def _relative(norm: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return norm / norm[0]
