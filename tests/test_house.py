"""The shape of the house: which room may use which, what is public, what is pinned."""

from __future__ import annotations

import ast
import importlib
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import headgate

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "headgate"
FILES = sorted(SOURCE.rglob("*.py"))

# From the ground up. A room may import those of lower levels and itself, never its neighbours.
LEVELS = (
    {"native", "program"},
    {"cells"},
    {"engines"},
    {"nn"},
    {"training", "data", "inspection", "interop"},
    {"tasks"},
    {"cli"},
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

PUBLIC = {
    "GRU",
    "LSTM",
    "RNN",
    "Cell",
    "CellError",
    "Forecaster",
    "GRUCell",
    "LSTMCell",
    "Program",
    "ProgramError",
    "RNNCell",
    "Record",
    "Recurrent",
    "cell",
    "cells",
    "clip",
    "concat",
    "exp",
    "hard_sigmoid",
    "identity",
    "inspect",
    "layer_norm",
    "log",
    "log_sigmoid",
    "maximum",
    "minimum",
    "relu",
    "sigmoid",
    "softplus",
    "softsign",
    "sqrt",
    "tanh",
    "where",
}


def room_of(file: Path) -> str | None:
    """The room of a file; None for the front door, headgate/__init__.py."""
    place = file.relative_to(SOURCE).with_suffix("").parts
    return None if place == ("__init__",) else place[0]


def imported(file: Path) -> Iterator[str]:
    """Absolute names of what a file imports, at its top or inside a function.

    A plain `import headgate` counts by what is taken from it: `headgate.nn`, …
    """
    package = ("headgate", *file.relative_to(SOURCE).parts[:-1])
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name != "headgate")
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "headgate":
            yield f"headgate.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def label(file: Path) -> str:
    return str(file.relative_to(SOURCE if file.is_relative_to(SOURCE) else ROOT))


@pytest.mark.parametrize("file", FILES, ids=label)
def test_imports_run_one_way(file: Path) -> None:
    room = room_of(file)
    if room is None:
        return
    assert room in LEVEL, f"{label(file)}: give the room {room!r} a level in LEVELS"
    for name in imported(file):
        parts = name.split(".")
        if parts[0] != "headgate" or parts[1] == room or parts[1:] == ["__version__"]:
            continue
        other = parts[1]
        assert other in LEVEL, f"{label(file)} imports {name}: import from the room that holds it"
        assert LEVEL[other] < LEVEL[room], f"{label(file)} ({room}) imports {name} ({other})"


@pytest.mark.parametrize("file", [file for file in FILES if room_of(file) == "program"], ids=label)
def test_programs_know_no_torch(file: Path) -> None:
    assert not [name for name in imported(file) if name.split(".")[0] == "torch"]


@pytest.mark.parametrize("file", [*FILES, *sorted((ROOT / "csrc").iterdir())], ids=label)
def test_files_are_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400


def test_the_public_surface_is_this_list() -> None:
    assert sorted(headgate.__all__) == sorted(PUBLIC)


def test_public_names_exist_and_are_documented() -> None:
    for name in headgate.__all__:
        value = getattr(headgate, name, None) or importlib.import_module(f"headgate.{name}")
        assert value.__doc__, f"headgate.{name} has no docstring"


def test_every_direct_dependency_is_pinned_within_its_bounds() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    groups = (
        settings["build-system"]["requires"],
        project["dependencies"],
        *project["optional-dependencies"].values(),
    )
    for requirement in (Requirement(text) for group in groups for text in group):
        if requirement.name != project["name"]:
            assert {clause.operator for clause in requirement.specifier} == {">=", "<"}
            assert requirement.specifier.contains(pins[requirement.name]), requirement
