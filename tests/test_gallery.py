"""docs/cells.md is what the code gives now, and its numbers are true."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from headgate import cells
from headgate.engines import run

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "cells.md").read_text(encoding="utf-8")


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "docs" / "make_gallery.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gallery"] = module  # where its dataclasses look for it
    spec.loader.exec_module(module)
    return module


gallery = load()
ENTRIES = gallery.entries()
EXAMPLES = {path.stem for path in (ROOT / "examples" / "cells").glob("*.py")}


def test_what_is_committed_is_what_the_code_gives() -> None:
    assert gallery.main(["--check"]) == 0


def test_check_says_in_one_line_what_differs(tmp_path: Path, capsys) -> None:
    assert gallery.main([], tmp_path) == 0
    assert gallery.main(["--check"], tmp_path) == 0
    page, old = tmp_path / "docs" / "cells.md", tmp_path / "docs" / "pictures" / "cells" / "old.svg"
    page.write_text(PAGE.replace("33,024", "33,025"), encoding="utf-8")
    assert gallery.main(["--check"], tmp_path) == 1
    assert gallery.main([], tmp_path) == 0
    old.write_text("<svg/>", encoding="utf-8")
    assert gallery.main(["--check"], tmp_path) == 1
    assert gallery.main([], tmp_path) == 0
    assert not old.exists()
    assert page.read_text(encoding="utf-8") == PAGE
    first, second = capsys.readouterr().err.splitlines()
    assert "first docs/cells.md; run python docs/make_gallery.py" in first
    assert "first docs/pictures/cells/old.svg; run python docs/make_gallery.py" in second


def test_a_cell_without_its_hand_written_text_is_refused(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.delitem(gallery.WHEN, "gru")
    assert gallery.main([], tmp_path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "WHEN has no text for the cell 'gru'" in line
    assert not list(tmp_path.iterdir())


def test_every_cell_has_its_section_and_its_row() -> None:
    names = re.findall(r"^### (\w+)$", PAGE, re.M)
    assert names == [*cells.BUILT_IN, *sorted(EXAMPLES)]
    rows = re.findall(r"^\| \[(\w+)\]\(#(\w+)\) \|", PAGE, re.M)
    assert rows == [(name, name.lower()) for name in names]
    assert set(names) == set(gallery.WHEN)


def test_every_link_and_picture_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert len(links) > 2 * len(ENTRIES)
    for link in links:
        assert (ROOT / "docs" / link).exists(), link


def test_mathematics_is_what_github_renders() -> None:
    blocks = re.findall(r"^```math\n(.*?)\n```$", PAGE, re.M | re.S)
    assert len(blocks) == len(ENTRIES)
    allowed = {"begin", "end", "sigma", "tanh", "exp", "log", "max", "odot", "cdot", "mathrm"}
    for block in blocks:
        assert block.startswith("\\begin{aligned}\n")
        assert block.endswith("\n\\end{aligned}")
        assert set(re.findall(r"\\([a-z]+)", block)) <= allowed | {"frac", "left", "right"}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_products_are_those_of_a_real_step(entry) -> None:
    program = entry.cell.program
    sizes = program.sizes(64, 64, gallery.named_sizes(program))
    families = {name: torch.zeros(program.shape(name, sizes)) for name in program.families}
    states = tuple(torch.zeros(1, sizes[state.width]) for state in program.states)
    with FlopCounterMode(display=False) as counter:
        run(program, families, torch.zeros(1, 1, 64), states, engine="reference")
    assert counter.get_total_flops() == 2 * gallery.products(program).number()


def test_formulas_of_the_lstm() -> None:
    """W (4H, I), R (4H, H), b (4H,); eight sums of products, five functions, c and h."""
    program = cells.lstm.program
    assert str(gallery.parameters(cells.lstm)) == "4HI + 4H² + 4H"
    assert str(gallery.products(program)) == "4HI + 4H²"
    assert str(gallery.elementwise(program)) == "17H"
    assert str(gallery.products(cells.lstm_projected.program)) == "4HI + 5HP"
    assert gallery.gates(cells.lstm_coupled.program) == ["i", "f", "o"]
    assert gallery.gates(cells.rnn.program) == []


@pytest.mark.parametrize(
    ("source", "short"),
    [
        ('J. L. Elman, "Finding structure in time", Cognitive Science 14 (1990).', "Elman 1990"),
        ('S. Hochreiter & J. Schmidhuber, "Long", N. 9 (1997).', "Hochreiter & Schmidhuber 1997"),
        ("K. Cho et al., EMNLP 2014, with the reset moved.", "Cho et al. 2014"),
        ('G.-B. Zhou, J. Wu & Z.-H. Zhou, "Minimal", Journal 13 (2016).', "Zhou et al. 2016"),
    ],
)
def test_short_sources(source: str, short: str) -> None:
    assert gallery.short_source(source) == short
