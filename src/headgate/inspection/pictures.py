"""Line pictures. Times are (T,) datetime64 or integers, values (T,); NaN leaves a gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .ahead import Bands, check_bands, dot, draw_ahead, draw_bands, mark_start
from .style import (
    BASELINE,
    DASHES,
    NETWORK,
    OBSERVED,
    dress,
    expect_shape,
    new_figure,
    shown,
    title_and_legend,
)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write the picture; the format follows the name."""
    figure.savefig(path)


def forecast_figure(
    time: np.ndarray,
    values: np.ndarray,
    forecast_time: np.ndarray,
    forecast: np.ndarray,
    *,
    name: str = "value",
    time_name: str = "time",
    baseline: tuple[str, np.ndarray] | None = None,
    bands: Bands | None = None,
) -> Figure:
    """The observed values and the forecast after them, beside a named baseline (K,).

    `bands` are the lower and upper ends (K,) of intervals by their name, such as "80 %"; the wider
    are the lighter. Raises ValueError where shapes differ or a lower end lies above an upper one.
    """
    figure = new_figure(9, 4)
    axes = figure.add_subplot()
    ahead = (forecast_time, forecast)
    draw_ahead(axes, "forecast_figure", (time, values), ahead, bands, baseline)
    dress(axes, time, time_name, name)
    steps = "1 step" if len(forecast) == 1 else f"{len(forecast)} steps"
    title_and_legend(axes, f"{name}: {steps} ahead")
    return figure


def backtest_figure(
    time: np.ndarray,
    values: np.ndarray,
    origin_times: np.ndarray,
    forecasts: Mapping[str, np.ndarray],
    *,
    name: str = "value",
    time_name: str = "time",
    bands: Bands | None = None,
) -> Figure:
    """The observed values under the forecasts from past origins.

    `origin_times` (O, K) are the times of the forecasts, each (O, K); the first one named is drawn
    as the network's, the others as baselines. `bands` are the lower and upper ends (O, K) of the
    network's intervals by their name; the wider are the lighter. Raises ValueError where shapes
    differ or a lower end lies above an upper one.
    """
    figure = new_figure(9, 4)
    axes = figure.add_subplot()
    axes.plot(time, values, color=OBSERVED, linewidth=1.2, label="observed")
    for position, (label, rows) in enumerate(forecasts.items()):
        expect_shape("backtest_figure", f"forecasts of {label!r}", rows, np.shape(origin_times))
        style = {"color": NETWORK, "linewidth": 1.8, "zorder": 3}
        if position:
            dashes = DASHES[(position - 1) % len(DASHES)]
            style = {"color": BASELINE, "linewidth": 1.2, "zorder": 2, "linestyle": dashes}
        for row, (when, ahead) in enumerate(zip(origin_times, rows, strict=True)):
            named = shown(label) if row == 0 else None
            axes.plot(when, ahead, label=named, marker=dot(when), markersize=4, **style)
    for when in origin_times:
        mark_start(axes, when)
    check_bands("backtest_figure", np.shape(origin_times), bands or {})
    draw_bands(axes, origin_times, bands or {})
    dress(axes, time, time_name, name)
    origins = "1 past origin" if len(origin_times) == 1 else f"{len(origin_times)} past origins"
    title_and_legend(axes, f"{name}: forecasts from {origins}")
    return figure


def loss_figure(
    training: Sequence[float], validation: Sequence[float | None] | None = None
) -> Figure:
    """Mean loss of each epoch, on a logarithmic axis where it falls to a tenth."""
    figure = new_figure(7, 3.6)
    axes = figure.add_subplot()
    epochs = np.arange(1, len(training) + 1)
    axes.plot(epochs, training, color=NETWORK, marker=".", label="training")
    if validation is not None:
        known = [(e, v) for e, v in zip(epochs, validation, strict=True) if v is not None]
        axes.plot(*zip(*known, strict=True), color=OBSERVED, marker=".", label="validation")
    dress(axes, epochs, "epoch", "mean loss (scaled values)")
    if max(training) > 10 * min(training) > 0:
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return figure
