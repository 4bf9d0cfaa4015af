"""Gated recurrent networks whose cells are their textbook equations."""

from __future__ import annotations

__version__ = "0.1.0.dev0"

__all__: list[str] = []
