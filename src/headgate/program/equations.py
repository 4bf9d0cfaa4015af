"""``@cell``: a function that states a cell's equations, and the Program traced from it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, overload

from headgate.program.program import Program
from headgate.program.trace import trace


class Cell:
    """A recurrent cell: its equations, traced once.

    Attributes:
        name: the function's name.
        doc: its docstring.
        program: the equations as a Program.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        widths: Mapping[str, str] | None = None,
    ) -> None:
        self.program: Program = trace(function, name=name, widths=widths or {})
        self.name = self.program.name
        self.doc = inspect.cleandoc(function.__doc__ or "")
        self.__doc__ = function.__doc__
        self.__name__ = self.name
        self.__module__ = function.__module__

    def latex(self) -> str:
        """The equations as LaTeX, one aligned line for each named value."""
        from headgate.program.show import latex

        return latex(self.program)

    def diagram(self) -> str:
        """One step as a picture, an SVG document; notebooks show it of themselves."""
        return self.program.diagram()

    def _repr_svg_(self) -> str:
        return self.diagram()

    def __repr__(self) -> str:
        states = ", ".join(state.name for state in self.program.states)
        return f"<cell {self.name}: states {states}; families {', '.join(self.program.families)}>"

    def __reduce__(self) -> Any:
        return (_rebuild, (self.program, self.doc))


def _rebuild(program: Program, doc: str) -> Cell:
    cell_ = Cell.__new__(Cell)
    cell_.program, cell_.name, cell_.doc = program, program.name, doc
    cell_.__doc__ = doc
    return cell_


@overload
def cell(
    function: Callable[..., Any],
    /,
    *,
    name: str | None = None,
    widths: Mapping[str, str] | None = None,
) -> Cell: ...
@overload
def cell(
    *, name: str | None = None, widths: Mapping[str, str] | None = None
) -> Callable[[Callable[..., Any]], Cell]: ...
def cell(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    widths: Mapping[str, str] | None = None,
) -> Any:
    """Make a recurrent cell of a function that states its equations for one step.

    The first argument is the input; the other positional arguments are the states, whose next
    values are returned in the same order, the first being the output. A state's default is its
    initial value. Keyword-only arguments are families of parameters: ``W.i @ x`` uses the matrix
    block i of family W, ``b.i`` a vector block. Shapes follow from use.

    Args:
        name: the cell's name, if not the function's.
        widths: names for widths that are neither the input's nor the hidden size, keyed by a
            value's or family's name: ``@cell(widths={"h": "projection"})``. Their numbers are
            given by ``sizes=`` where the cell is used.

    Raises:
        CellError: the function is not a cell; the message names the line at fault.

    Example:
        >>> @cell
        ... def rnn(x, h, *, W, R, b):
        ...     h = tanh(W @ x + R @ h + b)
        ...     return h
    """
    if function is None:
        return lambda f: Cell(f, name=name, widths=widths)
    return Cell(function, name=name, widths=widths)
