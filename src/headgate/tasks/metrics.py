"""Measures of a forecast, and the simple forecasts beside it. Missing actual values do not count.

Actual values are missing where they are NaN. A measure of nothing is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def measures(actual: np.ndarray, forecast: np.ndarray, scale: float) -> dict[str, float]:
    """MAE and RMSE in the series' unit, MAPE and sMAPE in per cent, MASE in units of `scale`.

    MAPE leaves out actual values of zero; a measure of nothing is NaN. MASE after Hyndman & Koehler
    (2006): `scale` is the mean absolute seasonal difference of the training values. sMAPE is the
    mean of 200·|ŷ − y|/(|y| + |ŷ|), as in M4 (Makridakis, Spiliotis & Assimakopoulos 2020), from 0
    to 200; it is 0 where both are zero.
    """
    seen = ~np.isnan(actual)
    error = np.abs(forecast[seen] - actual[seen])
    divisor = np.abs(actual[seen])
    share = error[divisor > 0] / divisor[divisor > 0]
    both = divisor + np.abs(forecast[seen])
    symmetric = 200 * error / np.where(both == 0, 1, both)
    mae = float(error.mean()) if error.size else np.nan
    return {
        "mae": mae,
        "rmse": float(np.sqrt((error**2).mean())) if error.size else np.nan,
        "mape": 100 * float(share.mean()) if share.size else np.nan,
        "smape": float(symmetric.mean()) if error.size else np.nan,
        "mase": mae / scale if scale > 0 else np.nan,
    }


def by_step(actual: np.ndarray, forecast: np.ndarray, scale: float) -> list[dict[str, float]]:
    """The `measures` of each of K steps over O origins: actual and forecast (O, K).

    One row a step: its number, from 1, under "step", and the measures.
    """
    actual = _of_shape("by_step", actual, forecast)
    if actual.ndim != 2:
        raise ValueError(f"by_step: expected arrays (origins, steps), got {actual.shape}")
    forecast = np.asarray(forecast, dtype=np.float64)
    return [
        {"step": step + 1, **measures(actual[:, step], forecast[:, step], scale)}
        for step in range(actual.shape[1])
    ]


def coverage(actual: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """The share, from 0 to 1, of the actual values in lower ≤ y ≤ upper, all of one shape."""
    actual = _of_shape("coverage", actual, lower, upper)
    seen = ~np.isnan(actual)
    inside = (lower <= actual) & (actual <= upper)
    return float(inside[seen].mean()) if seen.any() else np.nan


def pinball(
    actual: np.ndarray, quantiles: np.ndarray, levels: Sequence[float] | np.ndarray
) -> float:
    """max(q·e, (q − 1)·e) with e = y − ŷ_q, averaged over the values and the levels q.

    `actual` (…), `quantiles` (…, Q) at `levels` (Q,). After Koenker & Bassett (1978).
    """
    actual, quantiles, q = (np.asarray(a, dtype=np.float64) for a in (actual, quantiles, levels))
    if q.ndim != 1 or quantiles.shape != (*actual.shape, q.size):
        raise ValueError(
            f"pinball: expected quantiles {(*actual.shape, q.size)}, the actual values' shape and "
            f"one for each of {q.size} levels; got {quantiles.shape}"
        )
    seen = ~np.isnan(actual)
    error = actual[seen, np.newaxis] - quantiles[seen]
    return float(np.maximum(q * error, (q - 1) * error).mean()) if error.size else np.nan


def crps(actual: np.ndarray, quantiles: np.ndarray, levels: Sequence[float] | np.ndarray) -> float:
    """The continuous ranked probability score, approximately: twice the mean pinball loss.

        CRPS(F, y) = ∫ (F(x) − 1{y ≤ x})² dx = 2·∫ pinball_q(y, F⁻¹(q)) dq, q from 0 to 1

    The mean over Q levels stands for the integral, so it is a sum of Q rectangles: right in the
    limit of many levels (i − ½)/Q. Few levels near the middle, such as 0.1, 0.5 and 0.9, give the
    score of those quantiles, which compares models but is not the CRPS itself. Shapes as in
    `pinball`; Gneiting & Raftery (2007).
    """
    return 2 * pinball(actual, quantiles, levels)


def crps_of_samples(actual: np.ndarray, samples: np.ndarray) -> float:
    """The continuous ranked probability score of S samples, exactly that of their distribution.

        CRPS = mean |xᵢ − y| − ½·mean |xᵢ − xⱼ| over all i and j, averaged over the actual values

    `actual` (…), `samples` (S, …); Gneiting & Raftery (2007), eq. 21. For the distribution that
    the samples are from it is too large, by E|X − X′|/2S on average.
    """
    actual, samples = np.asarray(actual, dtype=np.float64), np.asarray(samples, dtype=np.float64)
    if samples.shape[1:] != actual.shape or not len(samples):
        raise ValueError(
            f"crps_of_samples: expected samples {('S', *actual.shape)}, at least one for "
            f"each actual value; got {samples.shape}"
        )
    seen = ~np.isnan(actual)
    if not seen.any():
        return np.nan
    x = np.sort(samples[:, seen], axis=0)
    count = len(x)
    # of sorted values, x(i) is the larger one of i − 1 pairs and the smaller one of S − i
    weights = 2 * np.arange(1, count + 1) - count - 1
    spread = weights @ x / count**2
    return float((np.abs(x - actual[seen]).mean(axis=0) - spread).mean())


def _of_shape(operation: str, actual: np.ndarray, *others: np.ndarray) -> np.ndarray:
    actual = np.asarray(actual, dtype=np.float64)
    for other in others:
        if np.shape(other) != actual.shape:
            raise ValueError(
                f"{operation}: expected arrays of the actual values' shape {actual.shape}, got one "
                f"of {np.shape(other)}"
            )
    return actual


def seasonal_scale(values: np.ndarray, season: int | None) -> float:
    """Mean absolute difference of values a season apart (of neighbours without a season)."""
    lag = season if season and season < len(values) else 1
    differences = np.abs(values[lag:] - values[:-lag])
    seen = differences[~np.isnan(differences)]
    return float(seen.mean()) if seen.size else np.nan


def naive(history: np.ndarray, horizon: int, season: int | None) -> np.ndarray:
    """The last `season` values of `history` over and over; the last value where it is None."""
    last = history[-(season or 1) :]
    return np.tile(last, -(-horizon // len(last)))[:horizon]


def drift(history: np.ndarray, horizon: int) -> np.ndarray:
    """The line through the first and the last value of `history` (T,), continued (horizon,).

    Missing values are ignored, also at the ends: the line then passes through the first and the
    last one seen, and is continued from the end of the history. One value gives a flat line, none
    NaN. Hyndman & Athanasopoulos (2021), §5.2.
    """
    history = np.asarray(history, dtype=np.float64)
    seen = np.flatnonzero(~np.isnan(history))
    if not seen.size:
        return np.full(horizon, np.nan)
    first, last = seen[0], seen[-1]
    slope = (history[last] - history[first]) / max(last - first, 1)
    return history[last] + slope * (len(history) - 1 - last + np.arange(1, horizon + 1))
