"""Pictures of how far gates stand open and how long units remember."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
    StrMethodFormatter,
)

from .style import BASELINE, OTHERS, new_figure, tint, title_and_legend

SHARES = (
    ("closed", "nearly closed (below 0.1)", "#0072b2"),
    ("half", "half open", tint(BASELINE, 0.25)),
    ("open", "nearly open (above 0.9)", "#e69f00"),
)
WRITTEN = 0.07
"""The least share whose number fits into its part of a bar."""
NUMBERED = 24
"""Units that are numbered one by one."""
NEAR = 20
"""How many times the longest memory the observed steps may be to stand in the picture."""
MARKERS = "osD^vPX*"


def saturation_figure(table: pl.DataFrame, cell: str = "") -> Figure:
    """What ``saturation`` measured, a bar for each gate of each layer and direction.

    Raises ValueError where there is no gate.
    """
    if table.is_empty():
        raise ValueError(
            "saturation_figure: expected at least one gate, got none; a plain recurrent network "
            "has no gates to draw"
        )
    figure = new_figure(7.5, 1.5 + 0.36 * len(table))
    axes = figure.add_subplot()
    places = np.arange(len(table))
    left = np.zeros(len(table))
    for column, label, colour in SHARES:
        share = table[column].to_numpy()
        axes.barh(places, share, left=left, height=0.72, color=colour, label=label)
        for place in np.flatnonzero(share >= WRITTEN).tolist():
            axes.text(
                left[place] + share[place] / 2, place, f"{share[place]:.0%}", ha="center",
                va="center", fontsize=8, color="white" if column == "closed" else "black",
            )  # fmt: skip
        left = left + share
    axes.set_yticks(places, labels=_rows(table, "gate"))
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("share of all steps and units")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    title_and_legend(axes, f"How far the gates{f' of the {cell} cell' if cell else ''} stand open")
    return figure


def memory_figure(table: pl.DataFrame, steps: int | None = None, cell: str = "") -> Figure:
    """What ``memory_lengths`` measured: each unit a dot, sorted, a colour for each layer.

    steps: how many were observed, drawn as a line. Units that never forget stand at the upper
    edge. Raises ValueError where no state carries its old value.
    """
    table = table.drop_nans("memory")
    if table.is_empty():
        raise ValueError(
            "memory_figure: expected at least one unit that carries its old value, got none; a "
            "plain recurrent network has none, and one step is not enough to see it"
        )
    figure = new_figure(7.5, 4.2)
    axes = figure.add_subplot()
    lengths = table["memory"].to_numpy()
    finite = lengths[np.isfinite(lengths)]
    largest = float(finite.max()) if len(finite) else float(steps or 1)
    endless = 3 * max(largest, steps or 0)
    groups = table.partition_by("layer", "direction", "state", maintain_order=True)
    numbered = len(groups) == 1 and len(table) <= NUMBERED
    names = _rows(pl.concat([group.head(1) for group in groups]), "state")
    for place, (group, name) in enumerate(zip(groups, names, strict=True)):
        group = group.sort("memory")
        shown = np.minimum(group["memory"].to_numpy(), endless)
        colour, marker = OTHERS[place % len(OTHERS)], MARKERS[place % len(MARKERS)]
        label = f"{name}, factor {group['factor'][0]}"
        axes.plot(shown, marker, color=colour, label=label, markersize=5, alpha=0.85)
        for x, (unit, y) in enumerate(zip(group["unit"], shown, strict=True)):
            if numbered:
                axes.annotate(
                    str(unit), (x, y), (0, 4), textcoords="offset points", ha="center", fontsize=8
                )
    if steps and largest >= steps / NEAR:
        axes.axhline(steps, color=BASELINE, linestyle="--", linewidth=1, label="steps observed")
    if len(finite) < len(table):
        axes.axhline(endless, color=BASELINE, linewidth=0.6, alpha=0.6)
        axes.text(
            0.99, endless / 1.01, "never forgets", transform=axes.get_yaxis_transform(),
            ha="right", va="top", fontsize=8,
        )  # fmt: skip
    _dress_memory(axes, numbered)
    title_and_legend(axes, f"How long each unit{f' of the {cell} cell' if cell else ''} remembers")
    return figure


def _dress_memory(axes: Axes, numbered: bool) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.margins(y=0.12)
    if numbered:
        axes.set_xticks([])
        axes.set_xlabel("units by their numbers, from the shortest memory to the longest")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("units, from the shortest memory to the longest")
    axes.set_ylabel("memory length (steps)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _rows(table: pl.DataFrame, column: str) -> list[str]:
    """What each line is of: the gate or state, with its layer and direction where they differ."""
    parts = [table[column].to_list()]
    if table["layer"].n_unique() > 1:
        parts.append([f"layer {layer}" for layer in table["layer"]])
    if table["direction"].n_unique() > 1:
        parts.append(["backwards" if direction else "forwards" for direction in table["direction"]])
    return [", ".join(names) for names in zip(*parts, strict=True)]
