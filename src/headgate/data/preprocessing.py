"""From values to what a network sees and back: logarithm, differences, scaling.

    u(t) = (d(t) - a) / s,  d(t) = z(t) - z(t - lag),  z(t) = y(t) or log y(t)

The constants a and s come from the training values alone and travel with the model as JSON.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from .errors import DataError

SCALINGS = ("standard", "minmax", "none")


@dataclass(frozen=True)
class Preprocessing:
    """What is done to the values, and, once fitted, its constants.

    `log`: take logarithms. `lag`: subtract the value `lag` steps earlier; 0 for none. `scaling`:
    "standard" (zero mean, unit standard deviation), "minmax" (0 to 1) or "none".
    """

    log: bool = False
    lag: int = 0
    scaling: str = "standard"
    offset: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.scaling not in SCALINGS:
            raise ValueError(f"scaling must be one of {', '.join(SCALINGS)}; got {self.scaling!r}")

    def fit(self, values: np.ndarray) -> Preprocessing:
        """The same steps with `offset` and `scale` of these training values (T,)."""
        steps = self._differences(self._level(values))
        seen = steps[~np.isnan(steps)]
        if not seen.size:
            raise DataError(
                f"no two values lie {self.lag} steps apart: the series has {len(values)} values; "
                f"use a shorter difference"
            )
        if self.scaling == "none":
            return replace(self, offset=0.0, scale=1.0)
        if self.scaling == "standard":
            offset, scale = seen.mean(), seen.std()
        else:
            offset, scale = seen.min(), np.ptp(seen)
        tiny = 1e-12 * max(1.0, abs(float(offset)))
        return replace(self, offset=float(offset), scale=float(scale) if scale > tiny else 1.0)

    def apply(self, values: np.ndarray) -> np.ndarray:
        """(T,) values to (T - lag,) network units; NaN where either value of a difference is."""
        return (self._differences(self._level(values)) - self.offset) / self.scale

    def invert(self, ahead: np.ndarray, history: np.ndarray) -> np.ndarray:
        """(K,) network units that follow `history` (its last lag values count) to (K,) values."""
        steps = ahead * self.scale + self.offset
        level = list(self._level(history)[-self.lag :]) if self.lag else []
        for position, step in enumerate(steps):
            level.append(step + level[position] if self.lag else step)
        result = np.array(level[self.lag :], dtype=np.float64)
        return np.exp(result) if self.log else result

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Preprocessing:
        return cls(**stored)

    def _level(self, values: np.ndarray) -> np.ndarray:
        if not self.log:
            return np.asarray(values, np.float64)
        bad = np.flatnonzero(values <= 0)
        if bad.size:
            raise DataError(
                f"the logarithm needs values above zero; row {bad[0] + 1} is {values[bad[0]]:g}: "
                f"use transform='none'"
            )
        return np.log(values)

    def _differences(self, level: np.ndarray) -> np.ndarray:
        return level[self.lag :] - level[: -self.lag] if self.lag else level


def fill_missing(values: np.ndarray) -> np.ndarray:
    """(T,) with NaN on the straight line between neighbours; at either end, the nearest value."""
    seen = ~np.isnan(values)
    steps = np.arange(len(values))
    return np.where(seen, values, np.interp(steps, steps[seen], values[seen]))


def spread_follows_level(values: np.ndarray, season: int) -> bool:
    """Whether seasons at a higher level swing more about their own trend: a logarithm evens that.

    Needs four whole seasons of positive values, the highest level half as high again as the lowest.
    """
    seasons = fill_missing(values)[len(values) % season :].reshape(-1, season)
    if len(seasons) < 4 or np.nanmin(values) <= 0:
        return False
    level = seasons.mean(1)
    line = np.polynomial.polynomial.Polynomial
    steps = np.arange(season)
    spread = np.array([np.std(row - line.fit(steps, row, 1)(steps)) for row in seasons])
    if level.max() < 1.5 * level.min() or np.ptp(spread) < 1e-9 * level.max():
        return False
    return bool(np.corrcoef(level, spread)[0, 1] > 0.7)
