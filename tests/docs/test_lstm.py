"""docs/lstm.md in each language is a program: it runs, prints what it says, draws its pictures.

`python tests/docs/test_lstm.py`, from the root of a clone, draws the pictures anew.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from headgate.cli import main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ENGLISH, CHINESE = DOCS / "lstm.md", DOCS / "lstm.zh.md"
PAGES = (ENGLISH, CHINESE)
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
SAME = 0.0002
"""How far pixels (0 to 1) may be apart on average: engines differ by 0.00005 at most."""


@dataclass(frozen=True)
class Block:
    """A block of Python on a page, and the output that the page says it prints."""

    page: Path
    line: int
    code: str
    output: str

    def run(self, names: dict[str, Any]) -> str:
        """What it prints; an error's traceback shows the line of the page."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * self.line + self.code, str(self.page), "exec"), names)
        return "".join(f"{line.rstrip()}\n" for line in printed.getvalue().splitlines())


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2] or "")
        for found in BLOCK.finditer(text)
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The root of a clone as far as the pages need it, and the place to run in."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "docs" / "pictures").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def by_name(page: Path) -> str:
    return page.name


RUN = (ENGLISH, pytest.param(CHINESE, marks=pytest.mark.slow))
"""Their code is the same."""


@pytest.mark.parametrize("page", RUN, ids=by_name)
def test_a_page_prints_what_it_says_and_draws_its_pictures(page: Path, folder: Path) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        assert block.run(names) == block.output, f"{page.name}, line {block.line}"
    shown = re.findall(r"\]\((pictures/lstm_[\w.]+)\)", page.read_text(encoding="utf-8"))
    assert len(shown) == 4
    for name in shown:
        drawn, kept = imread(folder / "docs" / name), imread(DOCS / name)
        assert drawn.shape == kept.shape, name
        assert np.abs(drawn - kept).mean() < SAME, f"{name} is not the picture that is drawn today"


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_the_pages_commands_run(page: Path, folder: Path) -> None:
    text = page.read_text(encoding="utf-8")
    shell = "".join(re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))
    commands = shell.splitlines()
    assert len(commands) == 3
    for command in commands:
        program, *arguments = command.split()
        if "--compare" in arguments:  # as it stands, it trains for ten seconds
            arguments += ["--steps", "20", "--epochs", "1"]
        assert program == "headgate"
        with pytest.raises(SystemExit) as done:
            main(arguments)
        assert done.value.code == 0, command
    assert len((folder / "forecast.csv").read_text().splitlines()) == 1 + 24


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_the_lines_beside_the_equations_are_the_cells_own(page: Path) -> None:
    source = (ROOT / "src" / "headgate" / "cells" / "lstm.py").read_text(encoding="utf-8")
    cell = source[source.index("def lstm(") : source.index("def lstm_original(")]
    quoted = re.findall(r"\| `(\w = .*)` \|$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(quoted) == 6
    for line in quoted:
        assert f"    {line}\n" in cell


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", text), flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
    links = re.findall(r"\]\(([^)]+)\)", BLOCK.sub("", text))
    assert len(links) >= 10
    for link in links:
        name, _, anchor = link.partition("#")
        assert anchor in anchors if not name else (DOCS / name).exists(), link


def test_both_languages_run_the_same_program() -> None:
    english, chinese = blocks(ENGLISH), blocks(CHINESE)
    assert [block.output for block in english] == [block.output for block in chinese]
    for one, other in zip(english, chinese, strict=True):
        assert tree(one.code) == tree(other.code), f"lines {one.line} and {other.line}"


def tree(code: str) -> str:
    """The code without comments and docstrings, which are in the page's language."""
    parsed = ast.parse(code)
    for node in ast.walk(parsed):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            del node.body[0]
    return ast.dump(parsed)


if __name__ == "__main__":
    session: dict[str, Any] = {}
    for each in blocks(ENGLISH):
        each.run(session)
