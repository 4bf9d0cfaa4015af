"""Gates over time: one band a named value, one line a unit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from .style import OBSERVED, dress, mark_time, new_figure

MEANING = {
    "i": "input gate i",
    "f": "forget gate f",
    "o": "output gate o",
    "g": "candidate g",
    "c": "cell state c",
    "h": "output h",
    "r": "reset gate r",
    "z": "update gate z",
    "n": "candidate n",
}


def gates_figure(
    time: np.ndarray,
    values: np.ndarray,
    gates: Mapping[str, np.ndarray],
    *,
    name: str = "value",
    time_name: str = "time",
    cell: str = "",
) -> Figure:
    """The series (T,) above, and below it each named value (T, H) as colours, one row a unit.

    Values within 0 and 1 are drawn as gates, from closed to open; others around zero. Units stand
    in one order in all bands: by their mean in the first.
    """
    shown = {key: np.asarray(value) for key, value in gates.items()}
    if not shown:
        raise ValueError("gates_figure: expected at least one named value (T, H), got none")
    figure = new_figure(9, 2.6 + 1.25 * len(shown))
    rows = figure.subplots(
        len(shown) + 1, 1, sharex=True, gridspec_kw={"height_ratios": [2.2] + [1] * len(shown)}
    )
    rows[0].plot(time, values, color=OBSERVED, linewidth=1.2)
    dress(rows[0], time, "", name)
    title = f"Inside the {cell} cell over time" if cell else "Inside the cell over time"
    rows[0].set_title(title, loc="left", parse_math=False)
    order = np.argsort(next(iter(shown.values())).mean(axis=0))
    for axes, (key, value) in zip(rows[1:], shown.items(), strict=True):
        _band(figure, axes, time, value[:, order], key)
    mark_time(rows[-1], time, time_name)
    return figure


def _band(figure: Figure, axes: Axes, time: np.ndarray, value: np.ndarray, key: str) -> None:
    is_gate = value.min() >= 0 and value.max() <= 1
    largest = max(float(np.quantile(np.abs(value), 0.98)), 1e-12)
    low, high = (0.0, 1.0) if is_gate else (-largest, largest)
    edges = date2num(time) if time.dtype.kind == "M" else time.astype(float)
    half = (edges[1] - edges[0]) / 2 if len(edges) > 1 else 0.5
    image = axes.imshow(
        value.T,
        aspect="auto",
        interpolation="nearest",
        cmap="viridis" if is_gate else "RdBu_r",
        vmin=low,
        vmax=high,
        extent=(edges[0] - half, edges[-1] + half, -0.5, value.shape[1] - 0.5),
        origin="lower",
    )
    axes.set_ylabel("unit")
    axes.set_yticks([0, value.shape[1] - 1])
    axes.set_title(MEANING.get(key, key), loc="left", fontsize=9, pad=3)
    bar = figure.colorbar(
        image, ax=axes, pad=0.01, aspect=8, extend="neither" if is_gate else "both"
    )
    if is_gate:
        bar.set_ticks([0, 1], labels=["0 closed", "1 open"])
