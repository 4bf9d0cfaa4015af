"""The functions that equations may use. Each works on every unit of a vector by itself,
except ``layer_norm``, which looks at the whole row."""

from __future__ import annotations

from typing import Any

from headgate.program.values import (
    Blocks,
    Bundle,
    Operand,
    Value,
    as_value,
    elementwise,
    find_trace,
)


def sigmoid(v: Any) -> Operand:
    """σ(v) = 1 / (1 + exp(−v)), the logistic function."""
    return elementwise("sigmoid", v)


def tanh(v: Any) -> Operand:
    """tanh(v)."""
    return elementwise("tanh", v)


def relu(v: Any) -> Operand:
    """max(v, 0); slope zero at zero."""
    return elementwise("relu", v)


def exp(v: Any) -> Operand:
    """exp(v)."""
    return elementwise("exp", v)


def log(v: Any) -> Operand:
    """Natural logarithm."""
    return elementwise("log", v)


def log_sigmoid(v: Any) -> Operand:
    """log σ(v), without the underflow of ``log(sigmoid(v))``."""
    return elementwise("log_sigmoid", v)


def softplus(v: Any) -> Operand:
    """log(1 + exp(v))."""
    return -elementwise("log_sigmoid", -v)


def sqrt(v: Any) -> Operand:
    """Square root."""
    return elementwise("sqrt", v)


def clip(v: Any, low: float, high: float) -> Operand:
    """v limited to [low, high]; the gradient passes inside and at both edges."""
    return elementwise("clip", v, low=float(low), high=float(high))


def hard_sigmoid(v: Any, slope: float = 0.2) -> Operand:
    """clip(slope · v + 0.5, 0, 1): slope 0.2 is MATLAB's and ONNX's, 1/6 is torch's."""
    return clip(slope * v + 0.5, 0.0, 1.0)


def softsign(v: Any) -> Operand:
    """v / (1 + |v|)."""
    return v / (1.0 + abs(v))


def identity(v: Any) -> Operand:
    """v itself: an activation that changes nothing."""
    return v


def maximum(a: Any, b: Any) -> Operand:
    """The larger of two values; where they are equal, each gets half the gradient."""
    return elementwise("maximum", a, b)


def minimum(a: Any, b: Any) -> Operand:
    """The smaller of two values; where they are equal, each gets half the gradient."""
    return elementwise("minimum", a, b)


def where(condition: Any, a: Any, b: Any) -> Operand:
    """a where the condition holds, b elsewhere; a condition is a comparison such as ``v > 0``."""
    return elementwise("where", condition, a, b)


def layer_norm(v: Any, eps: float = 1e-5) -> Operand:
    """(v − mean) / sqrt(variance + eps) over the whole row (Ba, Kiros & Hinton 2016).

    Of a whole family, ``layer_norm(W @ x)``, the statistics span all its blocks, and ``.i`` slices
    the result. There is no gain and no bias in it; write them: ``a.i * n.i + b.i``.
    """
    trace = find_trace("layer_norm", [v])
    if isinstance(v, Blocks):
        group = trace.norm_group(float(eps))
        return Bundle(trace, lambda block: group.part(as_value(trace, v.part(block))))
    return trace.norm_group(float(eps)).part(as_value(trace, v))


ACTIVATIONS = {
    "sigmoid": sigmoid,
    "tanh": tanh,
    "relu": relu,
    "softsign": softsign,
    "hard_sigmoid": hard_sigmoid,
    "identity": identity,
}
"""Activations by name, for the options that replace one."""

__all__ = [
    "ACTIVATIONS",
    "Value",
    "clip",
    "exp",
    "hard_sigmoid",
    "identity",
    "layer_norm",
    "log",
    "log_sigmoid",
    "maximum",
    "minimum",
    "relu",
    "sigmoid",
    "softplus",
    "softsign",
    "sqrt",
    "tanh",
    "where",
]
