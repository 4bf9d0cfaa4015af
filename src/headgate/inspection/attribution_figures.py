"""Attribution as a picture: the inputs over time, and below them what each step of them did."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from .ahead import dot
from .style import (
    NETWORK,
    OBSERVED,
    OTHERS,
    dress,
    expect_shape,
    mark_time,
    new_figure,
    shown,
    title_and_legend,
)

LINES = 5
"""Inputs that are drawn as lines; of more, those with the largest attribution."""


def attribution_figure(
    input: np.ndarray,
    attribution: np.ndarray,
    *,
    names: Sequence[str] = (),
    time: np.ndarray | None = None,
    time_name: str = "step",
    prediction: str = "the prediction",
) -> Figure:
    """One row's inputs (T, I) as lines, and their attribution (T, I) as colours around zero.

    Red raised the prediction, blue lowered it, both on one scale. `names` are those of the inputs,
    `time` (T,) the labels of the steps, `prediction` what was predicted. Raises ValueError where
    shapes differ.
    """
    input, attribution = np.asarray(input), np.asarray(attribution)
    expect_shape("attribution_figure", "an attribution", attribution, input.shape)
    steps, width = input.shape
    time = np.arange(steps) if time is None else np.asarray(time)
    expect_shape("attribution_figure", "a time", time, (steps,))
    named = list(names) or [f"x{k}" for k in range(width)]
    expect_shape("attribution_figure", "names", np.asarray(named), (width,))
    figure = new_figure(9, 3.6 + 0.28 * min(width, 30))
    heights = {"height_ratios": [2.4, 0.9 + 0.28 * min(width, 30)]}
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw=heights)
    largest = sorted(np.argsort(-np.abs(attribution).sum(0), kind="stable")[:LINES])
    for colour, place in zip((OBSERVED, NETWORK, *OTHERS), largest, strict=False):
        above.plot(time, input[:, place], color=colour, marker=dot(time), label=shown(named[place]))
    dress(above, time, "", "input" if width > 1 else named[0])
    title_and_legend(above, f"What moved {prediction}")
    limit = float(np.abs(attribution).max(initial=0.0)) or 1.0
    image = below.pcolormesh(
        _edges(time), np.arange(width + 1) - 0.5, attribution.T,
        cmap="RdBu_r", vmin=-limit, vmax=limit, rasterized=True,
    )  # fmt: skip
    below.set_yticks(np.arange(width)[:: max(1, width // 30)], named[:: max(1, width // 30)])
    for label in below.get_yticklabels():
        label.set_parse_math(False)
    below.invert_yaxis()
    mark_time(below, time, time_name)
    figure.colorbar(image, ax=below, pad=0.01, label="attribution")
    return figure


def _edges(time: np.ndarray) -> np.ndarray:
    """Where the cells of the steps end (T + 1,): half way to the neighbours."""
    places = np.asarray(date2num(time) if time.dtype.kind == "M" else time, float)
    middles = (places[1:] + places[:-1]) / 2
    first, last = (middles[0], middles[-1]) if len(middles) else (places[0] - 0.5, places[0] + 0.5)
    return np.r_[2 * places[0] - first, middles, 2 * places[-1] - last]
