"""The series and its prediction over the steps of a page, as lines without a script."""

from __future__ import annotations

import numpy as np

from headgate.inspection.steps.numbers import Numbers
from headgate.inspection.tables import number, plain

WIDTH, HEIGHT = 1000, 150
LINES = ("observed", "prediction")


def chart_html(lines: dict[str, np.ndarray], steps: slice, numbers: Numbers, name: str) -> str:
    """Lines (T,) by their label, of which the given steps are drawn; gaps where a value is missing.

    The legend has a place for each value of the current step.
    """
    shown = {label: np.asarray(values[steps], np.float64) for label, values in lines.items()}
    every = np.concatenate(list(shown.values()))
    finite = every[np.isfinite(every)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    spread = (high - low) or 1.0
    paths, legend = [], []
    for kind, (label, values) in zip(LINES, shown.items(), strict=False):
        place = numbers.table(np.asarray(lines[label], np.float64)[:, None])
        height = HEIGHT - 6 - (values - low) / spread * (HEIGHT - 12)
        paths.append(f'<path class="{kind}" d="{_path(height)}"/>')
        legend.append(
            f'<span class="{kind}"><i></i>{plain(label)} '
            f'<b data-s="{place}" data-u="0">–</b></span>'
        )
    said = plain(f"{', '.join(lines)} over {len(every) // len(lines)} steps")
    return (
        f'<div class="legend">{"".join(legend)}<span class="range">{plain(name)}: '
        f"{number(low)} … {number(high)}</span></div>"
        f'<div class="track chart" data-track><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{said}" preserveAspectRatio="none">{"".join(paths)}</svg>'
        '<i class="cursor"></i></div>'
    )


def _path(height: np.ndarray) -> str:
    """An SVG path through the middle of each step's column."""
    x = (np.arange(len(height)) + 0.5) * WIDTH / len(height)
    words, pen = [], False
    for place, value in zip(x, height, strict=True):
        if np.isfinite(value):
            words.append(f"{'L' if pen else 'M'}{place:.1f} {value:.1f}")
            words += [] if pen else ["h0"]
        pen = bool(np.isfinite(value))
    return "".join(words)
