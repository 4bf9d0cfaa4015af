"""One look for every picture."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

OBSERVED, NETWORK, BASELINE = "#30363d", "#d1495b", "#8d99ae"
DPI = 150


def new_figure(width: float, height: float) -> Figure:
    """A figure of that size in inches that draws without any display."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def dress(axes: Axes, time: np.ndarray, label: str, ylabel: str) -> None:
    """Name the axes; mark dates as dates."""
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    mark_time(axes, time, label)


def mark_time(axes: Axes, time: np.ndarray, label: str) -> None:
    axes.set_xlabel(label)
    if time.dtype.kind == "M":
        locator = AutoDateLocator(minticks=4, maxticks=9)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
