"""The built-in cells: textbook equations, one short file a family. Reading starts here.

    rnn.py       rnn, rnn_relu
    lstm.py      lstm, lstm_original, lstm_peephole, lstm_coupled, lstm_projected, lstm_layer_norm
    gru.py       gru, gru_single_bias, gru_reset_before
    odyssey.py   NIG, NFG, NOG, NIAF, NOAF, CIFG, NP, FGR

Nothing is special about them: a cell of your own gets the same engines, derivatives and pictures.
"""

from __future__ import annotations

from types import MappingProxyType

from headgate.cells.gru import gru, gru_reset_before, gru_single_bias
from headgate.cells.lstm import (
    lstm,
    lstm_coupled,
    lstm_layer_norm,
    lstm_original,
    lstm_peephole,
    lstm_projected,
    peephole_lstm,
)
from headgate.cells.odyssey import CIFG, FGR, NFG, NIAF, NIG, NOAF, NOG, NP, VARIANTS
from headgate.cells.rnn import rnn, rnn_relu
from headgate.program import Cell

BUILT_IN = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            *(rnn, rnn_relu),
            *(lstm, lstm_original, lstm_peephole, lstm_coupled, lstm_projected, lstm_layer_norm),
            *(gru, gru_single_bias, gru_reset_before),
            *VARIANTS.values(),
        )
    }
)
"""Every built-in cell by its name."""


def get(name: str) -> Cell:
    """The built-in cell of this name.

    Raises:
        ValueError: there is none; the message lists the names.
    """
    if name not in BUILT_IN:
        raise ValueError(
            f"cells: no built-in cell is named {name!r}; built in are {', '.join(BUILT_IN)}; "
            "a cell of your own is given itself, not its name"
        )
    return BUILT_IN[name]


__all__ = [
    "BUILT_IN",
    "CIFG",
    "FGR",
    "NFG",
    "NIAF",
    "NIG",
    "NOAF",
    "NOG",
    "NP",
    "get",
    "gru",
    "gru_reset_before",
    "gru_single_bias",
    "lstm",
    "lstm_coupled",
    "lstm_layer_norm",
    "lstm_original",
    "lstm_peephole",
    "lstm_projected",
    "peephole_lstm",
    "rnn",
    "rnn_relu",
]
