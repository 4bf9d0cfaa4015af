"""What a forecaster says: values to come, with quantiles where it knows how sure it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from headgate.data import Panel, Series


@dataclass(frozen=True)
class Forecast(Series):
    """The next K values of a series.

    `values` (K,); `quantiles` (K,) by their level, rising with it; `paths` (S, K) where paths were
    sampled.
    """

    quantiles: Mapping[float, np.ndarray] = field(default_factory=dict)
    paths: np.ndarray | None = None

    def interval(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper end (K,) of the interval that holds a share `level` of the outcomes.

        Raises KeyError where the forecast was made without it.
        """
        try:
            return tuple(self.quantiles[q] for q in ends(level))  # type: ignore[return-value]
        except KeyError:
            raise KeyError(
                f"no interval of {level:g}; predict with intervals=({level:g},)"
            ) from None


@dataclass(frozen=True)
class Forecasts(Panel):
    """A `Forecast` for each series of a panel, by its id."""

    series: tuple[Forecast, ...]

    def __iter__(self) -> Iterator[Forecast]:
        return iter(self.series)

    def __getitem__(self, id: str) -> Forecast:
        found = super().__getitem__(id)
        assert isinstance(found, Forecast)
        return found


def ends(level: float) -> tuple[float, float]:
    """The quantiles between which a share `level` lies."""
    if not 0 < level < 1:
        raise ValueError(f"intervals: expected shares between 0 and 1, such as 0.8; got {level!r}")
    return round((1 - level) / 2, 6), round((1 + level) / 2, 6)


CLOCK = "%Y-%m-%d %H:%M:%S"
"""How times are written where they are not dates alone."""


def time_column(times: np.ndarray) -> pl.Series:
    """(T,) as dates where the clock always says midnight, else times; row numbers as they are."""
    if times.dtype.kind != "M":
        return pl.Series(times)
    column = pl.Series(times.astype("datetime64[ms]"))
    return column.dt.date() if np.all(times == times.astype("datetime64[D]")) else column


def table(forecasts: Sequence[Any]) -> pl.DataFrame:
    """One row a series and step: id (where there are several), time, value, quantiles."""
    parts = []
    for each in forecasts:
        columns: dict[str, Any] = {"unique_id": [each.id] * len(each)} if each.id else {}
        columns |= {
            each.time_name: time_column(each.time),
            each.name if not each.id else "value": each.values,
        }
        columns |= {f"q{100 * q:g}": each.quantiles[q] for q in sorted(each.quantiles)}
        parts.append(pl.DataFrame(columns))
    return pl.concat(parts)
