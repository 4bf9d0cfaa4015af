"""Speed of the layers, measured side by side with their peers in one process.

    python -m benchmarks.engine                                  the whole table
    python -m benchmarks.engine --only ragged memory             some rows of it
    python -m benchmarks.engine --shapes 100,32,64,64            other shapes: T,N,I,H
    python -m benchmarks.engine --json docs/benchmark.json       and every figure

float32. A ratio that must be at least something is peer's time ÷ ours; one that must be at most
something is ours ÷ peer's, each corrected for unequal work where the row says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import headgate
from benchmarks.machine import processor, version
from benchmarks.rows import ASKED_FOR, ROWS
from benchmarks.timing import Measurement, Options, Shape
from headgate import native
from headgate.engines import cpu


def shape(text: str) -> Shape:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4 or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"a shape is T,N,I,H such as 100,32,64,64; got {text!r}")
    return numbers


def circumstances(options: Options) -> dict[str, Any]:
    """What a figure depends on."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
        },
        "versions": {
            "python": platform.python_version(),
            "headgate": headgate.__version__,
            "torch": torch.__version__,
            "onnxruntime": version("onnxruntime"),
        },
        "compiled engine": native.reason,
        "instruction set": cpu.instruction_set()[0] if native.available else None,
        "dtype": "float32",
        "threads": options.threads,
        "seconds": options.seconds,
    }


def record(name: str, row: Measurement) -> dict[str, Any]:
    target = None if row.target is None else str(row.target)
    return {"row": name, **dataclasses.asdict(row), "target": target, "met": row.met}


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def table(rows: list[Measurement]) -> Table:
    found = Table(title="Medians of samples taken in turn, float32")
    for heading in ("what", "shape (T, N, I, H)", "peer"):
        found.add_column(heading, overflow="fold")
    for heading in ("peer ms", "ours ms", "ratio", "spread", "target", "met?"):
        found.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        spread = "" if row.spread is None else "–".join(map(number, row.spread))
        target = "" if row.target is None else str(row.target)
        met = {True: "yes", False: "[red]no[/red]", None: ""}[row.met]
        numbers = (number(row.peer_ms), number(row.ours_ms), number(row.ratio))
        at = ", ".join(map(str, row.shape))
        found.add_row(row.what, at, row.skipped or row.peer, *numbers, spread, target, met)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.engine", description="Speed, side by side with torch and others."
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(ROWS), metavar="ROW", help=", ".join(ROWS)
    )
    parser.add_argument("--shapes", nargs="+", type=shape, default=(), metavar="T,N,I,H")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each line of the table")
    parser.add_argument("--compile", action="store_true", help="also torch.compile; takes minutes")
    given = parser.parse_args(arguments)
    options = Options(given.seconds, given.threads, tuple(given.shapes))
    torch.set_num_threads(options.threads)
    skipped = set() if given.compile else ASKED_FOR
    facts, rows = circumstances(options), []
    progress = Console(stderr=True)
    for name in given.only or [name for name in ROWS if name not in skipped]:
        for row in ROWS[name](options):
            progress.print(f"{name}: {row.what} {row.shape} {number(row.ratio)}", highlight=False)
            rows.append((name, row))
        if given.json:
            found = {**facts, "rows": [record(*row) for row in rows]}
            given.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    console = Console(width=None if progress.is_terminal else 160)
    console.print(table([row for _, row in rows]))
    console.print(json.dumps(facts, ensure_ascii=False), highlight=False)


if __name__ == "__main__":
    main()
