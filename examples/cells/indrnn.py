"""The independently recurrent network: each unit sees only its own past, through a vector u.

    python examples/cells/indrnn.py

Source: S. Li, W. Li, C. Cook, C. Zhu & Y. Gao, "Independently recurrent neural network (IndRNN):
building a longer and deeper RNN", CVPR 2018.
"""

from headgate import cell, relu


@cell
def indrnn(x, h, *, W, u, b):
    """Independently recurrent network (Li et al. 2018)."""
    h = relu(W @ x + u * h + b)
    return h


if __name__ == "__main__":
    print(indrnn.program)
