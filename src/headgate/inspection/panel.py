"""Several series at a glance: one small picture each."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NotRequired, TypedDict

import numpy as np
from matplotlib.figure import Figure

from .ahead import Bands, draw_ahead
from .style import dress, mark_time, new_figure

MOST = 12
LONGEST = 34


class PanelRow(TypedDict):
    """A series: times and values (T,), the forecast after it (K,), its bands (K,) by their name."""

    id: str
    time: np.ndarray
    values: np.ndarray
    forecast_time: np.ndarray
    forecast: np.ndarray
    bands: NotRequired[Bands]


def panel_figure(
    rows: Sequence[PanelRow], *, name: str = "value", time_name: str = "time"
) -> Figure:
    """History, forecast and bands of each series, under its id; the first 12 where there are more.

    Every series has its own scale. Raises ValueError without a series, and where shapes differ.
    """
    if not rows:
        raise ValueError("panel_figure: expected at least one series, got none")
    shown = rows[:MOST]
    columns = 1 if len(shown) == 1 else 2 if len(shown) <= 4 else 3
    height = ceil(len(shown) / columns)
    figure = new_figure(9, 1.0 + (1.9 if columns == 3 else 2.4) * height)
    grid = list(figure.subplots(height, columns, squeeze=False).flat)
    for place, (axes, row) in enumerate(zip(grid, shown, strict=False)):
        history, ahead = (row["time"], row["values"]), (row["forecast_time"], row["forecast"])
        draw_ahead(axes, "panel_figure", history, ahead, row.get("bands"))
        dress(axes, row["time"], "", "")
        mark_time(axes, row["time"], time_name if place + columns >= len(shown) else "", 6)
        axes.tick_params(labelsize=8)
        axes.xaxis.get_offset_text().set_fontsize(8)
        axes.set_title(_shortened(row["id"]), loc="left", fontsize=9, parse_math=False)
    for axes in grid[len(shown) :]:
        axes.set_visible(False)
    part = "" if len(rows) == len(shown) else f": the first {len(shown)} of {len(rows)} series"
    figure.suptitle(f"{name}{part}", x=0.01, ha="left", parse_math=False)
    figure.supylabel(name, fontsize=10, parse_math=False)
    _legend(figure)
    return figure


def _legend(figure: Figure) -> None:
    """One legend for all, of every name that occurs in any."""
    found = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    legend = figure.legend(
        found.values(),
        found.keys(),
        loc="outside lower center",
        ncols=len(found),
        frameon=False,
        fontsize=9,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
