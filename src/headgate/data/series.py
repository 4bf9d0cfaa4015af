"""A series on a regular grid, what is known beside its values, and several series together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from .calendar import Frequency
from .errors import DataError


@dataclass(frozen=True)
class Covariates:
    """What is known beside the values of a series, by name.

    `known`: (T + A,) numbers that are known ahead of time, A ≥ 0 steps beyond the last value.
    `past`: (T,) numbers that are seen no earlier than the values. `static`: a number or a category
    of the whole series. NaN where a number is missing.
    """

    known: Mapping[str, np.ndarray] = field(default_factory=dict)
    past: Mapping[str, np.ndarray] = field(default_factory=dict)
    static: Mapping[str, float | str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.known or self.past or self.static)

    def __getitem__(self, part: slice) -> Covariates:
        """Of some steps of the series; what is known ahead of them stays."""
        return Covariates(
            {name: values[part.start :] for name, values in self.known.items()},
            {name: values[part] for name, values in self.past.items()},
            self.static,
        )


@dataclass(frozen=True)
class Series:
    """Values at evenly spaced times.

    `values` is float64 (T,), NaN where a value is missing; `time` is (T,), datetime64[s] or int64
    row numbers; `notes` say what was guessed while reading; `id` says which series of a panel it
    is.
    """

    values: np.ndarray
    time: np.ndarray
    frequency: Frequency = field(default_factory=Frequency)
    name: str = "value"
    time_name: str = "step"
    notes: tuple[str, ...] = field(default=(), compare=False)
    id: str = ""
    covariates: Covariates = field(default_factory=Covariates)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, part: slice) -> Series:
        first, last, step = part.indices(len(self))
        if step != 1:
            raise ValueError("Series: a part keeps every step; leave the slice's step out")
        part = slice(first, max(first, last))
        return replace(
            self,
            values=self.values[part],
            time=self.time[part],
            covariates=self.covariates[part],
        )

    @property
    def missing(self) -> int:
        """How many values are missing."""
        return int(np.isnan(self.values).sum())

    def future(self, steps: int) -> np.ndarray:
        """The times of the next `steps` values."""
        return self.frequency.future(self.time[-1], steps)


@dataclass(frozen=True)
class Panel:
    """Several series of one frequency, each with an id of its own, and with the same covariates.

    Raises DataError where they do not fit together.
    """

    series: tuple[Series, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not self.series:
            raise DataError("a panel needs at least one series")
        first, seen = self.series[0], set()
        for each in self.series:
            if each.id in seen:
                raise DataError(f"two series are called '{each.id}'; give each its own id")
            seen.add(each.id)
            if each.frequency != first.frequency:
                raise DataError(
                    f"series '{each.id}' is {each.frequency}, '{first.id}' {first.frequency}; "
                    "resample them to one step"
                )
            for kind in ("known", "past", "static"):
                names = [list(getattr(s.covariates, kind)) for s in (first, each)]
                if names[0] != names[1]:
                    raise DataError(
                        f"series '{each.id}' has the {kind} covariates {names[1]}, "
                        f"'{first.id}' {names[0]}; give all series the same"
                    )

    def __len__(self) -> int:
        return len(self.series)

    def __iter__(self) -> Iterator[Series]:
        return iter(self.series)

    def __getitem__(self, id: str) -> Series:
        for each in self.series:
            if each.id == id:
                return each
        shown = ", ".join(f"'{each.id}'" for each in self.series[:5])
        more = ", …" if len(self) > 5 else ""
        raise KeyError(f"there is no series '{id}'; there are {shown}{more}")

    @property
    def frequency(self) -> Frequency:
        return self.series[0].frequency


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
