"""What `headgate inspect` writes, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from rich.table import Table

from headgate.inspection import (
    Observation,
    Section,
    attribution_figure,
    flow_figure,
    idle_units,
    memory_figure,
    memory_lengths,
    page,
    saturation,
    saturation_figure,
    save_figure,
    unit_figure,
    units_figure,
)
from headgate.inspection.steps import steps_page
from headgate.tasks.forecast import time_column
from headgate.tasks.reasons import Reasons

from .report import Report
from .tables import write_table

FILES = (
    "values.csv",
    "values.parquet",
    "saturation.csv",
    "memory.csv",
    "units.csv",
    "units",
    "flow.csv",
    "attribution.csv",
    "saturation.png",
    "memory.png",
    "flow.png",
    "attribution.png",
    "report.html",
    "steps.html",
)
NAMED = 8
"""Units that are named one by one in the summary."""


@dataclass(frozen=True)
class Inside:
    """An observation of one row, with what was measured in it."""

    seen: Observation
    gates: pl.DataFrame
    memory: pl.DataFrame
    idle: pl.DataFrame
    reasons: Reasons | None = None

    @classmethod
    def of(cls, seen: Observation, reasons: Reasons | None = None) -> Inside:
        return cls(seen, saturation(seen), memory_lengths(seen), idle_units(seen), reasons)

    @property
    def cell(self) -> str:
        return next(iter(self.seen.layers.values())).program.name

    @property
    def steps(self) -> int:
        return int(self.seen.lengths[0])


def write(
    folder: Path, inside: Inside, units: Sequence[int], form: Literal["csv", "parquet"]
) -> None:
    """Write those of FILES that there is something to say in."""
    values = inside.seen.table()
    if "time" in values.columns:
        values = values.with_columns(time_column(values["time"].to_numpy()).alias("time"))
    write_table(values, folder / f"values.{form}")
    write_table(inside.gates, folder / "saturation.csv")
    write_table(inside.memory, folder / "memory.csv")
    write_table(inside.idle, folder / "units.csv")
    if inside.reasons:
        write_table(inside.reasons.flow.table(), folder / "flow.csv")
        write_table(_attribution(inside.reasons), folder / "attribution.csv")
    sections = _sections(inside, units)
    (folder / "units").mkdir()
    for name, section in sections.items():
        if section.figure is not None:
            save_figure(section.figure, folder / f"{name}.png")
    (folder / "report.html").write_text(_page(inside, sections), encoding="utf-8")
    title = f"{inside.seen.name}, step by step"
    (folder / "steps.html").write_text(
        steps_page(inside.seen, unit=units[0] if units else None, title=title), encoding="utf-8"
    )


def _sections(inside: Inside, units: Sequence[int]) -> dict[str, Section]:
    """The parts of the page by the name of their picture."""
    seen, found = inside.seen, {}
    for layer, direction in seen.layers:
        which = f" of layer {layer}" if len(seen.layers) > 1 else ""
        found[f"units/layer_{layer}"] = Section(
            f"All units{which}",
            "Every value of every unit over the steps; units that do alike stand together.",
            units_figure(seen, 0, layer, direction),
        )
        if seen.layers[layer, direction].gradients is not None:
            found[f"units/layer_{layer}_errors"] = Section(
                f"Error terms{which}",
                "How the loss of the forecasts would change with each value.",
                units_figure(seen, 0, layer, direction, errors=True),
            )
        for unit in units:
            found[f"units/layer_{layer}_unit_{unit}"] = Section(
                f"Unit {unit}{which}",
                "Its gates and its other values.",
                unit_figure(seen, unit, 0, layer, direction),
            )
    return found | _reasons(inside) | _measured(inside)


def _attribution(reasons: Reasons) -> pl.DataFrame:
    """One line a step: what each input added to the next forecast."""
    time = pl.DataFrame({"time": time_column(reasons.time)})
    return time.with_columns(
        pl.Series(name, reasons.attribution[:, k]) for k, name in enumerate(reasons.input_names)
    )


def _reasons(inside: Inside) -> dict[str, Section]:
    found, cell = inside.reasons, inside.cell
    if found is None:
        return {}
    start = max(0, len(found.time) - inside.steps)
    return {
        "flow": Section(
            "How far back the next forecast reaches",
            "The norm of its gradient by the state so many steps back, relative to the last step.",
            flow_figure({cell: found.flow}),
        ),
        "attribution": Section(
            "What moved the next forecast",
            "Integrated gradients from zeros, the mean of each scaled input; in network units, all "
            "steps of the horizon together.",
            attribution_figure(
                found.inputs[start:],
                found.attribution[start:],
                names=found.input_names,
                time=found.time[start:],
                time_name=inside.seen.time_name,
                prediction="the next forecast",
            ),
        ),
    }


def _measured(inside: Inside) -> dict[str, Section]:
    gates, memory, idle = inside.gates, inside.memory, inside.idle
    found = {}
    if len(gates):
        figure = saturation_figure(gates, inside.cell)
        text = "A gate below 0.1 is nearly closed, one above 0.9 nearly open."
        found["saturation"] = Section("Saturation", text, figure, table=gates.to_dicts())
    if _counted(memory):
        figure = memory_figure(memory, inside.steps, inside.cell)
        text = (
            "In how many steps what a unit holds falls to 1/e, by the mean logarithm of the factor "
            "that its old value is multiplied by."
        )
        found["memory"] = Section("Memory", text, figure, table=memory.to_dicts())
    else:
        text = "No state of this cell carries its old value, multiplied by a factor, to the next."
        found["memory"] = Section("Memory", text)
    if len(idle):
        text = "Outputs that never leave ±0.001, and gates that are always closed or open."
        found["idle"] = Section("Units that do nothing", text, table=idle.to_dicts())
    return found


def _counted(memory: pl.DataFrame) -> bool:
    return bool(memory["memory"].is_not_nan().any())


def _page(inside: Inside, sections: dict[str, Section]) -> str:
    seen, first = inside.seen, next(iter(inside.seen.layers.values()))
    layers, width = len(seen.layers), first.states[first.program.states[0].name].shape[-1]
    lead = (
        f"{inside.steps} steps read by {layers} {'layer' if layers == 1 else 'layers'} of "
        f"{width} {inside.cell} units."
    )
    return page(f"Inside the network that reads {seen.name}", list(sections.values()), lead=lead)


class InsideReport(Report):
    """The summary on standard output."""

    def inside(self, inside: Inside, out: Path) -> None:
        """How open the gates were, how long units remember, which do nothing, where it all is."""
        if self.as_json:
            for event, table in (
                ("saturation", inside.gates),
                ("memory", inside.memory.with_columns(_finite("memory"))),
                ("unit", inside.idle),
            ):
                for row in table.iter_rows(named=True):
                    self._line(event, **row)
            self._line("written", folder=str(out))
            return
        self._say(f"{inside.seen.name}: {inside.steps} steps read by the {inside.cell} cell")
        self._gates(inside.gates)
        self._memory(inside.memory)
        self._idle(inside.idle)
        self._say(f"Written to {out}: report.html, steps.html, tables (*.csv) and pictures (*.png)")

    def _gates(self, gates: pl.DataFrame) -> None:
        if gates.is_empty():
            self._say("Gates: none were observed")
            return
        table = Table()
        columns = {"layer": "layer", "gate": "gate", "closed": "below 0.1", "half": "between"}
        for name, heading in {**columns, "open": "above 0.9", "mean": "mean"}.items():
            table.add_column(heading, justify="left" if name in ("layer", "gate") else "right")
        for row in gates.iter_rows(named=True):
            shares = (f"{100 * row[name]:.1f} %" for name in ("closed", "half", "open"))
            table.add_row(str(row["layer"]), row["gate"], *shares, f"{row['mean']:.3f}")
        self.console.print(table)

    def _memory(self, memory: pl.DataFrame) -> None:
        if not _counted(memory):
            self._say("Memory: no state carries its old value to the next step by a factor")
        for group in memory.partition_by("layer", "state", maintain_order=True):
            lengths = np.sort(group["memory"].drop_nans().to_numpy())
            if len(lengths):
                low, middle, high = (
                    f"{v:.3g}" for v in (lengths[0], np.median(lengths), lengths[-1])
                )
                self._say(
                    f"Memory of {group['state'][0]} in layer {group['layer'][0]}: median "
                    f"{middle} steps ({low} to {high}), by the factor {group['factor'][0]}"
                )

    def _idle(self, idle: pl.DataFrame) -> None:
        for group in idle.partition_by("layer", "name", "what", maintain_order=True):
            units = ", ".join(map(str, group["unit"][:NAMED]))
            more = f" and {len(group) - NAMED} more" if len(group) > NAMED else ""
            self._say(
                f"{group['what'][0].capitalize()}: {group['name'][0]} of layer "
                f"{group['layer'][0]}, units {units}{more}"
            )
        if idle.is_empty():
            self._say("Dead or stuck units: none")


def _finite(column: str) -> pl.Expr:
    """JSON knows no infinity: null where a unit never forgets, or nothing was measured."""
    return pl.when(pl.col(column).is_finite()).then(pl.col(column)).alias(column)
