"""What is not a cell is refused with the reason and the line of the equation at fault."""

from __future__ import annotations

import inspect
import linecache
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import headgate
from headgate import CellError, cell, concat, layer_norm, sigmoid, tanh, where

CASES: list[Any] = []


def wrong(message: str, **options: Any) -> Callable[[Any], Any]:
    """A function that is no cell; its line at fault ends in the comment ``# here``."""

    def register(function: Any) -> Any:
        CASES.append(pytest.param(function, message, options, id=function.__name__))
        return function

    return register


@wrong(r"returns 1 value and has 2 states \(h, c\); return the next value of each")
def fewer_values(x, h, c, *, W):
    h = tanh(W @ x)
    return h  # here


@wrong(r"returns 2 values and has 1 state \(h\)")
def more_values(x, h, *, W):
    h = tanh(W @ x)
    return h, h  # here


@wrong("returns 0 values and has 1 state")
def return_forgotten(x, h, *, W):
    h = tanh(W @ x)  # noqa: F841 # here


@wrong("the next value of h is a float, not a value of the equations")
def number_returned(x, h, *, W):
    return 1.0  # here


@wrong("a comparison is no number to compute with")
def comparison_returned(x, h, *, W):
    h = tanh(W @ x)
    return h > 0  # here


@wrong("a matrix product of two values; left of @ stands a parameter, as in W.i @ x")
def product_of_values(x, h, *, W):
    a = tanh(W @ x)
    h = a @ h  # here
    return h


@wrong(r"a product of two parameters; chain products from the right: U.i @ \(V.i @ h\)")
def product_of_parameters(x, h, *, U, V):
    h = tanh(U.i @ V.i @ h)  # here
    return h


@wrong("right of @ stands a value of the step, not float")
def product_with_number(x, h, *, W):
    h = tanh(W @ 2.0)  # here
    return h


@wrong(r"concat\(...\) may stand right of @ only, as in W.f @ concat\(h, x\)")
def concat_by_itself(x, h, *, W):
    h = tanh(concat(h, x)) + W @ x  # here
    return h


@wrong(r"Python control flow .* use where\(condition, a, b\)")
def control_flow_if(x, h, *, W):
    v = W @ x
    if v > 0:  # here
        h = v
    return h


@wrong("Python control flow")
def control_flow_max(x, h, *, W):
    v = W @ x
    h = max(v, h)  # here
    return h


@wrong("Python control flow")
def control_flow_equal(x, h, *, W):
    while h == 0:  # here
        h = W @ x
    return h


@wrong("!= is not an operation of a cell; exchange the branches")
def control_flow_not_equal(x, h, *, W):
    h = W @ x if h != 0 else h  # here
    return h


@wrong("Python control flow")
def control_flow_in_a_helper(x, h, *, W):
    def rectified(v):
        return v if v > 0 else 0.0

    h = rectified(W @ x)  # here
    return h


@wrong("a traced value cannot be iterated over or unpacked")
def unpacked(x, h, *, W):
    i, g = W @ x  # here
    return i * g


@wrong("family R is not used; remove it from the arguments, or use it")
def unused_family(
    x,
    h,
    *,
    W,
    R,  # here
):
    h = tanh(W @ x)
    return h


@wrong("family W has a default")
def family_with_default(x, h, *, W=None):  # here
    h = tanh(W @ x)  # type: ignore[operator]
    return h


@wrong("family W multiplies a vector of width hidden here and a vector of width input on line")
def one_block_two_shapes(x, h, *, W):
    v = W.i @ x
    h = tanh(v + W.i @ h)  # here
    return h


@wrong(r"family W multiplies nothing \(it is a vector\) here and a vector of width input")
def matrix_as_vector(x, h, *, W):
    v = W.i @ x
    h = tanh(v + W.g)  # here
    return h


@wrong(r"family W is used both whole and by blocks \(W.i\); name every block")
def whole_and_by_block(x, h, *, W):
    h = tanh(W @ x)  # here
    h = h * sigmoid(W.i @ x)
    return h


@wrong(r"the width of V's result .* cannot be resolved; name it with @cell\(widths=\{'V': 'rank'\}")
def width_unresolved(x, h, *, W, U, V):
    v = W @ x
    h = tanh(v + U @ (V @ h))  # here
    return h


@wrong("widths 'narrow' and 'wide' cannot be unified", widths={"a": "narrow", "b": "wide"})
def width_not_unified(x, h, *, V, U, S):
    a = V @ x
    b = S @ x
    v = a * b  # here
    h = tanh(U @ v)
    return h


@wrong("widths= names 'q', which is no value and no family here", widths={"q": "rank"})
def width_of_nothing(x, h, *, W):
    h = tanh(W @ x)
    return h


@wrong(r"which may use the cell's arguments, numbers and headgate's own functions: TypeError")
def numpy_function(x, h, *, W):
    h = np.tanh(W @ x)  # here
    return h


@wrong(r"headgate's own functions: TypeError: tanh\(\)")
def torch_function(x, h, *, W):
    h = torch.tanh(W @ x)  # here
    return h


@wrong("a traced value has no number yet; use headgate's own functions on it")
def math_function(x, h, *, W):
    h = math.tanh(W @ x)  # here
    return h


@wrong("ndarray is not something a cell computes with")
def array_from_outside(x, h, *, W):
    h = tanh(W @ x) * np.ones(3)  # here
    return h


@wrong("Tensor is not something a cell computes with")
def tensor_from_outside(x, h, *, W):
    h = torch.ones(3) * tanh(W @ x)  # here
    return h


@wrong("NaN is not a number to compute with")
def not_a_number(x, h, *, W):
    h = tanh(W @ x) * math.nan  # here
    return h


@wrong("power 3 is not an operation of a cell")
def power(x, h, *, W):
    h = tanh(W @ x) ** 3  # here
    return h


@wrong(r"the condition of where\(condition, a, b\) is a comparison")
def where_without_comparison(x, h, *, W):
    h = where(W @ x, h, 0.0)  # here
    return h


@wrong(r"as in where\(v > 0, 1, 0\)")
def comparison_as_number(x, h, *, W):
    on = h > 0
    h = on * tanh(W @ x)  # here
    return h


@wrong(r"\.i of a vector; a family has blocks, W\.i")
def block_of_a_value(x, h, *, W):
    h = tanh(W @ h.i)  # here
    return h


@wrong(r"\[0\] of a vector, which is computed with as a whole")
def element_of_a_value(x, h, *, W):
    h = tanh(W @ x[0])  # here
    return h


@wrong(r'a block is named by a string, as in W\["i"\], not by 0')
def block_by_number(x, h, *, W):
    h = tanh(W[0] @ x)  # here
    return h


@wrong("NameError: name 'softmx' is not defined")
def misspelt(x, h, *, W):
    h = softmx(W @ x)  # type: ignore[name-defined] # noqa: F821 # here
    return h


@wrong("takes the input and at least one state, as in def cell")
def no_state(x, *, W):  # here
    return tanh(W @ x)


@wrong(r"a cell names its states and families; \* and \*\* arguments hide them")
def starred(x, *states, W):  # here
    return states


@wrong("the initial value of h is a number, not None")
def initial_value_no_number(x, h=None, *, W):  # here
    return tanh(W @ x)


@wrong("the next value of h is one number, not a vector")
def constant_state(x, h, *, W):
    v = layer_norm(W @ x)  # noqa: F841
    number = h.trace.constant(1.0)
    return number  # here


def line_at_fault(function: Any) -> int:
    lines, first = inspect.getsourcelines(function)
    marked = [k for k, line in enumerate(lines) if line.rstrip().endswith("# here")]
    return first + (marked[0] if marked else 0)


@pytest.mark.parametrize(("function", "message", "options"), CASES)
def test_the_error_says_what_and_where(function: Any, message: str, options: Any) -> None:
    line = line_at_fault(function)
    text = linecache.getline(__file__, line).strip()
    with pytest.raises(CellError, match=message) as error:
        cell(**options)(function)
    assert str(error.value).startswith(f"cell '{function.__name__}', line {line} (`{text}`)")


def test_without_source_the_line_is_a_number() -> None:
    scope = {"tanh": tanh}
    exec("def f(x, h, *, W):\n    v = W @ x\n    return v @ h\n", scope)
    with pytest.raises(CellError, match=r"^cell 'f', line 3: a matrix product of two values"):
        cell(scope["f"])


@pytest.mark.parametrize("thing", ["lstm", torch.nn.LSTM, len])
def test_what_is_no_function_is_refused(thing: Any) -> None:
    with pytest.raises(CellError, match="expected a function of equations, got"):
        cell(thing)


@pytest.mark.parametrize("value", [0.5, torch.zeros(2)], ids=["number", "tensor"])
def test_functions_are_for_equations(value: Any) -> None:
    with pytest.raises(TypeError, match=r"headgate\.tanh: expected a value inside a cell's equa"):
        headgate.tanh(value)


def test_a_value_kept_from_another_cell_is_refused() -> None:
    kept: list[Any] = []

    @cell
    def first(x, h, *, W):
        h = tanh(W @ x)
        kept.append(h)
        return h

    with pytest.raises(CellError, match="a value from another cell's equations"):

        @cell
        def second(x, h, *, W):
            return tanh(W @ x) + kept[0]
