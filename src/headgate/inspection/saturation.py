"""How far gates stand open, and the units that do nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from headgate.program import Program

from .observation import Layer, Observation

CLOSED, OPEN = 0.1, 0.9
"""Below the one a gate is nearly closed, above the other nearly open."""
DEAD = 1e-3
"""A unit whose output never leaves ± this adds nothing."""

SCHEMA = {
    "layer": pl.Int32,
    "direction": pl.Int32,
    "gate": pl.String,
    "closed": pl.Float64,
    "half": pl.Float64,
    "open": pl.Float64,
    "mean": pl.Float64,
    "values": pl.Int64,
}
UNITS = {
    "layer": pl.Int32,
    "direction": pl.Int32,
    "name": pl.String,
    "unit": pl.Int32,
    "what": pl.String,
}


def gates_of(program: Program) -> tuple[str, ...]:
    """The named values that are gates, by their equations: from 0, closed, to 1, open.

    A gate is what comes out of a sigmoid or a hard sigmoid (a clipping to 0 … 1), and what such a
    gate leaves: 1 − i is the forget gate of a coupled cell.
    """
    return tuple(name for name, index in program.names.items() if _is_gate(program, index))


def _is_gate(program: Program, index: int) -> bool:
    node = program.nodes[index]
    if node.op == "clip":
        return (node["low"], node["high"]) == (0.0, 1.0)
    if node.op == "sub":
        whole, part = node.args
        one = program.nodes[whole]
        return one.op == "constant" and one["value"] == 1.0 and _is_gate(program, part)
    return node.op == "sigmoid"


def saturation(observation: Observation) -> pl.DataFrame:
    """How often each gate is nearly closed, half open, nearly open: shares of its valid values.

    Columns: layer, direction, gate, closed (below 0.1), half, open (above 0.9), mean, values (how
    many: steps of all rows times units). Shares are NaN where there is no valid step.
    """
    lines = []
    for (layer, direction), gate, values in _gates(observation):
        count = values.size
        closed, opened = ((values < CLOSED).sum(), (values > OPEN).sum())
        shares = np.array([closed, count - closed - opened, opened, values.sum(dtype=np.float64)])
        shares = shares / count if count else np.full(4, np.nan)
        lines.append((layer, direction, gate, *shares.tolist(), count))
    return pl.DataFrame(lines, schema=SCHEMA, orient="row")


def idle_units(observation: Observation) -> pl.DataFrame:
    """The units that do nothing, with what they do not do.

    "dead": the output never leaves ±0.001; "stuck closed": a gate that is always below 0.1; "stuck
    open": one always above 0.9. Columns: layer, direction, name, unit, what.
    """
    lines = []
    if observation.lengths.any():
        for (layer, direction), each in observation.layers.items():
            name = each.program.states[0].name
            size = np.abs(each.states[name][observation.valid]).max(axis=0)
            lines += _those(layer, direction, name, size <= DEAD, "dead")
        for (layer, direction), gate, values in _gates(observation):
            lines += _those(layer, direction, gate, values.max(axis=0) < CLOSED, "stuck closed")
            lines += _those(layer, direction, gate, values.min(axis=0) > OPEN, "stuck open")
    return pl.DataFrame(lines, schema=UNITS, orient="row").sort(
        "layer", "direction", maintain_order=True
    )


def _those(
    layer: int, direction: int, name: str, which: np.ndarray, what: str
) -> list[tuple[int, int, str, int, str]]:
    return [(layer, direction, name, int(unit), what) for unit in np.flatnonzero(which)]


def _gates(observation: Observation) -> Iterator[tuple[tuple[int, int], str, np.ndarray]]:
    """Where each recorded gate stands, its name, and its valid values (M, H)."""
    for place, layer in observation.layers.items():
        for gate in _recorded_gates(layer):
            yield place, gate, layer.values[gate][observation.valid]


def _recorded_gates(layer: Layer) -> list[str]:
    return [gate for gate in gates_of(layer.program) if gate in layer.values]
