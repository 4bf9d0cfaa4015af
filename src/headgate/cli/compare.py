"""headgate inspect --compare: the gradient flow of several cells, before and after training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import rich.table
import torch
from torch import Tensor

from headgate.cells import get
from headgate.data import DataError, Panel, fill_missing
from headgate.inspection import flow_figure, save_figure
from headgate.inspection.comparison import Compared, LastStep, compare_cells, recall
from headgate.tasks.folder import whole_folder
from headgate.training import ArrayBatches, FitConfig, NonFiniteLossError, fit

from .options import Table
from .report import Report

FILES = ("gradient_flow.csv", "gradient_flow.png")
ROWS, TESTED = 1024, 256
"""Rows of training and of the test, at most."""
RATE, CLIP, BATCH = 0.01, 1.0, 32
SHOWN = (10, 50, 100)
"""Steps back that are printed."""


@dataclass(frozen=True, eq=False)
class Rows:
    """What every cell is trained and tested on: inputs (N, T, I), targets (N, 1), lengths (N,)."""

    name: str
    inputs: Tensor
    targets: Tensor
    lengths: Tensor
    test_inputs: Tensor
    test_targets: Tensor


def compare(
    cells: tuple[str, ...],
    data: str | None,
    *,
    table: Table,
    hidden_size: int,
    steps: int,
    epochs: int,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """Train each cell on the same rows of `steps` steps, and see how far its gradient reaches.

    The rows are windows of a table's series, the next value to be told from those before it, tested
    on the last fifth; without `data`, the long lag of ``headgate.inspection.comparison.recall``,
    trained on rows of 1 to `steps` steps and tested on whole ones. All cells get the same sizes,
    seed and training. The folder receives FILES; what is printed is each cell's gradient norm some
    steps back, relative to the last step, and its error on the test.

    Raises ValueError for an unknown cell, DataError for series that are too short.
    """
    for name in cells:
        get(name)
    report, notes = Report(as_json), list[str]()
    with whole_folder(out, FILES) as folder:
        rows = _recalled(steps, seed) if data is None else _windows(table.read(data), steps)
        compared = compare_cells(
            {name: name for name in cells},
            rows.test_inputs,
            hidden_size=hidden_size,
            seed=seed,
            train=lambda model: notes.extend(_train(model, rows, epochs, seed)),
        )
        _write(folder, compared)
    lines = [_line(name, each, rows) for name, each in compared.items()]
    if as_json:
        events = [{"event": "compared", "task": rows.name, **line} for line in lines]
        events += [{"event": "note", "text": note} for note in notes]
        print(*map(json.dumps, events), sep="\n", flush=True)
    else:
        _show(report, lines, rows.name, notes)
    report.written("Gradient flow", out)


def _recalled(steps: int, seed: int) -> Rows:
    inputs, targets, lengths = recall(ROWS, steps, seed=seed, ragged=True)
    test, expected, _ = recall(TESTED, steps, seed=seed + 1_000_003)
    name = f"the first value, through noise, after {steps} steps"
    return Rows(name, inputs, targets, lengths, test, expected)


def _windows(panel: Panel, steps: int) -> Rows:
    """Windows of all series, each scaled by the part it is trained on, its first four fifths."""
    trained, tested = [], []
    for series in panel:
        values = fill_missing(series.values)
        first = len(values) - len(values) // 5
        if first <= steps:
            raise DataError(
                f"series '{series.id or series.name}': expected more than {steps} values before "
                f"its last fifth, got {first}; take fewer steps"
            )
        seen = values[:first]
        values = (values - seen.mean()) / (seen.std() or 1.0)
        cut = np.lib.stride_tricks.sliding_window_view(values, steps + 1)
        trained.append(cut[: first - steps])
        tested.append(cut[first - steps :])
    (inputs, targets), (test, expected) = _some(trained, ROWS), _some(tested, TESTED)
    lengths = torch.full((len(inputs),), steps)
    name = f"the next value of {panel.series[0].name}, after {steps} steps"
    return Rows(name, inputs, targets, lengths, test, expected)


def _some(windows: list[np.ndarray], most: int) -> tuple[Tensor, Tensor]:
    """So many windows, evenly spaced: what is read (N, T, 1) and what follows (N, 1)."""
    whole = np.concatenate(windows)
    chosen = whole[np.linspace(0, len(whole) - 1, min(most, len(whole))).astype(int)]
    both = torch.tensor(chosen, dtype=torch.float32)
    return both[:, :-1, None], both[:, -1:]


def _train(model: LastStep, rows: Rows, epochs: int, seed: int) -> list[str]:
    """Train in place; what went wrong. One cell that explodes does not end the comparison."""
    config = FitConfig(
        epochs=epochs, learning_rate=RATE, schedule="cosine", gradient_clip=CLIP, seed=seed
    )
    batches = ArrayBatches(rows.inputs, rows.targets, rows.lengths, batch_size=BATCH)
    try:
        fit(model, batches, loss="mse", config=config)
    except NonFiniteLossError as error:
        return [f"{model.recurrent.program.name}: training ended early. {error}"]
    return []


def _line(name: str, each: Compared, rows: Rows) -> dict[str, Any]:
    """What is printed of one cell. The error is in standard deviations of the test's targets."""
    with torch.no_grad():
        wrong = each.model(rows.test_inputs)[0] - rows.test_targets
    assert each.trained is not None
    before, after = each.fresh.relative(), each.trained.relative(each.fresh.carrier())
    shown = [k for k in SHOWN if k < len(before)]
    return {
        "cell": name,
        "state": each.fresh.carrier(),
        "fresh": {str(k): _finite(before[k]) for k in shown},
        "trained": {str(k): _finite(after[k]) for k in shown},
        "error": _finite(wrong.square().mean().sqrt() / rows.test_targets.std(correction=0)),
    }


def _finite(value: Any) -> float | None:
    """JSON has no infinity: what exploded is None."""
    return float(value) if np.isfinite(float(value)) else None


def _show(report: Report, lines: list[dict[str, Any]], task: str, notes: list[str]) -> None:
    plain: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}
    report.console.print(f"Task: {task}", **plain)
    report.console.print(
        "Gradient norm of the state so many steps back, relative to the last step; error: RMSE in "
        "standard deviations of the targets",
        **plain,
    )
    table = rich.table.Table()
    for heading in ("cell", "state", "weights"):
        table.add_column(heading)
    for heading in (*(f"{k} back" for k in lines[0]["fresh"]), "error"):
        table.add_column(heading, justify="right")
    for line in lines:
        for weights in ("fresh", "trained"):
            fresh = weights == "fresh"
            names = (line["cell"], line["state"]) if fresh else ("", "")
            norms = [_shown(norm, ".2g") for norm in line[weights].values()]
            table.add_row(*names, weights, *norms, "" if fresh else _shown(line["error"], ".3f"))
    report.console.print(table)
    for note in notes:
        report.console.print(note, **plain)


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _write(folder: Path, compared: Mapping[str, Compared]) -> None:
    fresh = {name: each.fresh for name, each in compared.items()}
    trained = {name: each.trained for name, each in compared.items() if each.trained}
    parts = [
        flow.table().select(pl.lit(name).alias("cell"), pl.lit(weights).alias("weights"), pl.all())
        for weights, flows in (("fresh", fresh), ("trained", trained))
        for name, flow in flows.items()
    ]
    pl.concat(parts).write_csv(folder / FILES[0])
    save_figure(flow_figure(fresh, trained=trained), folder / FILES[1])
