"""Cells as data: tracing equations into Programs, and the passes over them.

Nothing here holds a tensor or knows a framework.
"""

from headgate.program.equations import Cell, cell
from headgate.program.errors import CellError, ProgramError
from headgate.program.program import Family, Node, Program, State

__all__ = ["Cell", "CellError", "Family", "Node", "Program", "ProgramError", "State", "cell"]
