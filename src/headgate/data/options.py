"""What a reader may be told about a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from .calendar import Frequency
from .errors import DataError

AGGREGATES = ("mean", "sum", "last", "first", "min", "max")
FILLS = ("linear", "forward", "zero", "mask")
UNITS = {
    "s": ("second", 1),
    "min": ("minute", 1),
    "h": ("hour", 1),
    "H": ("hour", 1),
    "D": ("day", 1),
    "W": ("week", 1),
    "M": ("month", 1),
    "MS": ("month", 1),
    "ME": ("month", 1),
    "QS": ("month", 3),
    "YS": ("month", 12),
}


@dataclass(frozen=True)
class Options:
    """The options of `read_panel`; raises DataError where one is unknown or needs another.

    Several names become a tuple: a `target` that is no tuple is one name, or "*".
    """

    time: str | None = None
    target: str | Sequence[str] | None = None
    id: str | None = None
    known: Sequence[str] = ()
    past: Sequence[str] = ()
    static: Sequence[str] = ()
    day_first: bool | None = None
    decimal: str | None = None
    timezone: str | None = None
    resample: str | None = None
    aggregate: str | None = None
    fill: str | None = None

    def __post_init__(self) -> None:
        for name in ("known", "past", "static", "target"):
            given = getattr(self, name)
            if given is not None and not isinstance(given, str):
                object.__setattr__(self, name, tuple(given))
            elif name != "target":
                object.__setattr__(self, name, (given,))
        for name, choices in (
            ("decimal", (".", ",")),
            ("aggregate", AGGREGATES),
            ("fill", FILLS),
        ):
            given = getattr(self, name)
            if given is not None and given not in choices:
                listed = ", ".join(f"'{choice}'" for choice in choices)
                raise DataError(f"{name}={given!r} is unknown; choose one of {listed}")
        if self.aggregate and not self.resample:
            raise DataError(
                "aggregate= combines values within a step; say the step too: resample='auto'"
            )
        if self.resample and self.resample != "auto":
            step_of(self.resample)

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns that are named as targets."""
        if isinstance(self.target, str):
            return () if self.target == "*" else (self.target,)
        return tuple(self.target or ())

    @property
    def covariates(self) -> set[str]:
        """The columns that are named as covariates."""
        return {*self.known, *self.past, *self.static}

    def refuse_beyond(self, allowed: Iterable[str], what: str) -> None:
        """Raise DataError where an option is given that means nothing for `what`."""
        for field in fields(self):
            if getattr(self, field.name) != field.default and field.name not in allowed:
                raise DataError(f"{field.name}= says something about a table; this is {what}")


def step_of(rule: str) -> Frequency:
    """The step that "15min", "1h", "D", "W", "MS", … name; raises DataError at any other text."""
    match = re.fullmatch(r"(\d*) *([A-Za-z]+)", rule)
    if not match or match[2] not in UNITS or match[1].strip("0") == "" != match[1]:
        raise DataError(
            f"resample={rule!r} names no step; write 'auto', or a number and one of "
            f"{', '.join(UNITS)}, as in '15min'"
        )
    unit, count = UNITS[match[2]]
    return Frequency(unit, count * int(match[1] or 1))
