"""Gates over time: one band a named value, one line a unit."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage

from .style import NETWORK, OBSERVED, OTHERS, dress, mark_time, new_figure, title_and_legend

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
COLOURS = (OBSERVED, NETWORK, *OTHERS)
COMPARED = 500
"""Steps that decide which units are alike."""
MARKED = 5
"""Units whose numbers stand beside a band."""


def gates_figure(
    time: np.ndarray,
    values: np.ndarray | Mapping[str, np.ndarray],
    gates: Mapping[str, np.ndarray],
    *,
    name: str = "value",
    time_name: str = "time",
    cell: str = "",
    title: str = "",
    between: Collection[str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """The series (T,) above, and below it each named value (T, H) as colours, one row a unit.

    Values named in `between` (None: those within 0 and 1) are drawn as gates, from closed to open;
    others around zero. Units that do alike stand together, in one order in all bands of one width;
    the numbers beside a band say which units some of its rows are. Several series may stand above,
    by what the legend calls them. `labels` say what a named value is.

    Raises ValueError without a named value.
    """
    shown = {key: np.asarray(value) for key, value in gates.items()}
    if not shown:
        raise ValueError("gates_figure: expected at least one named value (T, H), got none")
    if between is None:
        between = {key for key, value in shown.items() if value.min() >= 0 and value.max() <= 1}
    figure = new_figure(9, 2.6 + 1.25 * len(shown))
    rows = figure.subplots(
        len(shown) + 1, 1, sharex=True, gridspec_kw={"height_ratios": [2.2] + [1] * len(shown)}
    )
    title = title or (f"Inside the {cell} cell over time" if cell else "Inside the cell over time")
    draw_above(rows[0], time, values, name, title)
    orders = similar_units(shown)
    for axes, (key, value) in zip(rows[1:], shown.items(), strict=True):
        label = (labels or {}).get(key) or meaning(key, key in between)
        axes.set_title(label, loc="left", fontsize=9, pad=3, parse_math=False)
        _band(figure, axes, time, value, orders[value.shape[1]], key in between)
    mark_time(rows[-1], time, time_name)
    return figure


def meaning(key: str, is_gate: bool) -> str:
    """What a value of that name usually is, unless it is a gate and the usual one is not."""
    usual = MEANING.get(key, key)
    return usual if ("gate" in usual) == is_gate else key


def draw_above(
    axes: Axes,
    time: np.ndarray,
    values: np.ndarray | Mapping[str, np.ndarray],
    name: str,
    title: str,
) -> None:
    """The series on the axis of time, with a legend where there are several."""
    lines = values if isinstance(values, Mapping) else {"": values}
    for colour, (label, line) in zip(COLOURS, lines.items(), strict=False):
        front = {"color": colour, "linewidth": 1.2, "alpha": 1 if colour == OBSERVED else 0.85}
        axes.plot(time, line, label=label, marker="o" if len(time) == 1 else "", **front)
    dress(axes, time, "", name)
    if len(lines) > 1:
        title_and_legend(axes, title)
    else:
        axes.set_title(title, loc="left", parse_math=False)


def similar_units(values: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
    """For each width H of the values (T, H) an order of the units in which neighbours are alike.

    Units are compared by all values of that width, each divided by its spread, and stand as the
    leaves of a tree of the nearest (average linkage, optimal leaf order: Bar-Joseph, Gifford &
    Jaakkola 2001).
    """
    orders = {}
    for width in {value.shape[1] for value in values.values()}:
        rows = [_features(value) for value in values.values() if value.shape[1] == width]
        features = np.concatenate(rows, axis=1)
        orders[width] = (
            leaves_list(linkage(features, "average", optimal_ordering=True))
            if width > 1 and features.shape[1]
            else np.arange(width)
        )
    return orders


def _features(value: np.ndarray) -> np.ndarray:
    """(H, at most about 500)."""
    thin = np.asarray(value[:: 1 + len(value) // COMPARED].T, np.float64)
    return thin / max(thin.std(), 1e-12) if thin.size else thin


def _band(
    figure: Figure,
    axes: Axes,
    time: np.ndarray,
    value: np.ndarray,
    order: np.ndarray,
    is_gate: bool,
) -> None:
    largest = max(float(np.quantile(np.abs(value), 0.98)), 1e-12)
    low, high = (0.0, 1.0) if is_gate else (-largest, largest)
    edges = date2num(time) if time.dtype.kind == "M" else time.astype(float)
    half = (edges[1] - edges[0]) / 2 if len(edges) > 1 else 0.5
    image = axes.imshow(
        value.T[order],
        aspect="auto",
        interpolation="nearest",
        cmap="viridis" if is_gate else "RdBu_r",
        vmin=low,
        vmax=high,
        extent=(edges[0] - half, edges[-1] + half, -0.5, len(order) - 0.5),
        origin="lower",
    )
    axes.set_ylabel("unit")
    _mark_units(axes, order)
    bar = figure.colorbar(
        image, ax=axes, pad=0.01, aspect=8, extend="neither" if is_gate else "both"
    )
    if is_gate:
        bar.set_ticks([0, 1], labels=["0 closed", "1 open"])


def _mark_units(axes: Axes, order: Sequence[int] | np.ndarray) -> None:
    """The numbers of some units, which stand in no order of their numbers."""
    places = np.unique(np.linspace(0, len(order) - 1, min(MARKED, len(order))).round().astype(int))
    axes.set_yticks(places, labels=[str(order[place]) for place in places], fontsize=8)
