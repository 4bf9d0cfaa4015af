"""Gated recurrent units: r is the reset gate, z the update gate, n the candidate.

Everywhere z keeps: h(t) = (1 − z) ∘ n + z ∘ h(t−1). Texts that write (1 − z) ∘ h(t−1) + z ∘ n
have the opposite sense: the same cell with the signs of block z's parameters turned.
Axes: H hidden size, I input size.
"""

from __future__ import annotations

from headgate.program import cell
from headgate.program.functions import sigmoid, tanh


@cell
def gru(x, h, *, W, R, b, d):
    """Gated recurrent unit, reset after the product, with a bias inside it.

    r = σ(W_r x + R_r h(t−1) + b_r); z = σ(W_z x + R_z h(t−1) + b_z);
    n = tanh(W_n x + b_n + r ∘ (R_n h(t−1) + d_n)); h(t) = (1 − z) ∘ n + z ∘ h(t−1)

    The form of torch and cuDNN; Keras's ``reset_after=True``, ONNX's ``linear_before_reset=1``,
    MATLAB's "recurrent-bias-after-multiplication".

    Shapes: W (3H, I), R (3H, H), b (3H,), blocks r, z, n; d (H,), block n only.

    Source: K. Cho et al., "Learning phrase representations using RNN encoder–decoder for
    statistical machine translation", EMNLP 2014, with the reset moved behind the product.
    """
    r = sigmoid(W.r @ x + R.r @ h + b.r)
    z = sigmoid(W.z @ x + R.z @ h + b.z)
    n = tanh(W.n @ x + b.n + r * (R.n @ h + d.n))
    h = (1 - z) * n + z * h
    return h


@cell
def gru_single_bias(x, h, *, W, R, b):
    """Gated recurrent unit, reset after the product, without a bias inside it.

    n = tanh(W_n x + b_n + r ∘ (R_n h(t−1))); r, z and h as in ``gru``.

    MATLAB's "after-multiplication", the default of its gruLayer.

    Shapes: W (3H, I), R (3H, H), b (3H,); blocks r, z, n.

    Source: K. Cho et al., EMNLP 2014, with the reset moved behind the product.
    """
    r = sigmoid(W.r @ x + R.r @ h + b.r)
    z = sigmoid(W.z @ x + R.z @ h + b.z)
    n = tanh(W.n @ x + b.n + r * (R.n @ h))
    h = (1 - z) * n + z * h
    return h


@cell
def gru_reset_before(x, h, *, W, R, b):
    """Gated recurrent unit as it was first published: the reset acts before the product.

    n = tanh(W_n x + R_n (r ∘ h(t−1)) + b_n); r, z and h as in ``gru``.

    Keras's ``reset_after=False``, ONNX's ``linear_before_reset=0``, MATLAB's
    "before-multiplication".

    Shapes: W (3H, I), R (3H, H), b (3H,); blocks r, z, n.

    Source: K. Cho et al., "Learning phrase representations using RNN encoder–decoder for
    statistical machine translation", EMNLP 2014.
    """
    r = sigmoid(W.r @ x + R.r @ h + b.r)
    z = sigmoid(W.z @ x + R.z @ h + b.z)
    n = tanh(W.n @ x + R.n @ (r * h) + b.n)
    h = (1 - z) * n + z * h
    return h
