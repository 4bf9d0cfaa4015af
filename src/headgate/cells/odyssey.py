"""The eight variants of "LSTM: A search space odyssey", each one change to the vanilla LSTM.

The vanilla LSTM of the paper has peepholes into its three gates (``headgate.cells.lstm_peephole``).
Its block input, z in the paper, is the candidate g here; its output y is h.

Source: K. Greff, R. K. Srivastava, J. Koutník, B. R. Steunebrink & J. Schmidhuber, "LSTM: A search
space odyssey", IEEE Transactions on Neural Networks and Learning Systems 28 (2017).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from headgate.program import Cell, cell
from headgate.program.functions import identity, sigmoid, tanh
from headgate.program.values import concat

Activation = Callable[[Any], Any]


def _variant(
    name: str,
    change: str,
    *,
    no_gate: str = "",
    coupled: bool = False,
    peepholes: bool = True,
    full_gate_recurrence: bool = False,
    input_activation: Activation = tanh,
    output_activation: Activation = tanh,
) -> Cell:
    """The vanilla LSTM with one thing changed."""

    def equations(x, h, c, i=None, f=None, o=None, *, W, R, b, p: Any = None, G: Any = None):
        before = (i, f, o)

        def gate(k, c):
            if k == no_gate:
                return 1.0
            v = W[k] @ x + R[k] @ h
            if peepholes:
                v = v + p[k] * c
            if full_gate_recurrence:
                v = v + G[k] @ concat(*before)
            return sigmoid(v + b[k])

        i = gate("i", c)
        f = 1 - i if coupled else gate("f", c)
        g = input_activation(W.g @ x + R.g @ h + b.g)
        c = f * c + i * g
        o = gate("o", c)
        h = o * output_activation(c)
        return (h, c, i, f, o) if full_gate_recurrence else (h, c)

    dropped = set() if peepholes else {"p"}
    dropped |= set() if full_gate_recurrence else {"i", "f", "o", "G"}
    kept = [p for p in inspect.signature(equations).parameters.values() if p.name not in dropped]
    kept = [p.replace(default=inspect.Parameter.empty) for p in kept]
    equations.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
    equations.__doc__ = (
        f"Variant {name} of the vanilla LSTM: {change} (Greff et al. 2017).\n\n"
        "Vanilla: i, f = σ(W x + R h(t−1) + p ∘ c(t−1) + b), o with c(t); "
        "g = tanh(W x + R h(t−1) + b);\n"
        "c(t) = f ∘ c(t−1) + i ∘ g; h(t) = o ∘ tanh(c(t)).\n\n"
        "Axes: W (gates·H, I), R (gates·H, H), b (gates·H,), p (gates·H,); "
        "gates in the order i, f, g, o."
    )
    return cell(name=name)(equations)


NIG = _variant("NIG", "no input gate, i = 1", no_gate="i")
NFG = _variant("NFG", "no forget gate, f = 1", no_gate="f")
NOG = _variant("NOG", "no output gate, o = 1", no_gate="o")
NIAF = _variant("NIAF", "no input activation function, g linear", input_activation=identity)
NOAF = _variant("NOAF", "no output activation function, h = o ∘ c", output_activation=identity)
CIFG = _variant("CIFG", "coupled input and forget gates, f = 1 − i", coupled=True)
NP = _variant("NP", "no peepholes; the equations of headgate.cells.lstm", peepholes=False)
FGR = _variant(
    "FGR",
    "full gate recurrence, every gate also sees i, f and o of the step before, "
    "G [i(t−1), f(t−1), o(t−1)] with G (3H, 3H); i, f and o are states, zero at first",
    full_gate_recurrence=True,
)

VARIANTS: dict[str, Cell] = {v.name: v for v in (NIG, NFG, NOG, NIAF, NOAF, CIFG, NP, FGR)}
"""The eight variants by the paper's names."""
