"""Intervals that cover what they promise: split conformal calibration on held-back forecasts.

Nothing is assumed of the forecasts' distribution, only that the scores of the held-back origins and
of the origins to come are exchangeable. Those of one series are so only roughly: origins close to
each other share what happened, and a series that changes leaves its scores behind. Calibrate on
recent origins, and on forecasts that the model was not fitted on.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Conformal:
    """How much to widen (below 0: narrow) an interval at each horizon step.

    `level` is the share 1 − α that the intervals shall cover; `margins` one number for each of K
    steps; `scores` how many held-back scores each margin was taken from; `relative` whether the
    margins are in units of each series' scale, which `apply` then needs.
    """

    level: float
    margins: tuple[float, ...]
    scores: tuple[int, ...]
    relative: bool = False

    @property
    def enough(self) -> bool:
        """Whether there were scores enough for the level; if not, coverage is not promised."""
        return min(self.scores) >= _needed(self.level)

    @property
    def note(self) -> str | None:
        """What to tell the user where there were too few scores; None where there were enough."""
        if self.enough:
            return None
        return (
            f"{min(self.scores)} held-back scores are too few for intervals of {self.level:.0%}, "
            f"which need {_needed(self.level)}: the largest score is the margin, and covers about "
            f"{min(self.scores) / (min(self.scores) + 1):.0%}; hold back more origins"
        )

    def apply(
        self, lower: np.ndarray, upper: np.ndarray, scale: np.ndarray | float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """[lower − margin, upper + margin] of intervals (…, k) for the first k ≤ K steps.

        `scale`, for relative margins, is a number or holds one for each row (…). An interval that
        is narrowed to less than nothing becomes its middle. Raises ValueError.
        """
        lower, upper = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
        steps = lower.shape[-1] if lower.ndim else 0
        if lower.shape != upper.shape or not 1 <= steps <= len(self.margins):
            raise ValueError(
                f"Conformal.apply: expected lower and upper of one shape, its last axis at most the"
                f" {len(self.margins)} steps calibrated; got {lower.shape} and {upper.shape}"
            )
        if (scale is not None) != self.relative:
            expected, got = ("a", "none") if self.relative else ("no", "one")
            raise ValueError(
                f"Conformal.apply: expected {expected} scale, as in the calibration, got {got}; "
                "give both calibrate and apply each row's scale, or neither"
            )
        margin = np.array(self.margins[:steps]) * _column(scale)
        middle = (lower + upper) / 2
        return np.minimum(lower - margin, middle), np.maximum(upper + margin, middle)

    def around(
        self, forecast: np.ndarray, scale: np.ndarray | float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """ŷ ± margin for point forecasts (…, k), after `calibrate_point`."""
        return self.apply(forecast, forecast, scale)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: `from_dict` reads it."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Conformal:
        return cls(
            float(stored["level"]),
            tuple(float(margin) for margin in stored["margins"]),
            tuple(int(count) for count in stored["scores"]),
            bool(stored["relative"]),
        )


def calibrate(
    actual: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    level: float,
    scale: np.ndarray | float | None = None,
) -> Conformal:
    """Margins for intervals at `level` from what came after O held-back origins, all (O, K).

        score = max(lower − y, y − upper)
        margin = the ⌈(n + 1)·level⌉-th smallest of n scores: their quantile at ⌈(n + 1)·level⌉/n

    Conformalised quantile regression (Romano, Patterson & Candès 2019). A step has a margin of its
    own where n ≥ level/(1 − level): 4 scores for 80 %, 19 for 95 %. A step with fewer shares those
    of its neighbours: of steps k − w … k + w, cut at the first and the last step, with the smallest
    w that gives enough. Scores of neighbouring steps from one origin depend on each other, so
    coverage is then approximate. Where all steps together are too few, the margin is the largest
    score; `enough` is then False and `note` says so.

    Missing actual values (NaN) give no score. To pool several series, stack their origins and give
    `scale`, a positive number for each row (O,), such as the series' mean absolute difference:
    scores are divided by it. Raises ValueError.
    """
    actual, lower, upper = (np.asarray(a, dtype=np.float64) for a in (actual, lower, upper))
    _check(actual, lower, upper, level, scale)
    scores = np.maximum(lower - actual, actual - upper) / _column(scale)
    pooled = [_pool(scores, step, _needed(level)) for step in range(scores.shape[1])]
    return Conformal(
        float(level),
        tuple(_margin(near, level) for near in pooled),
        tuple(near.size for near in pooled),
        scale is not None,
    )


def calibrate_point(
    actual: np.ndarray,
    forecast: np.ndarray,
    level: float,
    scale: np.ndarray | float | None = None,
) -> Conformal:
    """Margins around point forecasts (O, K): `calibrate` with scores |y − ŷ| (Vovk et al. 2005)."""
    return calibrate(actual, forecast, forecast, level, scale)


def _rank(count: int, level: float) -> int:
    """⌈(n + 1)·level⌉; rounded first, since 100 · 0.55 is more than 55 in floating point."""
    return math.ceil(round((count + 1) * level, 9))


def _needed(level: float) -> int:
    """The least n with ⌈(n + 1)·level⌉ ≤ n."""
    return math.ceil(round(level / (1 - level), 9))


def _pool(scores: np.ndarray, step: int, needed: int) -> np.ndarray:
    """The scores of a step and of as many neighbours on each side as it takes."""
    near = np.empty(0)
    for width in range(scores.shape[1]):
        near = scores[:, max(0, step - width) : step + width + 1]
        near = near[~np.isnan(near)]
        if near.size >= needed:
            break
    return near


def _margin(scores: np.ndarray, level: float) -> float:
    return float(np.sort(scores)[min(_rank(scores.size, level), scores.size) - 1])


def _column(scale: np.ndarray | float | None) -> np.ndarray:
    return np.asarray(1.0 if scale is None else scale, dtype=np.float64)[..., np.newaxis]


def _check(
    actual: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    level: float,
    scale: np.ndarray | float | None,
) -> None:
    if not 0 < level < 1:
        raise ValueError(f"calibrate: expected a level between 0 and 1, such as 0.9; got {level}")
    if actual.ndim != 2 or not actual.shape == lower.shape == upper.shape:
        raise ValueError(
            "calibrate: expected actual and forecast of one shape (origins, steps), got "
            f"{actual.shape}, {lower.shape} and {upper.shape}"
        )
    seen = ~np.isnan(actual)
    if not seen.any():
        raise ValueError(
            "calibrate: expected actual values after the held-back origins, but all are missing; "
            "hold back origins that values follow"
        )
    if not (np.isfinite(lower[seen]).all() and np.isfinite(upper[seen]).all()):
        raise ValueError(
            "calibrate: expected finite forecasts, got NaN or infinity; mend the model"
        )
    if scale is not None:
        rows = np.shape(scale)
        if rows not in ((), actual.shape[:1]) or not (np.asarray(scale) > 0).all():
            raise ValueError(
                f"calibrate: expected a positive scale for each of {len(actual)} rows, or one "
                f"number; got {rows} of which the least is {np.min(scale)}; leave constant series "
                "out"
            )
