"""Measures of a forecast. Missing actual values do not count."""

from __future__ import annotations

import numpy as np


def measures(actual: np.ndarray, forecast: np.ndarray, scale: float) -> dict[str, float]:
    """MAE and RMSE in the series' unit, MAPE in per cent, MASE in units of `scale`.

    MAPE leaves out actual values of zero; a measure of nothing is NaN. MASE after Hyndman & Koehler
    (2006): `scale` is the mean absolute seasonal difference of the training values.
    """
    seen = ~np.isnan(actual)
    error = np.abs(forecast[seen] - actual[seen])
    divisor = np.abs(actual[seen])
    share = error[divisor > 0] / divisor[divisor > 0]
    mae = float(error.mean()) if error.size else np.nan
    return {
        "mae": mae,
        "rmse": float(np.sqrt((error**2).mean())) if error.size else np.nan,
        "mape": 100 * float(share.mean()) if share.size else np.nan,
        "mase": mae / scale if scale > 0 else np.nan,
    }


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
