"""The numbers of a page: which values it shows, and their packing."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from headgate.program import Program
from headgate.program.program import SCALAR

Key = int | str
"""A node, or a state: its values before and after each step are one series."""


class Numbers:
    """Places on a page where a number of the current step is shown, and what is stored for them.

    values: the value of each node, (T, width), or (1, width) where it never changes.
    """

    def __init__(self, program: Program, values: Mapping[int, np.ndarray]) -> None:
        self.program, self.values = program, values
        self._next = {state.next: state.name for state in reversed(program.states)}
        self._old = {n["name"]: i for i, n in enumerate(program.nodes) if n.op == "state"}
        self._new = {state.name: state.next for state in program.states}
        self._places: dict[int, int] = {}
        self._tables: list[np.ndarray] = []

    def place(self, index: int) -> int:
        """The number under which the page finds this node's value; asking stores it."""
        return self._places.setdefault(index, len(self._places))

    def table(self, columns: np.ndarray) -> int:
        """The number under which the page finds a table (T, columns) that is not the cell's."""
        self._tables.append(columns)
        return -len(self._tables)

    def floats(self, units: int) -> int:
        """How many numbers one step takes with so many units."""
        widths = [self._series(key, slice(0, units)).shape for key in self._keys()]
        tables = sum(table.shape[1] for table in self._tables)
        return sum(width for steps, width in widths if steps > 1) + tables

    def packed(self, steps: slice, units: slice) -> dict[str, Any]:
        """All that was asked for, in these steps and units, as JSON can hold it.

        blob: float32 in base64, one series after another, each a step at a time.
        nodes, tables: for each place where its series starts in the blob, how many columns it has,
        how many rows after the first a step's value stands, whether there is but one row, and
        whether there is but one number for all units.
        """
        parts: list[np.ndarray] = []
        starts: dict[Key, list[int]] = {}
        for key in self._keys():
            series = self._series(key, units, steps)
            starts[key] = [sum(part.size for part in parts), series.shape[1]]
            parts.append(series)
        nodes = [[*starts[self._key(i)], *self._reading(i)] for i in self._places]
        tables = []
        for table in self._tables:
            tables.append([sum(part.size for part in parts), table.shape[1], 0, 0, 0])
            parts.append(table[steps])
        with np.errstate(over="ignore"):
            flat = np.concatenate([np.ravel(part) for part in parts]).astype("<f4")
        return {"blob": base64.b64encode(flat.tobytes()).decode(), "nodes": nodes, "tables": tables}

    def _keys(self) -> list[Key]:
        return list(dict.fromkeys(map(self._key, self._places)))

    def _key(self, index: int) -> Key:
        node = self.program.nodes[index]
        return node["name"] if node.op == "state" else self._next.get(index, index)

    def _reading(self, index: int) -> tuple[int, int, int]:
        """How many rows later its value of a step stands, whether it has but one row, and whether
        all units share it."""
        shared = int(self.program.widths[index] == SCALAR)
        if isinstance(self._key(index), str):
            return int(self.program.nodes[index].op != "state"), 0, shared
        return 0, int(len(self.values[index]) == 1), shared

    def _series(self, key: Key, units: slice, steps: slice = slice(None)) -> np.ndarray:
        if isinstance(key, str):
            old, new = self.values[self._old[key]][steps], self.values[self._new[key]][steps]
            return np.concatenate([old[:1], new])[:, units]
        value = self.values[key]
        value = value if len(value) == 1 else value[steps]
        return value if self.program.widths[key] == SCALAR else value[:, units]
