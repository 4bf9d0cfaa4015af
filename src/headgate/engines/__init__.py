"""Engines run Plans. ``choose`` says which one runs and why."""

from headgate.engines.dispatch import ENGINES, Choice, Result, choose, run
from headgate.engines.random import MaskKey

__all__ = ["ENGINES", "Choice", "MaskKey", "Result", "choose", "run"]
