"""Tracing: the equations of a cell are run once, on values that write down what is done to them."""

from __future__ import annotations

import inspect
import linecache
import math
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, NoReturn

from headgate.program.errors import CellError
from headgate.program.program import COMPARISONS, LEAVES, SCALAR, Program
from headgate.program.values import Block, Blocks, Bundle, Family, Operand, Value, as_value
from headgate.program.widths import Widths, finish


@dataclass
class TracedNode:
    op: str
    args: tuple[int, ...]
    attrs: dict[str, Any]
    width: int | None
    line: int


class NormGroup:
    """The values that one layer normalisation takes its statistics over."""

    def __init__(self, trace: Trace, eps: float) -> None:
        self.trace = trace
        self.eps = eps
        self.members: list[int] = []

    def part(self, value: Value) -> Value:
        self.trace.not_a_condition(value.index)
        if value.index not in self.members:
            self.members.append(value.index)
        attrs = {"part": self.members.index(value.index), "eps": self.eps, "group": self}
        return self.trace.node("layer_norm", (), attrs, self.trace.nodes[value.index].width)


class Trace:
    """The nodes of a cell while its equations run, with the line that wrote each."""

    def __init__(self, name: str, code: CodeType) -> None:
        self.name = name
        self.code = code
        self.nodes: list[TracedNode] = []
        self.widths = Widths()
        self._line = code.co_firstlineno
        self._fixed_line: int | None = None

    def here(self) -> int:
        """The line of the cell that is running now."""
        if self._fixed_line is not None:
            return self._fixed_line
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code is self.code:
                self._line = frame.f_lineno
                break
            frame = frame.f_back
        return self._line

    def declared(self, argument: str = "") -> int:
        """The line of the ``def`` that holds an argument, or the first where no source is known."""

        def source(line: int) -> str:
            return linecache.getline(self.code.co_filename, line)

        line = first = self.code.co_firstlineno
        while source(line) and not source(line).lstrip().startswith("def "):
            line += 1
        opened = line if source(line) and self.code.co_name != "<lambda>" else first
        for line in range(opened, opened + self.code.co_argcount + self.code.co_kwonlyargcount + 3):
            if argument and re.search(rf"\b{argument}\b", source(line)):
                return line
        return opened

    @contextmanager
    def at(self, line: int) -> Iterator[None]:
        """What is done inside counts as written on this line."""
        previous, self._fixed_line = self._fixed_line, line
        try:
            yield
        finally:
            self._fixed_line = previous

    def fail(self, message: str, line: int | None = None) -> NoReturn:
        raise CellError(f"{self.where(line)}: {message}")

    def ends_at(self, line: int) -> None:
        """What is said from now on is about the line that returns."""
        self._line = line

    def where(self, line: int | None = None) -> str:
        """ "cell 'name', line 7 (`h = ...`)"; without source text, the line's number alone."""
        line = self.here() if line is None else line
        source = linecache.getline(self.code.co_filename, line).strip()
        return f"cell '{self.name}', line {line}" + (f" (`{source}`)" if source else "")

    def node(
        self, op: str, args: tuple[int, ...], attrs: dict[str, Any], width: int | None
    ) -> Value:
        self.nodes.append(TracedNode(op, args, attrs, width, self.here()))
        return Value(self, len(self.nodes) - 1)

    def constant(self, value: float) -> Value:
        if math.isnan(value):
            self.fail("NaN is not a number to compute with")
        return self.node("constant", (), {"value": value}, None)

    def parameter(self, family: str, block: str) -> Value:
        attrs = {"family": family, "block": block}
        return self.node("parameter", (), attrs, self.widths.of_rows(family, block))

    def product(self, family: str, block: str, operands: tuple[int, ...]) -> Value:
        for operand in operands:
            if self.nodes[operand].width is None:
                self.fail("right of @ stands a vector; this is a number")
            self.not_a_condition(operand)
        attrs = {"family": family, "block": block}
        return self.node("product", operands, attrs, self.widths.of_rows(family, block))

    def elementwise(self, op: str, operands: Sequence[Value], attrs: dict[str, Any]) -> Value:
        args = tuple(operand.index for operand in operands)
        if op == "where" and self.nodes[args[0]].op not in COMPARISONS:
            self.fail("the condition of where(condition, a, b) is a comparison, such as v > 0")
        for arg in args[op == "where" :]:
            self.not_a_condition(arg)
        wide = [w for a in args if (w := self.nodes[a].width) is not None]
        if not wide:
            return self.node(op, args, dict(attrs), None)
        width, line = self.widths.new(), self.here()
        for other in wide:
            self.widths.unify(other, width, line)
        return self.node(op, args, dict(attrs), width)

    def not_a_condition(self, index: int) -> None:
        if self.nodes[index].op in COMPARISONS:
            self.fail(
                "a comparison is no number to compute with; it is the condition of "
                "where(condition, a, b), as in where(v > 0, 1, 0)"
            )

    def norm_group(self, eps: float) -> NormGroup:
        return NormGroup(self, eps)


def trace(
    function: Callable[..., Any], *, name: str | None = None, widths: Mapping[str, str]
) -> Program:
    """Run the equations once and return them as a Program.

    Raises CellError, naming the line, where the function is not a cell.
    """
    equations = inspect.unwrap(function)
    if not inspect.isfunction(equations):
        raise CellError(f"cell: expected a function of equations, got {function!r}")
    name = name or function.__name__
    record = Trace(name, equations.__code__)
    x, states, families, initial = _arguments(record, function)
    with _locals_at_return(record) as local:
        returned = _call(record, function, [x, *states.values()], families)
    nexts = _next_values(record, returned, states)
    named = _named_values(local, {*states, *families})
    return finish(record, nexts, initial, named, list(families), widths, function.__doc__ or "")


def _arguments(
    record: Trace, function: Callable[..., Any]
) -> tuple[Value, dict[str, Value], dict[str, Family], dict[str, float]]:
    positional: list[str] = []
    families: dict[str, Family] = {}
    initial: dict[str, float] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.default is not parameter.empty:
                record.fail(
                    f"family {parameter.name} has a default; parameters start from the layer's "
                    "init=",
                    record.declared(parameter.name),
                )
            families[parameter.name] = Family(record, parameter.name)
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            record.fail(
                "a cell names its states and families; * and ** arguments hide them",
                record.declared(parameter.name),
            )
        else:
            positional.append(parameter.name)
            default = 0.0 if parameter.default is parameter.empty else parameter.default
            if isinstance(default, bool) or not isinstance(default, (int, float)):
                record.fail(
                    f"the initial value of {parameter.name} is a number, not {default!r}",
                    record.declared(parameter.name),
                )
            initial[parameter.name] = float(default)
    if len(positional) < 2:
        record.fail(
            "a cell takes the input and at least one state, as in def cell(x, h, *, W, R, b)",
            record.declared(),
        )
    x_name, *state_names = positional
    with record.at(record.declared()):
        x = record.node("input", (), {}, record.widths.new("input"))
        states = {
            s: record.node("state", (), {"name": s}, record.widths.new()) for s in state_names
        }
    del initial[x_name]
    return x, states, families, initial


def _call(
    record: Trace,
    function: Callable[..., Any],
    arguments: Sequence[Value],
    families: Mapping[str, Family],
) -> Any:
    try:
        return function(*arguments, **families)
    except CellError:
        raise
    except Exception as error:
        lines = [
            frame.f_lineno
            for frame, _ in traceback.walk_tb(error.__traceback__)
            if frame.f_code is record.code
        ]
        where = record.where(lines[-1] if lines else None)
        if isinstance(error, TypeError):
            where += ", which may use the cell's arguments, numbers and headgate's own functions"
        raise CellError(f"{where}: {type(error).__name__}: {error}") from error


@contextmanager
def _locals_at_return(record: Trace) -> Iterator[dict[str, Any]]:
    """Collects the local variables that the function has when it returns."""
    found: dict[str, Any] = {}
    previous = sys.getprofile()

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if event == "return" and frame.f_code is record.code:
            found.clear()
            found.update(frame.f_locals)
            record.ends_at(frame.f_lineno)

    sys.setprofile(watch)
    try:
        yield found
    finally:
        sys.setprofile(previous)


def _next_values(record: Trace, returned: Any, states: Mapping[str, Value]) -> dict[str, Value]:
    last = record.here()
    values = tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)
    if returned is None or len(values) != len(states):
        count = 0 if returned is None else len(values)
        record.fail(
            f"the cell returns {count} value{'s' * (count != 1)} and has {len(states)} "
            f"state{'s' * (len(states) != 1)} ({', '.join(states)}); return the next value of "
            "each, in their order",
            last,
        )
    nexts: dict[str, Value] = {}
    for name, value in zip(states, values, strict=True):
        if not isinstance(value, Operand):
            record.fail(
                f"the next value of {name} is a {type(value).__name__}, not a value of the "
                "equations",
                last,
            )
        with record.at(last):
            nexts[name] = as_value(record, value)
            record.not_a_condition(nexts[name].index)
            before, after = (record.nodes[v.index].width for v in (states[name], nexts[name]))
            if before is None or after is None:
                record.fail(f"the next value of {name} is one number, not a vector", last)
            record.widths.unify(before, after, last)
    return nexts


def _named_values(local: Mapping[str, Any], taken: set[str]) -> dict[str, int]:
    named: dict[str, int] = {}
    for name, value in local.items():
        if isinstance(value, Bundle):
            value = value.single()
        if name in taken or not isinstance(value, Value):
            continue
        if value.trace.nodes[value.index].op not in (*LEAVES, *COMPARISONS):
            named[name] = value.index
    return named


__all__ = ["SCALAR", "Block", "Blocks", "Trace", "trace"]
