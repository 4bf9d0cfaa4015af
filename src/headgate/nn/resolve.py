"""From what a user gives as a cell to its Program."""

from __future__ import annotations

from headgate.cells import get
from headgate.program import Cell, Program


def resolve_program(cell: Cell | Program | str) -> Program:
    """The Program of a ``Cell``, of a Program itself, or of a built-in cell's name.

    Raises ValueError for an unknown name, TypeError for anything else.
    """
    if isinstance(cell, Program):
        return cell
    if isinstance(cell, Cell):
        return cell.program
    if isinstance(cell, str):
        return get(cell).program
    raise TypeError(
        f"cell: expected a Cell, a Program or a built-in's name, got {type(cell).__name__}; "
        "decorate the equations with @cell"
    )
