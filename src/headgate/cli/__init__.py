"""The command `headgate`: one file a verb."""

from __future__ import annotations

from .main import app, main

__all__ = ["app", "main"]
