"""One look for every picture.

The colours are Okabe and Ito's (2008), which readers who see colours differently tell apart; line
styles say the same a second time.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

OBSERVED, NETWORK, BASELINE = "#30363d", "#d55e00", "#6c7a96"
OTHERS = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
DASHES = ("--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)))
DPI = 150


def new_figure(width: float, height: float) -> Figure:
    """A figure of that size in inches that draws without any display."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def dress(axes: Axes, time: np.ndarray, label: str, ylabel: str) -> None:
    """Name the axes; mark dates as dates."""
    axes.set_ylabel(ylabel, parse_math=False)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    mark_time(axes, time, label)


def mark_time(axes: Axes, time: np.ndarray, label: str, most: int = 9) -> None:
    """Name the axis of time; dates get at most so many marks."""
    axes.set_xlabel(label, parse_math=False)
    if time.dtype.kind == "M":
        locator = AutoDateLocator(minticks=min(4, most - 1), maxticks=most)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def title_and_legend(axes: Axes, title: str) -> None:
    """The title, and under it the legend, both above the axes: neither covers data."""
    handles, labels = axes.get_legend_handles_labels()
    widths = [0.65 + 0.075 * len(label) for label in labels]
    room = axes.figure.bbox.width / DPI - 0.8
    columns = len(labels) if sum(widths) <= room else max(1, int(room / max(widths)))
    rows = ceil(len(labels) / columns)
    axes.set_title(title, loc="left", pad=6 + 16 * rows, parse_math=False)
    legend = axes.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        frameon=False,
        borderaxespad=0.2,
        fontsize=9,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def tint(colour: str, strength: float) -> str:
    """The colour on white: 1 as it is, 0 white."""
    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(colour))
    return to_hex((red, green, blue))


def shown(label: str) -> str:
    """The label as the legend needs it, which leaves out what begins with an underscore."""
    return f" {label}" if label.startswith("_") else label


def expect_shape(operation: str, what: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise ValueError where the values have another shape."""
    if np.shape(values) != shape:
        raise ValueError(
            f"{operation}: expected {what} of shape {shape}, got {np.shape(values)}; "
            "pass one value for each time"
        )
