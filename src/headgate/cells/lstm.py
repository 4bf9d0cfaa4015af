"""Long short-term memory: the cell state c is a conveyor belt that gates let things on and off.

Everywhere i is the input gate, f the forget gate, g the candidate (also written c̃ or z), o the
output gate. Axes: H hidden size, I input size, P projection size.
"""

from __future__ import annotations

from headgate.program import Cell, cell
from headgate.program.functions import layer_norm, sigmoid, tanh


@cell
def lstm(x, h, c, *, W, R, b):
    """Long short-term memory with a forget gate.

    i = σ(Wᵢ x + Rᵢ h(t−1) + bᵢ), f and o likewise; g = tanh(W_g x + R_g h(t−1) + b_g);
    c(t) = f ∘ c(t−1) + i ∘ g; h(t) = o ∘ tanh(c(t))

    Shapes: W (4H, I), R (4H, H), b (4H,); blocks i, f, g, o.

    Source: F. A. Gers, J. Schmidhuber & F. Cummins, "Learning to forget: continual prediction with
    LSTM", Neural Computation 12 (2000).
    """
    i = sigmoid(W.i @ x + R.i @ h + b.i)
    f = sigmoid(W.f @ x + R.f @ h + b.f)
    g = tanh(W.g @ x + R.g @ h + b.g)
    o = sigmoid(W.o @ x + R.o @ h + b.o)
    c = f * c + i * g
    h = o * tanh(c)
    return h, c


@cell
def lstm_original(x, h, c, *, W, R, b):
    """Long short-term memory as it was first published: no forget gate, so c only accumulates.

    c(t) = c(t−1) + i ∘ g; h(t) = o ∘ tanh(c(t))

    The paper scales its squashing functions to [−2, 2] and [−1, 1]; here both are tanh, as in every
    later work. Its truncated gradient is a way of training, not part of the equations.

    Shapes: W (3H, I), R (3H, H), b (3H,); blocks i, g, o.

    Source: S. Hochreiter & J. Schmidhuber, "Long short-term memory", Neural Computation 9 (1997).
    """
    i = sigmoid(W.i @ x + R.i @ h + b.i)
    g = tanh(W.g @ x + R.g @ h + b.g)
    o = sigmoid(W.o @ x + R.o @ h + b.o)
    c = c + i * g
    h = o * tanh(c)
    return h, c


def peephole_lstm(gates: str = "ifo") -> Cell:
    """LSTM whose chosen gates also see the cell state: any subset of "ifgo".

    i = σ(Wᵢ x + Rᵢ h(t−1) + pᵢ ∘ c(t−1) + bᵢ), f and g likewise;
    o = σ(Wₒ x + Rₒ h(t−1) + pₒ ∘ c(t) + bₒ)

    Shapes: W (4H, I), R (4H, H), b (4H,); p (len(gates)·H,), a block for each chosen gate in the
    order i, f, g, o.

    Raises:
        ValueError: ``gates`` is empty, repeats a gate, or holds a letter other than i, f, g, o.

    Source: F. A. Gers & J. Schmidhuber, "Recurrent nets that time and count", IJCNN 2000; they give
    peepholes to the three gates. A peephole into the candidate g is found in some tutorials.
    """
    if not gates or len(set(gates)) < len(gates) or not set(gates) <= set("ifgo"):
        raise ValueError(
            "peephole_lstm: gates names the gates that see the cell state, a non-empty subset of "
            f"'ifgo', each once; got {gates!r} (without peepholes it is headgate.cells.lstm)"
        )
    chosen = "".join(gate for gate in "ifgo" if gate in gates)
    name = "lstm_peephole" if chosen == "ifo" else f"lstm_peephole_{chosen}"

    def peephole(p, gate, c):
        return p[gate] * c if gate in chosen else 0.0

    @cell(name=name)
    def equations(x, h, c, *, W, R, b, p):
        i = sigmoid(W.i @ x + R.i @ h + peephole(p, "i", c) + b.i)
        f = sigmoid(W.f @ x + R.f @ h + peephole(p, "f", c) + b.f)
        g = tanh(W.g @ x + R.g @ h + peephole(p, "g", c) + b.g)
        c = f * c + i * g
        o = sigmoid(W.o @ x + R.o @ h + peephole(p, "o", c) + b.o)
        h = o * tanh(c)
        return h, c

    equations.doc = (
        f"LSTM with peepholes into {', '.join(chosen)} (Gers & Schmidhuber 2000).\n\n"
        "i, f and g see c(t−1), o sees c(t); see headgate.cells.peephole_lstm."
    )
    return equations


lstm_peephole = peephole_lstm("ifo")


@cell
def lstm_coupled(x, h, c, *, W, R, b):
    """LSTM with coupled input and forget gates (CIFG): what is forgotten is replaced.

    f = 1 − i; c(t) = f ∘ c(t−1) + i ∘ g

    The gate that is learned is i, as in ONNX's ``input_forget``. Texts that learn f instead write
    c(t) = f ∘ c(t−1) + (1 − f) ∘ g; since 1 − σ(v) = σ(−v), that is this cell with the signs of
    block i's parameters turned.

    Shapes: W (3H, I), R (3H, H), b (3H,); blocks i, g, o.

    Source: K. Greff et al., "LSTM: A search space odyssey", IEEE TNNLS 28 (2017), variant CIFG,
    here without peepholes.
    """
    i = sigmoid(W.i @ x + R.i @ h + b.i)
    f = 1 - i
    g = tanh(W.g @ x + R.g @ h + b.g)
    o = sigmoid(W.o @ x + R.o @ h + b.o)
    c = f * c + i * g
    h = o * tanh(c)
    return h, c


@cell(widths={"h": "projection"})
def lstm_projected(x, h, c, *, W, R, b, P):
    """LSTM whose output is projected to a smaller vector, which is also what recurs.

    c(t) = f ∘ c(t−1) + i ∘ g; h(t) = P (o ∘ tanh(c(t)))

    Shapes: W (4H, I), R (4H, P), b (4H,), P (P, H); blocks i, f, g, o. The state h has the width
    "projection", given by ``sizes={"projection": ...}``; c has H.

    Source: H. Sak, A. Senior & F. Beaufays, "Long short-term memory recurrent neural network
    architectures for large scale acoustic modeling", Interspeech 2014; without its peepholes.
    """
    i = sigmoid(W.i @ x + R.i @ h + b.i)
    f = sigmoid(W.f @ x + R.f @ h + b.f)
    g = tanh(W.g @ x + R.g @ h + b.g)
    o = sigmoid(W.o @ x + R.o @ h + b.o)
    c = f * c + i * g
    h = P @ (o * tanh(c))
    return h, c


@cell
def lstm_layer_norm(x, h, c, *, W, R, b, gain_W, gain_R, gain_c, bias_c):
    """LSTM with layer normalisation.

    a = LN(W x; α₁) + LN(R h(t−1); α₂) + b; i, f, o = σ(aᵢ, a_f, aₒ), g = tanh(a_g);
    c(t) = f ∘ c(t−1) + i ∘ g; h(t) = o ∘ tanh(LN(c(t); α₃, β₃))

    LN(v; α, β) = α ∘ (v − mean v) / sqrt(var v + 10⁻⁵) + β. The statistics of LN(W x) and
    LN(R h) span all four gates. The paper's β₁ and β₂ only add to b, and are part of it.

    Shapes: W (4H, I), R (4H, H), b (4H,); α₁ is gain_W (4H,), α₂ gain_R (4H,), α₃ gain_c (H,),
    β₃ bias_c (H,); blocks i, f, g, o.

    Source: J. L. Ba, J. R. Kiros & G. E. Hinton, "Layer normalization", arXiv:1607.06450 (2016).
    """
    a = gain_W * layer_norm(W @ x) + gain_R * layer_norm(R @ h) + b
    i = sigmoid(a.i)
    f = sigmoid(a.f)
    g = tanh(a.g)
    o = sigmoid(a.o)
    c = f * c + i * g
    h = o * tanh(gain_c * layer_norm(c) + bias_c)
    return h, c
