"""JANET: an LSTM reduced to its forget gate, "just another network".

    python examples/cells/janet.py

What is let in is what was forgotten, a little more: the argument of the gate is lowered by β = 1,
the paper's value, on the side of the input.

Source: J. van der Westhuizen & J. Lasenby, "The unreasonable effectiveness of the forget gate",
arXiv:1804.04849 (2018).
"""

from headgate import cell, sigmoid, tanh

BETA = 1.0


@cell
def janet(x, h, *, W, R, b):
    """JANET, an LSTM with a forget gate only (van der Westhuizen & Lasenby 2018)."""
    s = W.f @ x + R.f @ h + b.f
    f = sigmoid(s)
    g = tanh(W.g @ x + R.g @ h + b.g)
    h = f * h + (1 - sigmoid(s - BETA)) * g
    return h


if __name__ == "__main__":
    print(janet.program)
