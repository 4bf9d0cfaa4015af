"""From values to what a network sees and back: a transform, differences, scaling.

    u(t) = (d(t) - a) / s,  d(t) = z(t) - z(t - lag),  z(t) = y(t), log y(t), log(1 + y(t)) or √y(t)

What is forecast k steps ahead at once is the difference from the last value seen in the same place
of the lag, m = ⌈k / lag⌉ lags before; errors of m steps add up like those of a random walk:

    u(t, k) = (z(t + k) - z(t + k - m·lag) - m·a) / (√m · s)

The constants a and s come from the training values alone and travel with the model as JSON.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from .errors import DataError

SCALINGS = ("standard", "minmax", "mean", "none")
TRANSFORMS: dict[str, tuple[Any, Any]] = {
    "none": (np.asarray, np.asarray),
    "log": (np.log, np.exp),
    "log1p": (np.log1p, np.expm1),
    "sqrt": (np.sqrt, lambda z: np.square(np.maximum(z, 0))),
}
"""Each with its inverse."""


@dataclass(frozen=True)
class Preprocessing:
    """What is done to the values, and, once fitted, its constants.

    `transform`: "none", "log", or for values down to zero "log1p" (log(1 + y)) or "sqrt". `lag`:
    subtract the value `lag` steps earlier; 0 for none. `scaling`: "standard" (zero mean, unit
    standard deviation), "minmax" (0 to 1), "mean" (divided by the mean absolute value, zero stays
    zero: for counts) or "none".
    """

    transform: str = "none"
    lag: int = 0
    scaling: str = "standard"
    offset: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.transform not in TRANSFORMS:
            raise ValueError(
                f"transform must be one of {', '.join(TRANSFORMS)}; got {self.transform!r}"
            )
        if self.scaling not in SCALINGS:
            raise ValueError(f"scaling must be one of {', '.join(SCALINGS)}; got {self.scaling!r}")

    def fit(self, values: np.ndarray) -> Preprocessing:
        """The same steps with `offset` and `scale` of these training values (T,)."""
        steps = self._differences(self.level(values))
        seen = steps[~np.isnan(steps)]
        if not seen.size:
            raise DataError(
                f"no two values lie {self.lag} steps apart: the series has {len(values)} values; "
                f"use a shorter difference"
            )
        if self.scaling == "none":
            return replace(self, offset=0.0, scale=1.0)
        if self.scaling == "mean":
            offset, scale = 0.0, np.abs(seen).mean()
        elif self.scaling == "standard":
            offset, scale = seen.mean(), seen.std()
        else:
            offset, scale = seen.min(), np.ptp(seen)
        tiny = 1e-12 * max(1.0, abs(float(offset)))
        return replace(self, offset=float(offset), scale=float(scale) if scale > tiny else 1.0)

    def apply(self, values: np.ndarray) -> np.ndarray:
        """(T,) values to (T - lag,) network units; NaN where either value of a difference is."""
        return (self._differences(self.level(values)) - self.offset) / self.scale

    def invert(self, steps: np.ndarray, history: np.ndarray) -> np.ndarray:
        """u(t + 1), …, u(t + K) (…, K) after `history` (its last lag values count) to values."""
        level = np.asarray(steps, np.float64) * self.scale + self.offset
        if self.lag:
            level[..., : self.lag] += self.level(history)[-self.lag :][: level.shape[-1]]
            for k in range(self.lag, level.shape[-1]):
                level[..., k] += level[..., k - self.lag]
        return self.undo(level)

    def invert_ahead(self, ahead: np.ndarray, history: np.ndarray) -> np.ndarray:
        """u(t, 1), …, u(t, K) (…, K) after `history` (its last lag values count) to values."""
        times, back = self.ahead(ahead.shape[-1])
        level = ahead * np.sqrt(times) * self.scale + times * self.offset
        if self.lag:
            level = level + self.level(history)[-self.lag :][back]
        return self.undo(level)

    def ahead(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """m (K,) for each step ahead, and the place (K,) among the last lag values it counts from.

        Without a difference m is 1 everywhere.
        """
        lag = max(self.lag, 1)
        k = np.arange(steps)
        return (k // lag + 1 if self.lag else np.ones(steps, np.int64)), k % lag

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Preprocessing:
        return cls(**stored)

    def level(self, values: np.ndarray) -> np.ndarray:
        """z(t), of the values' shape. Raises DataError where there is none."""
        values = np.asarray(values, np.float64)
        bad = np.flatnonzero(values <= 0 if self.transform == "log" else values < 0)
        if bad.size and self.transform != "none":
            wanted = "above zero" if self.transform == "log" else "of at least zero"
            raise DataError(
                f"transform='{self.transform}' needs values {wanted}; row {bad[0] + 1} is "
                f"{values[bad[0]]:g}: use transform='none'"
            )
        return TRANSFORMS[self.transform][0](values)

    def undo(self, level: np.ndarray) -> np.ndarray:
        """The values of z."""
        return TRANSFORMS[self.transform][1](level)

    def _differences(self, level: np.ndarray) -> np.ndarray:
        return level[self.lag :] - level[: -self.lag] if self.lag else level


def fill_missing(values: np.ndarray) -> np.ndarray:
    """(T,) with NaN on the straight line between neighbours; at either end, the nearest value."""
    seen = ~np.isnan(values)
    steps = np.arange(len(values))
    return np.where(seen, values, np.interp(steps, steps[seen], values[seen]))


def fill_forward(values: np.ndarray, first: float = 0.0) -> np.ndarray:
    """(T,) with NaN replaced by the last number before it, or by `first` where there is none."""
    place = np.maximum.accumulate(np.where(np.isnan(values), 0, np.arange(len(values))))
    filled = values[place]
    return np.where(np.isnan(filled), first, filled)


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
