"""What the network reads at each step of a series.

    [u(t), whether u(t) was seen, f(t + 1), past covariates(t), static covariates]
    f(t) = [season and calendar at t, covariates known ahead at t, u(t - l) for each lag l]

f(t + 1), …, f(t + K) are known when t has been read; they also go to a head that forecasts K steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from headgate.data import DataError, Frequency, Panel, Preprocessing, Series, fill_forward

from .calendar import calendar_features, seasonal_features

Scale = tuple[float, float]
"""Offset and divisor of a number."""


@dataclass(frozen=True)
class Encoded:
    """A series as the network sees it.

    `inputs` (T, I); `level` (T + lag,) the values or their logarithms, NaN where missing, which
    targets are made of; `ahead` (T + A, F) with A steps more than the series.
    """

    inputs: np.ndarray
    level: np.ndarray
    ahead: np.ndarray
    preprocessing: Preprocessing


@dataclass(frozen=True)
class Encoder:
    """How series become inputs, with the constants that the training series gave.

    Static categories are written as one 1 among zeros; one that training has not seen is all zeros.
    """

    frequency: Frequency
    season: int | None
    harmonics: int
    calendar: tuple[str, ...] = ()
    lags: tuple[int, ...] = ()
    flags: bool = False
    known: Mapping[str, Scale] = field(default_factory=dict)
    past: Mapping[str, Scale] = field(default_factory=dict)
    numbers: Mapping[str, Scale] = field(default_factory=dict)
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def fit(self, panel: Panel) -> Encoder:
        """The same with constants from the covariates of these series."""
        first = panel.series[0].covariates
        numbers = {k: [s.covariates.static[k] for s in panel] for k in first.static}
        texts = {k: v for k, v in numbers.items() if any(isinstance(each, str) for each in v)}
        fields: dict[str, Any] = {**self.__dict__}
        fields["flags"] = any(s.missing for s in panel)
        fields["known"] = {
            k: _scale(s.covariates.known[k][: len(s)] for s in panel) for k in first.known
        }
        fields["past"] = {k: _scale(s.covariates.past[k] for s in panel) for k in first.past}
        fields["numbers"] = {k: _scale([v]) for k, v in numbers.items() if k not in texts}
        fields["categories"] = {k: tuple(sorted({str(e) for e in v})) for k, v in texts.items()}
        return Encoder(**fields)

    @property
    def local(self) -> bool:
        """Whether steps ahead bring news, and not the calendar alone."""
        return bool(self.known or self.lags)

    @property
    def memory(self) -> int:
        """How many values in network units the lags look back."""
        return max(self.lags, default=0)

    @property
    def names(self) -> tuple[str, ...]:
        """What the columns of the inputs (T, I) are called; f(t + 1) by what it holds."""
        names = ["value", *["seen"] * self.flags]
        for what in ("sin", "cos"):
            names += [f"season {what} {k + 1}" for k in range(self.harmonics)]
        for place in self.calendar:
            names += [f"{place} {what} {k}" for what in ("sin", "cos") for k in (1, 2)]
        names += [*self.known, *(f"lag {lag}" for lag in self.lags), *self.past, *self.numbers]
        return (*names, *(f"{name} = {c}" for name, cs in self.categories.items() for c in cs))

    def encode(
        self, series: Series, preprocessing: Preprocessing, more: int, known: int | None = None
    ) -> Encoded:
        """The series after the first lag values, with `more` steps ahead of it.

        Raises DataError where covariates are absent, or end before `known` of those steps (None:
        all of them).
        """
        self.check(series, more if known is None else known)
        lag = preprocessing.lag
        u = preprocessing.apply(series.values)
        filled = fill_forward(u)
        times = np.append(series.time[lag:], series.future(more))
        ahead = np.concatenate(
            [
                self.calendar_at(times),
                self.known_at(series, lag, len(times)),
                self.lagged(filled, len(times)),
            ],
            axis=1,
        )
        columns = [filled[:, None]]
        if self.flags:
            columns.append(~np.isnan(u)[:, None])
        columns += [ahead[1 : 1 + len(u)], self.seen_at(series, lag), self.static(series, len(u))]
        return Encoded(
            np.concatenate(columns, axis=1).astype(np.float32),
            preprocessing.level(series.values),
            ahead.astype(np.float32),
            preprocessing,
        )

    def calendar_at(self, times: np.ndarray) -> np.ndarray:
        """(T, ·) of the season and the calendar."""
        season = seasonal_features(times, self.frequency, self.season, self.harmonics)
        return np.concatenate([season, calendar_features(times, self.calendar)], axis=1)

    def known_at(self, series: Series, start: int, count: int) -> np.ndarray:
        """(count, K): covariates known ahead, from step `start` on; what is missing is zero."""
        found = np.zeros((count, len(self.known)))
        for column, (name, scale) in enumerate(self.known.items()):
            values = _scaled(series.covariates.known[name][start : start + count], scale)
            found[: len(values), column] = values
        return found

    def lagged(self, filled: np.ndarray, count: int) -> np.ndarray:
        """(count, lags): u(t - l) from `filled` (T,), zero before the series and past its end."""
        found = np.zeros((count, len(self.lags)))
        for column, lag in enumerate(self.lags):
            usable = min(len(filled), count - lag)
            if usable > 0:
                found[lag : lag + usable, column] = filled[:usable]
        return found

    def seen_at(self, series: Series, start: int) -> np.ndarray:
        """(T, P): past covariates; a missing number is the last one before it."""
        columns = [
            fill_forward(_scaled(series.covariates.past[name], scale, np.nan))[start:]
            for name, scale in self.past.items()
        ]
        return np.stack(columns, 1) if columns else np.zeros((len(series) - start, 0))

    def static(self, series: Series, count: int) -> np.ndarray:
        """(T, ·): the same numbers and categories at every step."""
        given = series.covariates.static
        row: list[float] = []
        for name, scale in self.numbers.items():
            row += [float(_scaled(np.array([given[name]], np.float64), scale)[0])]
        for name, categories in self.categories.items():
            row += [float(str(given[name]) == category) for category in categories]
        return np.tile(np.array(row, np.float64), (count, 1))

    def check(self, series: Series, more: int) -> None:
        """Raise DataError where covariates are absent, or end before `more` steps ahead."""
        where, given = f"series '{series.id or series.name}'", series.covariates
        wanted = {
            "known": self.known,
            "past": self.past,
            "static": {**self.numbers, **self.categories},
        }
        for kind, names in wanted.items():
            absent = [name for name in names if name not in getattr(given, kind)]
            if absent:
                raise DataError(
                    f"{where}: the {kind} covariates {absent} are absent, which the model was "
                    "fitted with; give them"
                )
        for name in self.known:
            length = len(given.known[name])
            if length < len(series) + more:
                raise DataError(
                    f"{where}: covariate '{name}' is known for {length - len(series)} steps ahead, "
                    f"{more} are needed; add rows with the times to come and an empty target"
                )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Encoder:
        fields = dict(stored)
        fields["frequency"] = Frequency(**fields["frequency"])
        for name in ("calendar", "lags"):
            fields[name] = tuple(fields[name])
        for name in ("known", "past", "numbers", "categories"):
            fields[name] = {key: tuple(value) for key, value in fields[name].items()}
        return cls(**fields)


def _scale(parts: Iterable[Any]) -> Scale:
    values = np.concatenate([np.asarray(part, np.float64).reshape(-1) for part in parts])
    seen = values[~np.isnan(values)]
    if not seen.size:
        return 0.0, 1.0
    spread = float(seen.std())
    return float(seen.mean()), spread if spread > 1e-12 * max(1.0, abs(seen.mean())) else 1.0


def _scaled(values: np.ndarray, scale: Scale, missing: float = 0.0) -> np.ndarray:
    scaled = (values - scale[0]) / scale[1]
    return np.where(np.isnan(scaled), missing, scaled)
