"""Where a time stands in its season and in the calendar, as sines and cosines."""

from __future__ import annotations

import numpy as np

from headgate.data import Frequency

CALENDAR = ("hour", "weekday", "day", "year")
"""hour of the day, day of the week, day of the month, and place in the year."""


def seasonal_features(
    times: np.ndarray, frequency: Frequency, season: int | None, harmonics: int
) -> np.ndarray:
    """(T, 2·harmonics): sin 2πkφ and cos 2πkφ for k = 1, …, harmonics; φ the phase of each time."""
    if not harmonics or season is None:
        return np.zeros((len(times), 0))
    angle = 2 * np.pi * frequency.phase(times, season)[:, None] * np.arange(1, harmonics + 1)
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def calendar_features(times: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """(T, 4·names): two sines and two cosines of each; `times` are datetime64[s] where any."""
    columns: list[np.ndarray] = []
    for name in names:
        angle = 2 * np.pi * _phase(times, name)[:, None] * np.arange(1, 3)
        columns += [np.sin(angle), np.cos(angle)]
    return np.concatenate(columns, axis=1) if columns else np.zeros((len(times), 0))


def _phase(times: np.ndarray, name: str) -> np.ndarray:
    seconds = times.astype("datetime64[s]").astype(np.int64)
    if name == "hour":
        return seconds % 86400 / 86400
    if name == "weekday":  # 1970 began on a Thursday
        return (seconds // 86400 + 3) % 7 / 7
    unit = {"day": "M", "year": "Y"}[name]
    start = times.astype(f"datetime64[{unit}]")
    first, after = (t.astype("datetime64[s]").astype(np.int64) for t in (start, start + 1))
    return (seconds - first) / (after - first)
