"""A forecast on an axis: what was observed, what is expected, and how surely."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from .style import BASELINE, NETWORK, OBSERVED, expect_shape, shown, tint

Bands = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Lower and upper ends of intervals, by what the legend calls them: "80 %", "95 %"."""


def draw_ahead(
    axes: Axes,
    operation: str,
    history: tuple[np.ndarray, np.ndarray],
    ahead: tuple[np.ndarray, np.ndarray],
    bands: Bands | None,
    baseline: tuple[str, np.ndarray] | None = None,
) -> None:
    """Times and values (T,) of a history, and (K,) of the forecast after it."""
    for what, (time, values) in (("values", history), ("a forecast", ahead)):
        expect_shape(operation, what, values, np.shape(time))
    time, forecast = ahead
    axes.plot(*history, color=OBSERVED, linewidth=1.2, label="observed")
    if baseline is not None:
        label, values = baseline
        expect_shape(operation, f"a baseline {label!r}", values, np.shape(time))
        style = {"color": BASELINE, "linestyle": "--", "linewidth": 1.4}
        axes.plot(time, values, label=shown(label), marker=dot(time), **style)
    axes.plot(time, forecast, color=NETWORK, linewidth=2, label="forecast", marker=dot(time))
    mark_start(axes, time)
    check_bands(operation, np.shape(time), bands or {})
    draw_bands(axes, time[None], {label: _rows(band) for label, band in (bands or {}).items()})


def check_bands(operation: str, shape: tuple[int, ...], bands: Bands) -> None:
    """Raise ValueError where ends have another shape, or a lower end lies above its upper one."""
    for label, (lower, upper) in bands.items():
        for end, values in (("lower", lower), ("upper", upper)):
            expect_shape(operation, f"the {end} end of {label!r}", values, shape)
        if (np.asarray(lower) > np.asarray(upper)).any():
            raise ValueError(
                f"{operation}: expected bands as (lower, upper); the lower end of {label!r} lies "
                "above its upper end; swap them or sort the quantiles"
            )


def draw_bands(axes: Axes, times: np.ndarray, bands: Bands) -> None:
    """Bands (O, K) at times (O, K), the wider the lighter, the narrower in front."""
    ordered = sorted(bands, key=lambda label: _width(bands[label]))
    strengths = [0.3] if len(ordered) == 1 else np.linspace(0.5, 0.2, len(ordered))
    for place, (label, strength) in enumerate(zip(ordered, strengths, strict=True)):
        colour = tint(NETWORK, float(strength))
        for row, (time, low, high) in enumerate(zip(times, *bands[label], strict=True)):
            named = {"label": shown(label) if row == 0 else None, "zorder": 1 - 0.01 * place}
            if len(time) == 1:
                axes.vlines(time, low, high, color=colour, linewidth=8, **named)
            else:
                axes.fill_between(time, low, high, color=colour, linewidth=0, **named)


def dot(time: np.ndarray) -> str:
    """The marker of a line: a single step would be invisible without one."""
    return "o" if len(time) == 1 else ""


def mark_start(axes: Axes, time: np.ndarray) -> None:
    """A thin line where a forecast begins; a single step needs none."""
    if len(time) > 1:
        axes.axvline(time[0], color=BASELINE, linewidth=0.6, alpha=0.6)


def _rows(band: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    lower, upper = band
    return np.asarray(lower)[None], np.asarray(upper)[None]


def _width(band: tuple[np.ndarray, np.ndarray]) -> float:
    lower, upper = band
    width = np.asarray(upper, dtype=float) - np.asarray(lower, dtype=float)
    return float(width[~np.isnan(width)].sum())
