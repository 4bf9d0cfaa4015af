"""The minimal gated unit: a GRU whose one gate forgets and updates.

    python examples/cells/mgu.py

Source: G.-B. Zhou, J. Wu, C.-L. Zhang & Z.-H. Zhou, "Minimal gated unit for recurrent neural
networks", International Journal of Automation and Computing 13 (2016).
"""

from headgate import cell, concat, sigmoid, tanh


@cell
def mgu(x, h, *, W, b):
    """Minimal gated unit (Zhou et al. 2016)."""
    f = sigmoid(W.f @ concat(h, x) + b.f)
    g = tanh(W.g @ concat(f * h, x) + b.g)
    h = (1 - f) * h + f * g
    return h


if __name__ == "__main__":
    print(mgu.program)
