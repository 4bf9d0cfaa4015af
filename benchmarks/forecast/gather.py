"""docs/results.md from what runs of benchmarks.forecast wrote with --json.

python -m benchmarks.forecast.gather results/*.json > docs/results.md
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

OPENING = """# Results

What `Forecaster` reaches on known series, by `python -m benchmarks.forecast NAME --json FILE`; this
page is made of those files by `python -m benchmarks.forecast.gather`. Settings were chosen on what
precedes the test period. *ours* is the mean over so many *seeds* and its standard deviation,
*published* what others report for the same set-up. Settings for sunspots were chosen by MAPE, as
the published figure is one; near zero it rewards forecasts that are too low, and MASE pays for it.
"""
COLUMNS = ("what", "measure", "ours", "seeds", "beside it", "limit", "met", "published", "s a fit")


def page(runs: Sequence[Mapping[str, Any]]) -> str:
    """The page of some runs: their rows, their settings, and where they were measured."""
    lines = [OPENING, _line(COLUMNS), _line(["---"] * len(COLUMNS))]
    rows = [row for run in runs for row in run["rows"]]
    lines += [_line(_cells(row)) for row in rows]
    lines += ["", "## Settings", ""]
    settings = {json.dumps(row["settings"]): row for row in reversed(rows) if row["settings"]}
    lines += [
        f"- {row['what']}: " + ", ".join(f"`{k}={v!r}`" for k, v in row["settings"].items())
        for row in reversed(settings.values())
    ]
    lines += ["", "## Measured on", ""]
    lines += [f"- {each}" for each in dict.fromkeys(map(_circumstances, runs))]
    return "\n".join(lines) + "\n"


def _cells(row: Mapping[str, Any]) -> list[str]:
    ours, limit = row["ours"], row["limit"]
    mean = float(np.mean(ours))
    spread = f" ± {np.std(ours):.2g}" if len(ours) > 1 else ""
    return [
        row["what"],
        row["measure"],
        f"{mean:.4g}{spread}",
        str(len(ours)) if len(ours) > 1 else "one run",
        ", ".join(f"{name} {value:.4g}" for name, value in row["others"].items()),
        "" if limit is None else f"{limit:.4g}",
        "" if limit is None else "yes" if mean <= limit else "**no**",
        row["published"],
        "" if row["seconds"] is None else f"{row['seconds']:.1f}",
    ]


def _circumstances(run: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return f"{run['machine']}; {versions}; {run['date']}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.forecast.gather", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="what --json wrote")
    files = parser.parse_args().files
    sys.stdout.write(page([json.loads(file.read_text()) for file in files]))


if __name__ == "__main__":
    main()
