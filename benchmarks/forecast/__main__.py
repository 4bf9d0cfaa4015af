"""Forecasts of real series against published results.

Settings are chosen on what precedes the test period, which a reported run opens once. Series that
are not bundled come from a folder that --data or HEADGATE_DATA names.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import headgate
from benchmarks.machine import processor
from headgate.data import DataError

from . import cases, chance, speed, windows
from .cases import Row, Rows

Case = Callable[[int, Path | None], Rows]
CASES: dict[str, tuple[Case, int]] = {
    "air_passengers": (cases.air_passengers, 5),
    "air_passengers_rolling": (cases.air_passengers_rolling, 10),
    "neuralforecast": (speed.neuralforecast, 5),
    "sunspots": (cases.sunspots, 5),
    "m4_hourly": (cases.m4_hourly, 3),
    "ett": (windows.ett, 3),
    "exchange_rate": (windows.exchange_rate, 3),
    "coverage": (chance.coverage, 3),
    "many_series": (speed.many_series, 1),
    "predict": (speed.predict, 1),
}
SMALL = ("air_passengers", "air_passengers_rolling", "neuralforecast", "sunspots", "predict")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.forecast",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="+", choices=[*CASES, "all"], help="what to run")
    parser.add_argument("--seeds", type=int, help="by default those of the table")
    parser.add_argument("--data", type=Path, help="the folder of series that are not bundled")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to it")
    options = parser.parse_args(arguments)
    names = list(CASES) if "all" in options.name else options.name
    rows: list[Row] = []
    threads = torch.get_num_threads()
    for name in names:
        case, seeds = CASES[name]
        torch.set_num_threads(1 if name in SMALL else threads)
        try:
            for row in case(options.seeds or seeds, options.data):
                rows.append(row)
                print(f"{row.what}: {row.measure} {row.mean:.4g}", file=sys.stderr, flush=True)
        except DataError as error:
            print(f"{name}: skipped: {error}", file=sys.stderr)
    torch.set_num_threads(threads)
    show(rows)
    if options.json:
        options.json.write_text(
            json.dumps({**heading(), "rows": [vars(r) for r in rows]}, indent=1)
        )


def heading() -> dict[str, object]:
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "versions": {
            "headgate": headgate.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def show(rows: list[Row]) -> None:
    table = Table(title="Mean over seeds; one fit's seconds")
    for name in (
        "what",
        "measure",
        "ours",
        "spread",
        "seeds",
        "naive",
        "limit",
        "met?",
        "published",
        "s",
    ):
        table.add_column(name, justify="left" if name in ("what", "published") else "right")
    for row in rows:
        others = ", ".join(f"{name} {value:.4g}" for name, value in row.others.items())
        table.add_row(
            row.what,
            row.measure,
            f"{row.mean:.4g}",
            f"{np.std(row.ours):.2g}" if len(row.ours) > 1 else "one run",
            str(len(row.ours)),
            others,
            "" if row.limit is None else f"{row.limit:.4g}",
            {None: "", True: "yes", False: "no"}[row.met],
            row.published,
            "" if row.seconds is None else f"{row.seconds:.1f}",
        )
    console = Console(width=170)
    console.print(table)
    for name, value in heading().items():
        console.print(f"{name}: {value}", highlight=False)


if __name__ == "__main__":
    main()
