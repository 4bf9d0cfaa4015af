"""Tables in HTML: rows are mappings from a column's name to its value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from math import floor, inf, isfinite, log10
from numbers import Integral, Real
from typing import Any

LONG = 12
DIGITS = 4
LARGE = 1e9
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def plain(text: object) -> str:
    """Anything as HTML text, which stands for itself also within an attribute."""
    return escape(CONTROLS.sub("\ufffd", str(text)))


def number(value: Any) -> str:
    """A number to 4 significant digits, whole ones as they are; – where there is none."""
    if _missing(value):
        return "–"
    if isinstance(value, Integral):
        return str(int(value)).replace("-", "−")
    value = float(value)
    if not isfinite(value):
        return "∞" if value == inf else "−∞"
    place = floor(log10(abs(float(f"{value:.{DIGITS - 1}e}")))) if value else 0
    decimals = DIGITS - 1 - place
    if abs(value) >= LARGE or decimals > 2 * DIGITS:
        return f"{value:.{DIGITS - 1}e}".replace("-", "−")
    return f"{round(value, decimals):.{max(0, decimals)}f}".replace("-", "−")


def table_html(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """A table under its name; more than 12 rows are folded away.

    Columns stand in the order in which the rows first name them. Those that hold only numbers are
    aligned right. Raises ValueError without a row or a column.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if not columns:
        raise ValueError(
            f"page: expected rows with at least one column for the table {name!r}, got {rows!r}; "
            "leave the table out where there is nothing to show"
        )
    right = {column for column in columns if _numeric([row.get(column) for row in rows])}
    heads = "".join(f'<th scope="col"{_side(c in right)}>{plain(c)}</th>' for c in columns)
    body = "\n".join(f"<tr>{_cells(row, columns, right)}</tr>" for row in rows)
    table = (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{plain(name)}"><table>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )
    if len(rows) <= LONG:
        return table
    return f"<details><summary>Table of {len(rows)} rows</summary>\n{table}\n</details>"


def _cells(row: Mapping[str, Any], columns: Sequence[str], right: set[str]) -> str:
    cells = []
    for place, column in enumerate(columns):
        value = row.get(column)
        text = number(value) if _missing(value) or _is_number(value) else plain(value)
        if place == 0 and column not in right:
            cells.append(f'<th scope="row">{text}</th>')
        else:
            cells.append(f"<td{_side(column in right)}>{text}</td>")
    return "".join(cells)


def _side(right: bool) -> str:
    return ' class="number"' if right else ""


def _numeric(values: Sequence[Any]) -> bool:
    return all(_missing(value) or _is_number(value) for value in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, Real) and value != value)
