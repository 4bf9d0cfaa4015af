"""Recurrent layers over cells: parameters, initialisers, directions, stacks, records."""

from headgate.nn.blocks import Block
from headgate.nn.initialise import INITIALISERS, chrono
from headgate.nn.record import Record
from headgate.nn.recurrent import Recurrent
from headgate.nn.stream import Stream
from headgate.nn.torchcells import GRUCell, LSTMCell, RNNCell
from headgate.nn.torchlike import GRU, LSTM, RNN

__all__ = [
    "GRU",
    "INITIALISERS",
    "LSTM",
    "RNN",
    "Block",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Record",
    "Recurrent",
    "Stream",
    "chrono",
]
