"""One series on a regular grid."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .calendar import Frequency
from .errors import DataError


@dataclass(frozen=True)
class Series:
    """Values at evenly spaced times.

    `values` is float64 (T,), NaN where a value is missing; `time` is (T,), datetime64[s] or int64
    row numbers; `notes` say what was guessed while reading.
    """

    values: np.ndarray
    time: np.ndarray
    frequency: Frequency = field(default_factory=Frequency)
    name: str = "value"
    time_name: str = "step"
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, part: slice) -> Series:
        return Series(
            self.values[part],
            self.time[part],
            self.frequency,
            self.name,
            self.time_name,
            self.notes,
        )

    @property
    def missing(self) -> int:
        """How many values are missing."""
        return int(np.isnan(self.values).sum())

    def future(self, steps: int) -> np.ndarray:
        """The times of the next `steps` values."""
        return self.frequency.future(self.time[-1], steps)


def check_values(values: np.ndarray, name: str) -> None:
    """Raise DataError where there is no value at all, or an infinite one."""
    if not len(values) or np.isnan(values).all():
        raise DataError(f"column '{name}' holds no values")
    endless = np.flatnonzero(np.isinf(values))
    if endless.size:
        raise DataError(
            f"column '{name}', row {endless[0] + 1}: the value is infinite; "
            f"leave the cell empty if it is missing"
        )
