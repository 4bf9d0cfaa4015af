"""What "auto" means: settings of a forecaster that follow from its series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from headgate.data import DataError, Frequency, Panel, Preprocessing, Series, spread_follows_level

from .calendar import CALENDAR
from .distributions import OUTPUTS, Output, Point, Quantiles
from .encoder import Encoder

STRATEGIES = ("direct", "closed-loop")
TRANSFORMS = ("auto", "none", "log", "log1p", "sqrt")
DIFFERENCES = ("auto", "none", "first", "seasonal")
LONGEST_DIFFERENCE = 24
LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)
"""What an output of quantiles learns: the median, and intervals of 80 % and 95 %."""


@dataclass(frozen=True)
class Resolved:
    """Numbers in place of "auto" and None."""

    horizon: int
    season: int | None
    window: int
    harmonics: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def choose(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}; got {value!r}")


def whole(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}; got {value!r}")
    return value


def season_and_horizon(options: Mapping[str, Any], frequency: Frequency) -> tuple[int | None, int]:
    """The season, which the frequency suggests, and the horizon: one season, or 12."""
    season = frequency.season if options["season"] == "auto" else options["season"]
    if season is not None:
        whole("season", season, 2)
    horizon = options["horizon"]
    return season, whole("horizon", (season or 12) if horizon is None else horizon)


def resolve(
    options: Mapping[str, Any], panel: Panel
) -> tuple[Resolved, Encoder, dict[str, Preprocessing]]:
    """The settings for these series, how they are read, and the preprocessing of each, fitted.

    `options` are a forecaster's.
    """
    choose("strategy", options["strategy"], STRATEGIES)
    choose("transform", options["transform"], TRANSFORMS)
    choose("difference", options["difference"], DIFFERENCES)
    output = output_of(options)
    season, horizon = season_and_horizon(options, panel.frequency)
    steps = _preprocessing(options, panel, season, output.counts)
    preprocessing = {series.id: _fitted(steps, series) for series in panel}
    usable = max(map(len, panel)) - steps.lag
    harmonics = options["harmonics"]
    if harmonics == "auto":
        harmonics = 2 if season and steps.lag != season else 0
    if whole("harmonics", harmonics, 0) and not season:
        raise ValueError("harmonics: calendar features need a season; give season= or harmonics=0")
    ahead = horizon if options["strategy"] == "direct" else 1
    window = options["window"]
    if window is None:
        window = max(1, min(max(24, min(2 * (season or 12), 72)), (usable - ahead) // 2))
    encoder = Encoder(
        panel.frequency, season, harmonics, _calendar(options, panel), _lags(options, ahead)
    )
    settings = Resolved(horizon, season, whole("window", window), harmonics)
    return settings, encoder.fit(panel), preprocessing


def output_of(options: Mapping[str, Any]) -> Output:
    """What the network's outputs mean."""
    name = options["output"]
    choose("output", name, tuple(OUTPUTS))
    if name == "point":
        return Point(options["loss"])
    return Quantiles(options["levels"]) if name == "quantiles" else OUTPUTS[name]()


def _calendar(options: Mapping[str, Any], panel: Panel) -> tuple[str, ...]:
    names, frequency = options["calendar"], panel.frequency
    dated = panel.series[0].time.dtype.kind == "M"
    if names == "auto":
        if not dated:
            return ()
        return {"hour": ("hour", "weekday"), "day": ("weekday", "year")}.get(frequency.unit, ())
    names = (names,) if isinstance(names, str) and names != "none" else names
    if names == "none" or not names:
        return ()
    for name in names:
        choose("calendar", name, CALENDAR)
    if not dated:
        raise ValueError("calendar: the rows are numbered; give a time column, or calendar='none'")
    return tuple(names)


def _lags(options: Mapping[str, Any], ahead: int) -> tuple[int, ...]:
    lags = options["lags"]
    lags = (lags,) if isinstance(lags, int) else tuple(lags)
    for lag in lags:
        if whole("lags", lag) < ahead:
            raise ValueError(
                f"lags: expected at least the horizon of {ahead}, since a direct forecast cannot "
                f"look back {lag} steps from its last one; take longer lags or "
                "strategy='closed-loop'"
            )
    return lags


def _preprocessing(
    options: Mapping[str, Any], panel: Panel, season: int | None, counts: bool
) -> Preprocessing:
    """Transform, differences and scaling of all series, without constants."""
    difference, transform, scaling = (options[k] for k in ("difference", "transform", "scaling"))
    if counts:
        return _of_counts(options, panel)
    if difference == "auto":
        longest = max(map(len, panel))
        seasonal = season and season <= LONGEST_DIFFERENCE and longest >= 3 * season
        difference = "seasonal" if seasonal else "first"
    if difference == "seasonal" and season is None:
        raise ValueError(
            "difference='seasonal' needs a season; give season=, such as 12 for months"
        )
    lag = {"none": 0, "first": 1, "seasonal": season or 0}[difference]
    if transform == "auto":
        grows = [bool(season and spread_follows_level(s.values, season)) for s in panel]
        positive = all(np.nanmin(s.values) > 0 for s in panel)
        transform = "log" if positive and np.mean(grows) > 0.5 else "none"
    return Preprocessing(transform, lag, scaling)


def _of_counts(options: Mapping[str, Any], panel: Panel) -> Preprocessing:
    """Counts stay what they are, but for a division by their mean."""
    for name, plain in (("difference", "none"), ("transform", "none")):
        if options[name] not in ("auto", plain):
            raise ValueError(
                f"{name}: the output {options['output']!r} describes counts as they are; "
                f"expected {plain!r} or 'auto', got {options[name]!r}"
            )
    for series in panel:
        wrong = np.flatnonzero((series.values < 0) | (series.values % 1 > 0))
        if wrong.size:
            raise DataError(
                f"output {options['output']!r}: expected whole numbers of at least 0, but row "
                f"{wrong[0] + 1} of '{series.id or series.name}' is {series.values[wrong[0]]:g}; "
                "choose output='gaussian', 'student_t' or 'quantiles'"
            )
    return Preprocessing(scaling="mean")


def _fitted(steps: Preprocessing, series: Series) -> Preprocessing:
    if len(series) < steps.lag + 2:
        called = f" '{series.id}'" if series.id else ""
        raise DataError(
            f"the series{called} is too short: {len(series)} values with differences {steps.lag} "
            f"steps apart; at least {steps.lag + 2} are needed"
        )
    return steps.fit(series.values)
