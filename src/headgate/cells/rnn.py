"""Plain recurrent networks: one state, no gate."""

from __future__ import annotations

from headgate.program import cell
from headgate.program.functions import relu, tanh


@cell
def rnn(x, h, *, W, R, b):
    """Simple recurrent network (Elman 1990).

    h(t) = tanh(W x(t) + R h(t−1) + b)

    Shapes: W (H, I), R (H, H), b (H,).

    Source: J. L. Elman, "Finding structure in time", Cognitive Science 14 (1990).
    """
    h = tanh(W @ x + R @ h + b)
    return h


@cell
def rnn_relu(x, h, *, W, R, b):
    """Simple recurrent network with rectified linear units.

    h(t) = max(W x(t) + R h(t−1) + b, 0)

    Shapes: W (H, I), R (H, H), b (H,).

    Source: Q. V. Le, N. Jaitly & G. E. Hinton, "A simple way to initialize recurrent networks of
    rectified linear units", arXiv:1504.00941 (2015); they start R from the identity.
    """
    h = relu(W @ x + R @ h + b)
    return h
