"""States of a stack of layers: what a user passes and gets, and what each direction needs.

Outside, a state is one tensor (layers · directions, N, width), or, where the layers' widths
differ, a tuple of tensors (N, width), one for each layer and direction. Inside, each layer and
direction has a tuple with one tensor (N, width) for each state of the cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from headgate.nn.blocks import suffix
from headgate.nn.layout import Batch
from headgate.program import Program, State

States = tuple[Tensor | tuple[Tensor, ...], ...]
Inner = list[tuple[Tensor, ...]]


def split(
    what: str, program: Program, widths: Sequence[tuple[int, ...]], hx: Any, batch: Batch
) -> Inner:
    """The given states for each layer and direction, checked.

    widths: for each layer and direction, the width of each state. Raises TypeError or ValueError
    that says which state has which shape.
    """
    names = [state.name for state in program.states]
    if isinstance(hx, Tensor):
        hx = (hx,)
    if not isinstance(hx, (tuple, list)) or len(hx) != len(names):
        came = f"{len(hx)}" if isinstance(hx, (tuple, list)) else type(hx).__name__
        raise TypeError(
            f"{what}: expected a tuple of {len(names)} initial state{'s' * (len(names) != 1)} "
            f"({', '.join(names)}), got {came}; pass on the state that an earlier call returned"
        )
    columns = [
        _split_one(what, name, [w[k] for w in widths], given, batch)
        for k, (name, given) in enumerate(zip(names, hx, strict=True))
    ]
    return list(zip(*columns, strict=True))


def _split_one(
    what: str, name: str, widths: Sequence[int], given: Any, batch: Batch
) -> tuple[Tensor, ...]:
    rows = () if batch.unbatched else (batch.rows,)
    if isinstance(given, (tuple, list)):
        parts = tuple(given)
        if len(parts) != len(widths):
            raise ValueError(
                f"{what}: initial state {name} needs {len(widths)} tensors, one for each layer and "
                f"direction, got {len(parts)}"
            )
    elif not isinstance(given, Tensor):
        raise TypeError(
            f"{what}: initial state {name} must be a tensor, got {type(given).__name__}"
        )
    elif len(set(widths)) > 1:
        raise ValueError(
            f"{what}: the layers' states {name} have widths {list(widths)}; give a tuple of "
            f"tensors, one for each layer and direction, got one of shape {tuple(given.shape)}"
        )
    else:
        expected = (len(widths), *rows, widths[0])
        if given.shape != expected:
            raise ValueError(
                f"{what}: expected initial state {name} of shape {expected} (layers x directions, "
                f"{'' if batch.unbatched else 'rows, '}width), got {tuple(given.shape)}"
            )
        parts = given.unbind(0)
    for index, (part, width) in enumerate(zip(parts, widths, strict=True)):
        if part.shape != (*rows, width):
            raise ValueError(
                f"{what}: expected initial state {name}[{index}] of shape {(*rows, width)}, got "
                f"{tuple(part.shape)}"
            )
    return tuple(part.unsqueeze(0) for part in parts) if batch.unbatched else parts


def initial_name(state: str, layer: int, direction: int) -> str:
    """The parameter that holds a learned initial state."""
    return f"initial_{state}{suffix(layer, direction)}"


def learnable(state: State) -> bool:
    """Whether a state's initial value can be learned: an infinite one has no gradient."""
    return math.isfinite(state.initial)
