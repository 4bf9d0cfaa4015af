"""A page of its own with a slider over time: what every gate of a cell does at each step."""

from __future__ import annotations

from .page import steps_page

__all__ = ["steps_page"]
