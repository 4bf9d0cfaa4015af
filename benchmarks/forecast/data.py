"""The series: bundled ones, and larger ones from a folder that HEADGATE_DATA or --data names."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from headgate.data import DataError, Panel, Series, read_panel, read_series

BUNDLED = Path(__file__).parents[2] / "examples" / "data"


def folder(given: Path | None, name: str) -> Path:
    """The folder of a data set; raises DataError where there is none."""
    base = given or (Path(os.environ["HEADGATE_DATA"]) if os.environ.get("HEADGATE_DATA") else None)
    if base is None or not (base / name).is_dir():
        where = f"in {base}" if base else "anywhere"
        raise DataError(
            f"{name}: no such data {where}; name the folder that holds {name}/ with --data or "
            "HEADGATE_DATA"
        )
    return base / name


def air_passengers() -> Series:
    return read_series(BUNDLED / "air_passengers.csv")


def sunspots(given: Path | None) -> Series:
    return read_series(folder(given, "sunspots") / "monthly-sunspots.csv")


def m4_hourly(given: Path | None) -> tuple[Panel, Panel]:
    """414 series of 700 to 960 hours, and the 48 that follow each."""
    base = folder(given, "m4")
    training, test = (
        read_panel(base / f"Hourly-{part}.csv.gz", layout="rows") for part in ("train", "test")
    )
    return training, test


def ett(given: Path | None) -> Series:
    """ETTh1's oil temperature, the first 20 months, hourly."""
    series = read_series(folder(given, "ett") / "ETTh1.csv.gz", target="OT")
    return series[: 20 * 30 * 24]


def exchange_rate(given: Path | None) -> Panel:
    """Eight rates, one a day."""
    return read_panel(folder(given, "exchange_rate") / "exchange_rate.txt.gz", target="*")


def beijing(given: Path | None) -> Series:
    """Hourly fine particles, with the weather as it was."""
    return read_series(
        folder(given, "beijing_pm25") / "pollution.csv.gz",
        target="pm2.5",
        past=("DEWP", "TEMP", "PRES", "Iws"),
    )


def melbourne(given: Path | None) -> Series:
    path = folder(given, "melbourne_min_temp") / "daily-min-temperatures.csv"
    return read_series(path, resample="auto")  # the 31st of December of leap years is absent


def ahead_of(training: Panel, test: Panel) -> Panel:
    """Each series with what follows it."""
    return Panel(
        tuple(
            replace(
                series,
                values=np.concatenate([series.values, test[series.id].values]),
                time=np.append(series.time, series.future(len(test[series.id]))),
            )
            for series in training
        )
    )
