"""Gated recurrent networks whose cells are their textbook equations."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from headgate.program import Cell, CellError, Program, ProgramError, cell
from headgate.program.functions import (
    clip,
    exp,
    hard_sigmoid,
    identity,
    layer_norm,
    log,
    log_sigmoid,
    maximum,
    minimum,
    relu,
    sigmoid,
    softplus,
    softsign,
    sqrt,
    tanh,
    where,
)
from headgate.program.values import concat

if TYPE_CHECKING:
    from headgate import cells
    from headgate.nn import GRU, LSTM, RNN, GRUCell, LSTMCell, Record, Recurrent, RNNCell
    from headgate.tasks import Forecaster
    from headgate.tasks.inspect import inspect

__version__ = "0.1.0.dev0"

_NEED_TORCH = {
    **dict.fromkeys(("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"), "headgate.nn"),
    **dict.fromkeys(("Recurrent", "Record"), "headgate.nn"),
    "Forecaster": "headgate.tasks",
    "inspect": "headgate.tasks.inspect",
}

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Cell",
    "CellError",
    "Forecaster",
    "GRUCell",
    "LSTMCell",
    "Program",
    "ProgramError",
    "RNNCell",
    "Record",
    "Recurrent",
    "cell",
    "cells",
    "clip",
    "concat",
    "exp",
    "hard_sigmoid",
    "identity",
    "inspect",
    "layer_norm",
    "log",
    "log_sigmoid",
    "maximum",
    "minimum",
    "relu",
    "sigmoid",
    "softplus",
    "softsign",
    "sqrt",
    "tanh",
    "where",
]


def __getattr__(name: str) -> Any:
    """Layers and tasks load torch, so they are imported when first asked for."""
    if name == "cells":
        return importlib.import_module("headgate.cells")
    if name in _NEED_TORCH:
        return getattr(importlib.import_module(_NEED_TORCH[name]), name)
    raise AttributeError(f"module 'headgate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
