"""One HTML file with text, pictures and tables, which needs nothing else: no network, no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from .tables import plain, table_html

DPI = 200
WIDE = 6.0
LISTED = 4

STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --soft: #57606a; --line: #d0d7de;
  --back: #fff; --shade: #f6f8fa; --link: #0067a3 }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --soft: #a3adb8; --line: #3d444d;
  --back: #12161c; --shade: #1b2129; --link: #6cb8ea } }
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100% }
body { margin: 0 auto; max-width: 58rem; padding: 1.5rem 1rem 4rem; color: var(--text);
  background: var(--back); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: break-word }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0.5rem 0 }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.5rem 0 0.5rem }
p { margin: 0.5rem 0; max-width: 44rem }
a { color: var(--link) }
nav ul { margin: 1rem 0; padding: 0; display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem;
  list-style: none }
figure { margin: 1rem 0 }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px }
.scroll { overflow-x: auto; margin: 1rem 0 }
.scroll:focus-visible { outline: 2px solid var(--link) }
table { border-collapse: collapse; font-size: 0.9rem }
th, td { padding: 0.3rem 0.8rem; text-align: left; vertical-align: baseline; white-space: nowrap;
  border-bottom: 1px solid var(--line) }
thead th { color: var(--soft); font-weight: 600 }
tbody th { font-weight: 400 }
tbody tr:hover { background: var(--shade) }
.number { text-align: right; font-variant-numeric: tabular-nums }
summary { cursor: pointer; color: var(--link) }
@media (max-width: 40rem) { img.wide { max-width: none; width: 36rem } }
@media (prefers-color-scheme: dark) { img { filter: brightness(0.92) } }
@media print {
  :root { --text: #000; --soft: #444; --line: #bbb; --back: #fff; --shade: #fff; --link: #000 }
  body { max-width: none; padding: 0; font-size: 10pt }
  nav { display: none }
  .scroll { overflow: visible }
  img, img.wide { max-width: 100%; width: auto; filter: none }
  figure, tr { break-inside: avoid }
  h2, h2 + p { break-after: avoid }
  details:not([open])::details-content { content-visibility: visible; height: auto }
}
""".strip()


@dataclass(frozen=True)
class Section:
    """A heading, what it shows in a sentence, and a picture, a table, or both.

    `alt` says in words what the picture shows, for those who cannot see it; without it the
    picture's own title does. `table` rows are mappings from a column's name to its value.
    """

    heading: str
    text: str = ""
    figure: Figure | None = None
    alt: str = ""
    table: Sequence[Mapping[str, Any]] | None = None


def page(title: str, sections: Sequence[Section], *, lead: str = "") -> str:
    """A whole HTML page: the title, a `lead` of a sentence or two, the sections in their order.

    All text is taken as it is, never as HTML. Numbers are shown to 4 significant digits; tables of
    more than 12 rows are folded. Write it as UTF-8. Raises ValueError for a table without columns.
    """
    parts = "\n".join(_section(number, each) for number, each in enumerate(sections, 1))
    opening = f"<p>{plain(lead)}</p>\n" if lead else ""
    links = "".join(
        f'<li><a href="#part-{number}">{plain(each.heading)}</a></li>'
        for number, each in enumerate(sections, 1)
    )
    nav = f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n' if len(sections) >= LISTED else ""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{plain(title)}</title>
<style>
{STYLE}
</style>
</head>
<body>
<header>
<h1>{plain(title)}</h1>
{opening}{nav}</header>
<main>
{parts}
</main>
</body>
</html>
"""


def _section(number: int, section: Section) -> str:
    parts = [f'<section aria-labelledby="part-{number}">']
    parts.append(f'<h2 id="part-{number}">{plain(section.heading)}</h2>')
    if section.text:
        parts.append(f"<p>{plain(section.text)}</p>")
    if section.figure is not None:
        alt = section.alt or _title(section.figure) or section.heading
        parts.append(_image(section.figure, alt))
    if section.table is not None:
        parts.append(table_html(section.table, section.heading))
    return "\n".join([*parts, "</section>"])


def _title(figure: Figure) -> str:
    """What stands above the picture."""
    titles = [figure.get_suptitle()]
    titles += [axes.get_title(side) for axes in figure.axes for side in ("center", "left")]
    return next(filter(None, titles), "")


def _image(figure: Figure, alt: str) -> str:
    """The picture as an image within the page: as SVG, or as PNG where that is smaller."""
    kind, data = min(
        ("svg+xml", _drawn(figure, "svg", metadata={"Date": None, "Creator": None})),
        ("png", _drawn(figure, "png", dpi=DPI, metadata={"Software": None})),
        key=lambda each: len(each[1]),
    )
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    wide = ' class="wide"' if figure.get_size_inches()[0] > WIDE else ""
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return (
        f'<figure class="scroll" tabindex="0"><img{wide} src="{source}" alt="{plain(alt)}" '
        f'width="{width}" height="{height}"></figure>'
    )


def _drawn(figure: Figure, form: str, **options: Any) -> bytes:
    """The picture in that form; the same bytes for the same picture."""
    data = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "headgate"}):
        figure.savefig(data, format=form, **options)
    return data.getvalue()
