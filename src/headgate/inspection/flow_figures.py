"""Gradient flow as lines: one a model, over the steps back from the loss."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .flow import Flow
from .style import BASELINE, NETWORK, OBSERVED, OTHERS, dress, new_figure, title_and_legend

RESOLUTION = 2.0**-23
"""Of float32: beside the last step's gradient, one that is smaller by this adds nothing."""
LOWEST = 1e-16
"""Where the axis ends at the latest."""
LINES = ("-", "--", "-.", ":")


def flow_figure(flows: Mapping[str, Flow], *, trained: Mapping[str, Flow] | None = None) -> Figure:
    """The norm of ∂loss/∂state relative to the last step, by steps back: one line a model.

    Of each model the last layer's state that carries the gradient back is drawn, which the legend
    names. With `trained`, the same models after training stand in a second panel. Raises ValueError
    without a flow.
    """
    panels = {"Gradient flow": flows}
    if trained is not None:
        panels = {"Fresh weights": flows, "After training": trained}
    if not all(panels.values()):
        raise ValueError("flow_figure: expected the flow of at least one model, got none")
    figure = new_figure(5.6 * len(panels), 4.2)
    places = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, each) in zip(places, panels.items(), strict=True):
        _panel(axes, each, title)
    low = min(_lowest(flow) for each in panels.values() for flow in each.values())
    places[0].set_ylim(bottom=max(LOWEST, min(low, RESOLUTION) / 3))
    for axes in places[1:]:
        axes.set_ylabel("")
    return figure


def _panel(axes: Axes, flows: Mapping[str, Flow], title: str) -> None:
    colours = (NETWORK, *OTHERS, OBSERVED)
    for place, (label, flow) in enumerate(flows.items()):
        relative = flow.relative()
        axes.plot(
            np.arange(len(relative)),
            np.where(relative > 0, relative, np.nan),
            color=colours[place % len(colours)],
            linestyle=LINES[place % len(LINES)],
            linewidth=1.8,
            label=f"{label} ({flow.carrier()})",
        )
    axes.axhline(RESOLUTION, color=BASELINE, linewidth=1, alpha=0.7, label="float32 resolution")
    axes.set_yscale("log")
    dress(axes, np.zeros(1), "steps back", "gradient norm, relative to the last step")
    title_and_legend(axes, title)


def _lowest(flow: Flow) -> float:
    relative = flow.relative()
    return float(np.min(relative[relative > 0], initial=1.0))
