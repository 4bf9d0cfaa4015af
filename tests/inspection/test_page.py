from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from headgate.inspection import Section, forecast_figure, gates_figure, loss_figure, page
from headgate.inspection.tables import number

VOID = {"meta", "img", "br", "hr", "link"}
TIME = np.arange("2010-01", "2020-01", dtype="datetime64[M]").astype("datetime64[s]")
VALUES = np.sin(np.arange(120.0))


class Page(HTMLParser):
    """What a browser finds; fails where a tag is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.setdefault(self.open[-1], []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def forecast() -> Figure:
    low, high = VALUES[108:] - 1, VALUES[108:] + 1
    bands = {"80 %": (low, high), "95 %": (low - 1, high + 1)}
    return forecast_figure(TIME[:108], VALUES[:108], TIME[108:], VALUES[108:], bands=bands)


def test_a_page_needs_nothing_else() -> None:
    sections = [
        Section("Forecast", "The next year.", forecast(), alt="The forecast rises."),
        Section("Errors", table=[{"model": "lstm", "mae": 1.0}]),
        Section("Loss", "It falls.", loss_figure([3.0, 2.0])),
        Section("See also", "https://example.org says more."),
    ]
    html = page("Sales", sections, lead="Twelve months ahead.")
    found = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert found.all("html") == [{"lang": "en"}]
    assert found.texts["h1"] == found.texts["title"] == ["Sales"]
    assert found.texts["h2"] == [section.heading for section in sections]
    assert found.texts["p"][:2] == ["Twelve months ahead.", "The next year."]
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in found.tags}
    values = [value or "" for _, attributes in found.tags for value in attributes.values()]
    assert not [value for value in values if "http:" in value or "https:" in value]
    assert not re.search(r"url\(|@import", html)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) == 4
    assert [link["href"] for link in found.all("a")] == [f"#{name}" for name in ids]


def test_pictures_are_within_the_page_and_said_in_words() -> None:
    sections = [
        Section("Forecast", figure=forecast(), alt='It "rises" & falls.'),
        Section("Next", figure=forecast()),
        Section("Loss", figure=loss_figure([3.0, 2.0])),
    ]
    images = Page(page("Sales", sections)).all("img")
    assert [image["alt"] for image in images] == [
        'It "rises" & falls.',
        "value: 12 steps ahead",
        "Loss",
    ]
    assert (images[0]["width"], images[0]["height"]) == ("864", "384")
    for image in images:
        kind, data = (image["src"] or "").split(";base64,")
        start = {"data:image/svg+xml": b"<?xml", "data:image/png": b"\x89PNG"}[kind]
        assert base64.b64decode(data).startswith(start)


def test_the_same_report_is_the_same_page() -> None:
    first, second = (page("Sales", [Section("Forecast", figure=forecast())]) for _ in range(2))
    assert first == second


def test_crowded_pictures_are_drawn_in_pixels() -> None:
    values = np.random.default_rng(0).normal(size=60_000)
    figure = forecast_figure(np.arange(50_000), values[:50_000], np.arange(10_000), values[50_000:])
    html = page("Load", [Section("Forecast", figure=figure)])
    assert "data:image/png" in html
    assert len(html) < 500_000


def test_eight_pictures_stay_small() -> None:
    units = np.random.default_rng(0).uniform(size=(120, 64))
    gates = gates_figure(TIME, VALUES, dict.fromkeys("ifgoc", units))
    figures = [*[forecast() for _ in range(6)], gates, loss_figure([3.0, 2.0])]
    html = page("Sales", [Section("Part", figure=figure) for figure in figures])
    assert len(html.encode()) < 2_000_000


def test_text_is_never_html() -> None:
    evil = "<script>alert('1')</script>\"&\x00\ud800"
    section = Section(evil, evil, forecast(), alt=evil, table=[{evil: evil, "n": 1}])
    html = page(evil, [section] * 4, lead=evil)
    html.encode("utf-8")
    found = Page(html)
    assert "<script" not in html
    shown = "<script>alert('1')</script>\"&\ufffd\ufffd"
    assert found.texts["h1"] == [shown]
    assert found.texts["td"] == ["1"] * 4
    assert found.texts["th"] == [shown, "n", shown] * 4
    assert {image["alt"] for image in found.all("img")} == {shown}


def test_tables_align_numbers_and_fold_when_long() -> None:
    rows = [{"model": "lstm", "mae": 1.23456, "n": 12000}, {"model": "naive", "mape": np.nan}]
    found = Page(page("Sales", [Section("Errors", table=rows)]))
    assert found.texts["th"] == ["model", "mae", "n", "mape", "lstm", "naive"]
    assert found.texts["td"] == ["1.235", "12000", "–", "–", "–", "–"]
    assert {cell.get("class") for cell in found.all("td")} == {"number"}
    assert [cell.get("scope") for cell in found.all("th")] == ["col"] * 4 + ["row"] * 2
    assert not found.all("details")
    long = Page(page("Sales", [Section("Steps", table=[{"step": n} for n in range(13)])]))
    assert long.texts["summary"] == ["Table of 13 rows"]
    assert long.all("div")[0]["aria-label"] == "Steps"


def test_a_table_of_nothing() -> None:
    with pytest.raises(ValueError, match="page: expected rows with at least one column"):
        page("Sales", [Section("Errors", table=[])])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.14159, "3.142"),
        (-0.5, "−0.5000"),
        (9.9996, "10.00"),
        (123.456, "123.5"),
        (12345.678, "12350"),
        (0.00012345, "0.0001234"),
        (1.5e-9, "1.500e−09"),
        (2e12, "2.000e+12"),
        (0.0, "0.000"),
        (7, "7"),
        (np.int64(-12), "−12"),
        (np.float32(0.25), "0.2500"),
        (float("nan"), "–"),
        (None, "–"),
        (float("-inf"), "−∞"),
    ],
)
def test_numbers_have_four_significant_digits(value: float | None, text: str) -> None:
    assert number(value) == text
