"""sLSTM: an LSTM with an exponential input gate, a normaliser and a stabiliser.

    python examples/cells/slstm.py

Dividing c and n by exp(m) keeps the gates in the range of floating point and leaves h as it is. The
stabiliser m starts at −∞: from m = 0 a strongly negative input gate would make h = 0/0. The paper's
R is block-diagonal, one block a head; this is one head. Its forget gate may also be exponential;
this is the sigmoid one.

Source: M. Beck et al., "xLSTM: extended long short-term memory", NeurIPS 2024.
"""

from math import inf

from headgate import cell, exp, log_sigmoid, maximum, sigmoid, tanh


@cell
def slstm(x, h, c, n, m=-inf, *, W, R, b):
    """sLSTM (Beck et al. 2024), one head, sigmoid forget gate."""
    log_i = W.i @ x + R.i @ h + b.i
    log_f = log_sigmoid(W.f @ x + R.f @ h + b.f)
    z = tanh(W.z @ x + R.z @ h + b.z)
    o = sigmoid(W.o @ x + R.o @ h + b.o)
    m_before = m
    m = maximum(log_f + m_before, log_i)
    i = exp(log_i - m)
    f = exp(log_f + m_before - m)
    c = f * c + i * z
    n = f * n + i
    h = o * (c / n)
    return h, c, n, m


if __name__ == "__main__":
    print(slstm.program)
