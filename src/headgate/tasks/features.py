"""What the network reads at each step: the value, and where in its season the next one stands."""

from __future__ import annotations

import numpy as np

from headgate.data import Frequency


def seasonal_features(
    times: np.ndarray, frequency: Frequency, season: int | None, harmonics: int
) -> np.ndarray:
    """(T, 2·harmonics): sin 2πkφ and cos 2πkφ for k = 1, …, harmonics; φ the phase of each time."""
    if not harmonics or season is None:
        return np.zeros((len(times), 0))
    angle = 2 * np.pi * frequency.phase(times, season)[:, None] * np.arange(1, harmonics + 1)
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def step_inputs(
    values: np.ndarray,
    times: np.ndarray,
    frequency: Frequency,
    season: int | None,
    harmonics: int,
) -> np.ndarray:
    """(T, 1 + 2·harmonics) for values (T,) in network units at `times` (T,), on their grid."""
    following = np.append(times[1:], frequency.future(times[-1], 1))
    calendar = seasonal_features(following, frequency, season, harmonics)
    return np.concatenate([values[:, None], calendar], axis=1)
