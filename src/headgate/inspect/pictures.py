"""Line pictures. Times are (T,) datetime64 or integers, values (T,); NaN leaves a gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import BASELINE, NETWORK, OBSERVED, dress, new_figure


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
) -> Figure:
    """The observed values and the forecast after them, beside a named baseline (K,)."""
    figure = new_figure(9, 4)
    axes = figure.add_subplot()
    axes.plot(time, values, color=OBSERVED, linewidth=1.2, label="observed")
    if baseline is not None:
        label, ahead = baseline
        axes.plot(forecast_time, ahead, color=BASELINE, linestyle="--", linewidth=1.4, label=label)
    axes.plot(forecast_time, forecast, color=NETWORK, linewidth=2, label="forecast")
    axes.axvspan(forecast_time[0], forecast_time[-1], color=NETWORK, alpha=0.07, linewidth=0)
    dress(axes, time, time_name, name)
    axes.set_title(f"{name}: {len(forecast)} steps ahead")
    axes.legend(loc="upper left", frameon=False)
    return figure


def backtest_figure(
    time: np.ndarray,
    values: np.ndarray,
    origin_times: np.ndarray,
    forecasts: Mapping[str, np.ndarray],
    *,
    name: str = "value",
    time_name: str = "time",
) -> Figure:
    """The observed values under the forecasts from past origins.

    `origin_times` (O, K) are the times of the forecasts, each (O, K); the first one named is drawn
    as the network's, the others as baselines.
    """
    figure = new_figure(9, 4)
    axes = figure.add_subplot()
    axes.plot(time, values, color=OBSERVED, linewidth=1.2, label="observed")
    styles = ["-", "--", ":"]
    for position, (label, rows) in enumerate(forecasts.items()):
        colour = BASELINE if position else NETWORK
        for row, (when, ahead) in enumerate(zip(origin_times, rows, strict=True)):
            axes.plot(
                when,
                ahead,
                color=colour,
                linestyle=styles[min(position, 2)],
                linewidth=1.8 if position == 0 else 1.2,
                zorder=3 if position == 0 else 2,
                label=label if row == 0 else None,
            )
    for when in origin_times:
        axes.axvline(when[0], color=BASELINE, linewidth=0.6, alpha=0.6)
    dress(axes, time, time_name, name)
    axes.set_title(f"{name}: forecasts from past origins ({len(origin_times)})")
    axes.legend(loc="upper left", frameon=False)
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
