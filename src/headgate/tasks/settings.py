"""What "auto" means: settings of a forecaster that follow from its series."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from headgate.data import DataError, Frequency, Preprocessing, Series, spread_follows_level

STRATEGIES = ("direct", "closed-loop")
TRANSFORMS = ("auto", "none", "log")
DIFFERENCES = ("auto", "none", "first", "seasonal")
LONGEST_DIFFERENCE = 24


@dataclass(frozen=True)
class Resolved:
    """Numbers in place of "auto" and None."""

    horizon: int
    season: int | None
    window: int
    harmonics: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def choose(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}; got {value!r}")


def whole(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}; got {value!r}")
    return value


def season_and_horizon(options: dict[str, Any], frequency: Frequency) -> tuple[int | None, int]:
    """The season, which the frequency suggests, and the horizon: one season, or 12."""
    season = frequency.season if options["season"] == "auto" else options["season"]
    if season is not None:
        whole("season", season, 2)
    horizon = options["horizon"]
    return season, whole("horizon", (season or 12) if horizon is None else horizon)


def resolve(options: dict[str, Any], series: Series) -> tuple[Resolved, Preprocessing]:
    """The settings for this series, and its preprocessing, fitted. `options` are a forecaster's."""
    choose("strategy", options["strategy"], STRATEGIES)
    choose("transform", options["transform"], TRANSFORMS)
    choose("difference", options["difference"], DIFFERENCES)
    season, horizon = season_and_horizon(options, series.frequency)
    preprocessing = _preprocessing(options, series, season)
    usable = len(series) - preprocessing.lag
    harmonics = options["harmonics"]
    if harmonics == "auto":
        harmonics = 2 if season and preprocessing.lag != season else 0
    if whole("harmonics", harmonics, 0) and not season:
        raise ValueError("harmonics: calendar features need a season; give season= or harmonics=0")
    window = options["window"]
    if window is None:
        ahead = horizon if options["strategy"] == "direct" else 1
        window = max(1, min(max(24, min(2 * (season or 12), 72)), (usable - ahead) // 2))
    return Resolved(horizon, season, whole("window", window), harmonics), preprocessing


def _preprocessing(options: dict[str, Any], series: Series, season: int | None) -> Preprocessing:
    difference, transform = options["difference"], options["transform"]
    if difference == "auto":
        seasonal = season and season <= LONGEST_DIFFERENCE and len(series) >= 3 * season
        difference = "seasonal" if seasonal else "first"
    if difference == "seasonal" and season is None:
        raise ValueError(
            "difference='seasonal' needs a season; give season=, such as 12 for months"
        )
    lag = {"none": 0, "first": 1, "seasonal": season or 0}[difference]
    if len(series) < lag + 2:
        raise DataError(
            f"the series is too short: {len(series)} values with differences {lag} steps "
            "apart; at least "
            f"{lag + 2} are needed"
        )
    if transform == "auto":
        transform = "log" if season and spread_follows_level(series.values, season) else "none"
    return Preprocessing(transform == "log", lag, options["scaling"]).fit(series.values)
