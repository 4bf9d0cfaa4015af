"""Engines run Plans. ``choose`` says which one runs and why."""

from headgate.engines.cpu import Parameters
from headgate.engines.dispatch import (
    ENGINES,
    Choice,
    Direction,
    Result,
    choose,
    run,
    run_chain,
    run_directions,
)
from headgate.engines.random import MaskKey
from headgate.engines.repeated import Known, Place, known_for, undisturbed, worth_remembering

__all__ = [
    "ENGINES",
    "Choice",
    "Direction",
    "Known",
    "MaskKey",
    "Parameters",
    "Place",
    "Result",
    "choose",
    "known_for",
    "run",
    "run_chain",
    "run_directions",
    "undisturbed",
    "worth_remembering",
]
