"""headgate inspect."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import headgate
from headgate import Forecaster
from headgate.cli import main
from headgate.data import read_panel

ALWAYS = {
    *("saturation.csv", "memory.csv", "units.csv", "units", "saturation.png", "memory.png"),
    *("report.html", "steps.html"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two series of daily values in sales.csv, and a model of two layers for them."""
    found = tmp_path_factory.mktemp("inspect")
    steps = np.arange(90)
    days = np.datetime64("2024-01-01") + steps
    rows = [
        pl.DataFrame({"shop": shop, "day": days, "sales": 20 + level * np.sin(steps / 3)})
        for shop, level in (("north", 3.0), ("south", 5.0))
    ]
    pl.concat(rows).write_csv(found / "sales.csv")
    panel = read_panel(found / "sales.csv", id="shop")
    model = Forecaster(hidden_size=3, num_layers=2, epochs=1, window=14, horizon=4, season=None)
    model.fit(panel).save(found / "model")
    return found


REASONS = {"flow.csv", "flow.png", "attribution.csv", "attribution.png"}


@pytest.fixture
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place to work in, from which the model and the table are ../…"""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(folder / "model")
    (tmp_path / "sales.csv").symlink_to(folder / "sales.csv")
    return tmp_path


def code(line: str) -> int:
    try:
        main(["inspect", *line.split()])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_inspect_writes_it_all(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code("model sales.csv --id shop --row 1 --steps 30 --gradients --unit 2") == 0
    said = capsys.readouterr().out
    assert "south: 30 steps read by the lstm cell" in said
    assert "Memory of c in layer 1: median" in said
    out = here / "inspect-output"
    assert {entry.name for entry in out.iterdir()} == {*ALWAYS, *REASONS, "values.csv"}
    assert {entry.name for entry in (out / "units").iterdir()} == {
        f"layer_{layer}{end}.png" for layer in (0, 1) for end in ("", "_errors", "_unit_2")
    }
    attribution = pl.read_csv(out / "attribution.csv")
    assert attribution.columns[:2] == ["time", "value"]
    assert attribution["time"][-1] == "2024-03-30"
    values = pl.read_csv(out / "values.csv")
    assert values.columns == [
        *("row", "id", "time", "layer", "direction", "name", "unit", "value", "gradient"),
    ]
    assert values.height == 30 * 2 * 6 * 3
    assert values["time"].unique().sort().to_list()[::29] == ["2024-03-01", "2024-03-30"]
    panel = read_panel(here / "sales.csv", id="shop")
    seen = headgate.inspect(here / "model", panel, row=1).last(30)
    found = values.filter(layer=1, name="f", unit=1)["value"]
    np.testing.assert_allclose(found, seen.layers[1, 0].values["f"][0, :, 1], rtol=1e-2)
    gates = pl.read_csv(out / "saturation.csv")
    assert gates["gate"].to_list() == ["i", "f", "o"] * 2
    assert gates["values"].to_list() == [90] * 6
    assert pl.read_csv(out / "memory.csv")["unit"].to_list() == [0, 1, 2] * 2
    assert pl.read_csv(out / "units.csv").columns == ["layer", "direction", "name", "unit", "what"]
    report = (out / "report.html").read_text(encoding="utf-8")
    for heading in (
        "All units of layer 1",
        "Error terms",
        "Unit 2 of layer 0",
        "Saturation",
        "Memory",
    ):
        assert heading in report
    assert "<script" in (out / "steps.html").read_text(encoding="utf-8")


def test_without_a_table_it_reads_what_the_model_keeps(here: Path) -> None:
    assert code("model --names f,c --format parquet --out seen") == 0
    values = pl.read_parquet(here / "seen" / "values.parquet")
    assert set(values["name"]) == {"f", "c"}
    assert values["time"].dtype == pl.Date
    assert str(values["time"].max()) == "2024-03-30"
    assert values["id"].unique().to_list() == ["north"]
    assert not (here / "seen" / "values.csv").exists()
    gates = pl.read_csv(here / "seen" / "saturation.csv")
    assert set(gates["gate"]) == {"f"}
    assert len(pl.read_csv(here / "seen" / "memory.csv")) == 6


def test_json_lines(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code("model --json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    events = [line["event"] for line in lines if line["event"] not in ("unit", "note")]
    assert events == ["series"] * 2 + ["saturation"] * 6 + ["memory"] * 6 + ["written"]
    gate = next(line for line in lines if line["event"] == "saturation")
    assert gate["closed"] + gate["half"] + gate["open"] == pytest.approx(1)
    assert lines[-1]["folder"] == "inspect-output"


def test_a_plain_network_has_no_gates_to_show(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Forecaster("rnn", hidden_size=3, epochs=1, window=14, horizon=4, season=None)
    model.fit(read_panel(here / "sales.csv", id="shop")).save(here / "plain")
    assert code("plain") == 0
    said = capsys.readouterr().out
    assert "Gates: none" in said
    assert "Memory: no state carries its old value" in said
    out = {entry.name for entry in (here / "inspect-output").iterdir()}
    assert out == {*ALWAYS, "values.csv"} - {"saturation.png", "memory.png"}


def test_a_second_run_replaces_the_first(here: Path) -> None:
    assert code("model --names f --format parquet --unit 1") == 0
    assert code("model --names f") == 0
    out = here / "inspect-output"
    assert {entry.name for entry in out.iterdir()} == {*ALWAYS, "values.csv"}
    assert not list(out.glob("units/*unit*"))


MISTAKES = {
    "": (2, "name a model folder, or cells with --compare"),
    "absent": (1, "absent: there is no such model folder"),
    "model absent.csv": (1, "absent.csv: there is no such file"),
    "model --names f,q": (1, "no value named 'q'; its values are i, f, g, o, c, h"),
    "model --row 2": (1, "there is no row 2; the data has 2 rows, 0 to 1"),
    "model --row -1": (1, "there is no row -1"),
    "model --unit 3": (1, "there is no unit 3; the layer has 3, from 0"),
    "model --steps 0": (2, "Must be >= 1"),
    "model --format xml": (2, "xml"),
    "model --epochs 3": (2, "are for --compare"),
    "model --compare rnn,gru --names f": (2, "--compare takes a table and no model"),
    "model sales.csv --compare rnn,gru": (2, "--compare takes a table and no model"),
    "--compare rnn,lstn": (1, "lstn"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line_and_write_nothing(
    mistake: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, said = MISTAKES[mistake]
    assert code(mistake) == expected
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("headgate: ")
    assert {entry.name for entry in here.iterdir()} == {"model", "sales.csv"}


def test_a_folder_with_other_files_is_left_alone(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code("model --out .") == 1
    assert "choose another folder" in capsys.readouterr().err


def test_compare_trains_cells_side_by_side(here: Path) -> None:
    small = "--hidden-size 2 --steps 12 --epochs 1"
    assert code(f"--compare rnn,gru sales.csv --id shop {small}") == 0
    assert (here / "compare-output" / "gradient_flow.csv").exists()
    flow = pl.read_csv(here / "compare-output" / "gradient_flow.csv")
    assert set(flow["cell"]) == {"rnn", "gru"}
