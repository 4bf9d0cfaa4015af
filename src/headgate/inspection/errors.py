"""How good the forecasts were: errors by step of the horizon, coverage of the intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from .style import (
    BASELINE,
    DASHES,
    NETWORK,
    OBSERVED,
    OTHERS,
    dress,
    expect_shape,
    new_figure,
    shown,
    tint,
    title_and_legend,
)

NAIVE = ("seasonal naive", "naive", "drift")
MARKED = 24
TOLERANCE = 3.0
WRITTEN = 6


def horizon_figure(
    steps: np.ndarray,
    errors: Mapping[str, np.ndarray],
    measure: str = "MAE",
    unit: str | None = None,
) -> Figure:
    """The error (K,) of each model at each step (K,) of the horizon.

    The first model named is drawn heavier, as the network's; naive, seasonal naive and drift are
    dashed. `unit` is that of the measure. Raises ValueError without a model or a step,
    and where shapes differ.
    """
    steps = np.asarray(steps)
    if not errors or not steps.size:
        raise ValueError(
            "horizon_figure: expected the errors of at least one model at one step or more, got "
            f"{len(errors)} models and {steps.size} steps; pass what a backtest measured"
        )
    figure = new_figure(7.5, 3.8)
    axes = figure.add_subplot()
    for model, style in _styles(list(errors)).items():
        expect_shape("horizon_figure", f"errors of {model!r}", errors[model], steps.shape)
        marker = "o" if len(steps) <= MARKED else ""
        axes.plot(steps, errors[model], label=shown(model), marker=marker, **style)
    dress(axes, steps, "steps ahead", f"{measure} ({unit})" if unit else measure)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=13, integer=True, min_n_ticks=1))
    axes.set_xlim(steps.min() - 0.5, steps.max() + 0.5)
    axes.set_ylim(bottom=0)
    title_and_legend(axes, f"{measure} by step of the horizon")
    return figure


def _styles(models: list[str]) -> dict[str, dict[str, Any]]:
    first, *rest = models
    styles: dict[str, dict[str, Any]] = {
        first: {"color": NETWORK, "linewidth": 2.6, "markersize": 5, "zorder": 4}
    }
    naive = [model for model in rest if model in NAIVE]
    for place, model in enumerate(naive):
        styles[model] = {"color": BASELINE, "linestyle": DASHES[place], "zorder": 2}
    for place, model in enumerate(model for model in rest if model not in NAIVE):
        styles[model] = {"color": OTHERS[place % len(OTHERS)], "zorder": 3}
    thin = {"linewidth": 1.4, "markersize": 3}
    return {model: thin | styles[model] for model in models}


def coverage_figure(nominal: np.ndarray, measured: np.ndarray) -> Figure:
    """How many outcomes lay within intervals (L,) that should hold `nominal` percent of them.

    `measured` (L,) is in percent too. On the diagonal the intervals hold what they promise; within
    the grey band they miss it by at most 3 points. Raises ValueError for shares instead of percent
    and where shapes differ.
    """
    nominal, measured = np.asarray(nominal, dtype=float), np.asarray(measured, dtype=float)
    expect_shape("coverage_figure", "measured coverages", measured, nominal.shape)
    if nominal.size == 0 or not ((nominal > 1) & (nominal < 100)).all():
        raise ValueError(
            "coverage_figure: expected nominal coverages in percent, such as 80 and 95; got "
            f"{nominal.tolist()}; multiply shares by 100"
        )
    figure = new_figure(5.4, 5.4)
    axes = figure.add_subplot()
    seen = np.concatenate([nominal, measured[~np.isnan(measured)]])
    low = max(0.0, 10 * np.floor(seen.min() / 10) - 10)
    line = np.array([low, 100 - TOLERANCE, 100])
    band = {"color": tint(BASELINE, 0.3), "linewidth": 0, "label": f"within {TOLERANCE:g} points"}
    axes.fill_between(line, line - TOLERANCE, np.minimum(line + TOLERANCE, 100), **band)
    axes.plot(line, line, color=OBSERVED, linewidth=1, linestyle="--", label="as promised")
    axes.vlines(nominal, nominal, measured, color=NETWORK, linewidth=1.2)
    axes.plot(nominal, measured, "o", color=NETWORK, markersize=7, label="measured", zorder=3)
    dress(axes, nominal, "nominal coverage (%)", "measured coverage (%)")
    axes.set(xlim=(low, 102), ylim=(low, 102), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MultipleLocator(5 if low >= 60 else 10))
    if len(nominal) <= WRITTEN:
        _write(axes, nominal, measured)
    title_and_legend(axes, "Coverage of the intervals")
    return figure


def _write(axes: Axes, nominal: np.ndarray, measured: np.ndarray) -> None:
    """Each measured coverage beside its point, on the side away from the diagonal."""
    for promised, found in zip(nominal, measured, strict=True):
        if not np.isnan(found):
            above = found >= promised
            axes.annotate(
                f"{found:.1f}",
                (promised, found),
                xytext=(-9, 0) if above else (9, 0),
                textcoords="offset points",
                ha="right" if above else "left",
                va="center",
                fontsize=9,
            )
