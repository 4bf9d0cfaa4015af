"""Options that ``RNN``, ``LSTM``, ``GRU`` and their cells take beside torch's arguments.

They mean what they mean in ``Recurrent``. The ones of ``Transformations`` rewrite the equations
(``headgate.program.transform``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from headgate.nn.initialise import Init
from headgate.nn.resolve import resolve_program
from headgate.program import Program
from headgate.program.transform import transform


class Transformations(TypedDict, total=False):
    """Options of the equations."""

    state_activation: str | None
    gate_activation: str | None
    activations: Mapping[str, str] | None
    clip_state: float | Mapping[str, float] | None
    clip_preactivation: float | None
    layer_norm: bool
    recurrent_dropout: float
    variational_dropout: float
    zoneout: float | Mapping[str, float]


class CellOptions(Transformations, total=False):
    """Options of ``RNNCell``, ``LSTMCell`` and ``GRUCell``."""

    init: Init


class Options(CellOptions, total=False):
    """Options of ``RNN``, ``LSTM`` and ``GRU``."""

    residual: bool
    learn_initial_state: bool
    weight_drop: float
    output_mode: str
    checkpoint: int | None


def split_options(
    what: str, cell: str, options: Mapping[str, Any], allowed: type = Options
) -> tuple[Program, dict[str, Any], Init]:
    """The transformed Program, the options of the stack, and the initialisers.

    Raises TypeError for an option that does not exist.
    """
    names = allowed.__annotations__
    unknown = [name for name in options if name not in names]
    if unknown:
        raise TypeError(
            f"{what}: unknown argument {unknown[0]!r}; beside torch's it takes "
            f"{', '.join(sorted(names))}"
        )
    transformations = {k: v for k, v in options.items() if k in Transformations.__annotations__}
    stack = {k: v for k, v in options.items() if k not in transformations and k != "init"}
    program = transform(resolve_program(cell), **transformations)
    return program, stack, options.get("init")
