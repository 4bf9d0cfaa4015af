"""Errors about equations and the Programs made from them."""

from __future__ import annotations


class ProgramError(ValueError):
    """A Program cannot be built, read, or given the sizes that were asked for."""


class CellError(ProgramError):
    """The equations of a cell are not a cell; the message names the line at fault."""
