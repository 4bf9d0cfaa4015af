"""What the equations of a cell compute with while they are traced.

A ``Value`` is one vector of the step. A ``Block`` is one gate's part of a parameter family, as
``W.i``. A ``Family`` stands for all its blocks, and so does a ``Bundle``, the result of arithmetic
with a family: ``(W @ x).i`` takes one gate's slice of it, and a bundle used as a value is a single
block.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from headgate.program.trace import Trace


class Operand:
    """Arithmetic shared by everything that may stand in an equation."""

    __array_ufunc__ = None
    trace: Trace

    if TYPE_CHECKING:  # tanh(W @ x).i is right where the operand stands for several blocks

        def __getattr__(self, block: str) -> Operand: ...

    def __add__(self, other: Any) -> Operand:
        return elementwise("add", self, other)

    def __radd__(self, other: Any) -> Operand:
        return elementwise("add", other, self)

    def __sub__(self, other: Any) -> Operand:
        return elementwise("sub", self, other)

    def __rsub__(self, other: Any) -> Operand:
        return elementwise("sub", other, self)

    def __mul__(self, other: Any) -> Operand:
        return elementwise("mul", self, other)

    def __rmul__(self, other: Any) -> Operand:
        return elementwise("mul", other, self)

    def __truediv__(self, other: Any) -> Operand:
        return elementwise("div", self, other)

    def __rtruediv__(self, other: Any) -> Operand:
        return elementwise("div", other, self)

    def __neg__(self) -> Operand:
        return elementwise("neg", self)

    def __abs__(self) -> Operand:
        return elementwise("abs", self)

    def __gt__(self, other: Any) -> Operand:
        return elementwise("greater", self, other)

    def __ge__(self, other: Any) -> Operand:
        return elementwise("greater_equal", self, other)

    def __lt__(self, other: Any) -> Operand:
        return elementwise("less", self, other)

    def __le__(self, other: Any) -> Operand:
        return elementwise("less_equal", self, other)

    def __eq__(self, other: Any) -> Operand:  # type: ignore[override]
        return elementwise("equal", self, other)

    def __ne__(self, other: Any) -> NoReturn:  # type: ignore[override]
        self.trace.fail(
            "!= is not an operation of a cell; exchange the branches of where(a == b, …)"
        )

    __hash__ = object.__hash__

    def __pow__(self, exponent: Any) -> Operand:
        if exponent == 2:
            return self * self
        self.trace.fail(f"power {exponent!r} is not an operation of a cell; write v ** 2, or v * v")

    def __matmul__(self, other: Any) -> Operand:
        self.trace.fail(
            "a matrix product of two values; left of @ stands a parameter, as in W.i @ x "
            "(elementwise products are written *)"
        )

    def __rmatmul__(self, other: Any) -> Operand:
        self.trace.fail(f"left of @ stands a parameter, as in W.i @ x, not {type(other).__name__}")

    def __bool__(self) -> NoReturn:
        self.trace.fail(
            "Python control flow (if, while, and, or, not) on a traced value, which has no number "
            "yet; use where(condition, a, b)"
        )

    def __iter__(self) -> NoReturn:
        self.trace.fail("a traced value cannot be iterated over or unpacked")

    def __float__(self) -> NoReturn:
        self.trace.fail("a traced value has no number yet; use headgate's own functions on it")

    __int__ = __index__ = __len__ = __float__  # type: ignore[assignment]


class Value(Operand):
    """One vector of the step: a node of the trace."""

    def __init__(self, trace: Trace, index: int) -> None:
        self.trace = trace
        self.index = index

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        self.trace.fail(
            f".{name} of a vector; a family has blocks, W.{name}, and so has a whole family's "
            f"product, (W @ x).{name}"
        )

    def __getitem__(self, place: Any) -> NoReturn:
        self.trace.fail(
            f"[{place!r}] of a vector, which is computed with as a whole; a family has blocks, "
            'W["i"], and so has a whole family\'s product, (W @ x)["i"]'
        )


class Blocks(Operand):
    """Something with one part for each block; used as a value, it is the single block ""."""

    def part(self, block: str) -> Operand:
        raise NotImplementedError

    def __getattr__(self, block: str) -> Operand:
        if block.startswith("__"):
            raise AttributeError(block)
        return self.part(block)

    def __getitem__(self, block: str) -> Operand:
        if not isinstance(block, str):
            self.trace.fail(f'a block is named by a string, as in W["i"], not by {block!r}')
        return self.part(block)


class Bundle(Blocks):
    """Arithmetic on whole families, carried out once for each block that is asked for."""

    def __init__(self, trace: Trace, make: Callable[[str], Value]) -> None:
        self.trace = trace
        self._make = make
        self._line = trace.here()
        self._parts: dict[str, Value] = {}

    def part(self, block: str) -> Value:
        if block not in self._parts:
            with self.trace.at(self._line):
                self._parts[block] = self._make(block)
        return self._parts[block]

    def single(self) -> Value | None:
        """The value this bundle was used as, if it was."""
        return self._parts.get("")


class Family(Blocks):
    """A keyword-only argument of the cell: a family of parameters."""

    def __init__(self, trace: Trace, name: str) -> None:
        self.trace = trace
        self._name = name

    def part(self, block: str) -> Block:
        return Block(self.trace, self._name, block)

    def __matmul__(self, other: Any) -> Operand:
        operands = right_of_product(self.trace, other)
        return Bundle(self.trace, lambda block: self.trace.product(self._name, block, operands))


class Block(Operand):
    """One block of a family: a matrix left of @, a vector in elementwise arithmetic."""

    def __init__(self, trace: Trace, family: str, block: str) -> None:
        self.trace = trace
        self.family = family
        self.block = block

    def __matmul__(self, other: Any) -> Operand:
        if isinstance(other, (Block, Family)):
            self.trace.fail(
                "a product of two parameters; chain products from the right: U.i @ (V.i @ h)"
            )
        return self.trace.product(self.family, self.block, right_of_product(self.trace, other))

    def value(self) -> Value:
        return self.trace.parameter(self.family, self.block)


class Concat(Operand):
    """Values side by side; it may stand right of @ only."""

    def __init__(self, trace: Trace, values: Sequence[Value]) -> None:
        self.trace = trace
        self.values = tuple(values)


def concat(*values: Any) -> Concat:
    """``W.f @ concat(h, x)``: the operands side by side, as textbooks write [h, x]."""
    trace = find_trace("concat", values)
    return Concat(trace, [as_value(trace, value) for value in values])


def right_of_product(trace: Trace, other: Any) -> tuple[int, ...]:
    if isinstance(other, Concat):
        return tuple(value.index for value in other.values)
    if not isinstance(other, Operand):
        trace.fail(f"right of @ stands a value of the step, not {type(other).__name__}")
    return (as_value(trace, other).index,)


def as_value(trace: Trace, operand: Any) -> Value:
    """The operand as one vector; a number becomes a constant."""
    match operand:
        case Value():
            if operand.trace is not trace:
                trace.fail("a value from another cell's equations")
            return operand
        case Block():
            return operand.value()
        case Family():
            return operand.part("").value()
        case Bundle():
            return operand.part("")
        case Concat():
            trace.fail("concat(...) may stand right of @ only, as in W.f @ concat(h, x)")
        case bool() | str():
            pass
        case numbers.Real():
            return trace.constant(float(operand))
    trace.fail(
        f"{type(operand).__name__} is not something a cell computes with; use the cell's "
        "arguments, numbers, and the functions of headgate"
    )


def find_trace(function: str, operands: Sequence[Any]) -> Trace:
    for operand in operands:
        if isinstance(operand, Operand):
            return operand.trace
    kinds = ", ".join(type(operand).__name__ for operand in operands) or "nothing"
    raise TypeError(
        f"headgate.{function}: expected a value inside a cell's equations, got {kinds}; "
        "outside a cell use torch's function"
    )


def elementwise(op: str, *operands: Any, **attrs: Any) -> Operand:
    """The operation on each unit; a bundle where an operand is a whole family or a bundle."""
    trace = find_trace(op, operands)
    if any(isinstance(operand, Blocks) for operand in operands):
        frozen = tuple(o if isinstance(o, Blocks) else as_value(trace, o) for o in operands)

        def make(block: str) -> Value:
            parts = [o.part(block) if isinstance(o, Blocks) else o for o in frozen]
            return trace.elementwise(op, [as_value(trace, p) for p in parts], attrs)

        return Bundle(trace, make)
    return trace.elementwise(op, [as_value(trace, operand) for operand in operands], attrs)
