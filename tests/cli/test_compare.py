"""The comparison of cells: what it writes and says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.image import imread

from headgate.cli import compare as verb
from headgate.cli.compare import FILES, compare
from headgate.cli.options import Table
from headgate.data import DataError


def run(out: Path, data: Path | None = None, **options: Any) -> None:
    settings: dict[str, Any] = {
        "cells": ("rnn", "lstm"), "hidden_size": 4, "steps": 20, "epochs": 1, "seed": 0,
        "as_json": False,
    } | options  # fmt: skip
    compare(
        settings.pop("cells"), None if data is None else str(data), table=Table(), out=out,
        **settings,
    )  # fmt: skip


@pytest.fixture
def waves(tmp_path: Path) -> Path:
    path = tmp_path / "waves.csv"
    pl.DataFrame({"level": 50 + 9 * np.sin(np.arange(200) / 3)}).write_csv(path)
    return path


def test_it_writes_the_flows_and_says_them(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    run(out)
    said = capsys.readouterr().out
    assert "the first value, through noise, after 20 steps" in said
    assert "10 back" in said
    assert "50 back" not in said
    assert {entry.name for entry in out.iterdir()} == {*FILES}
    table = pl.read_csv(out / "gradient_flow.csv")
    assert table.columns[:2] == ["cell", "weights"]
    lines = table.group_by("cell", "weights", "state", maintain_order=True).len().rows()
    assert lines == [
        *(("rnn", "fresh", "h", 20), ("lstm", "fresh", "h", 20), ("lstm", "fresh", "c", 20)),
        *(("rnn", "trained", "h", 20), ("lstm", "trained", "h", 20), ("lstm", "trained", "c", 20)),
    ]
    assert imread(out / "gradient_flow.png").shape[1] > 1000


def test_json_and_the_table_hold_the_same(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    run(out, as_json=True)
    *lines, written = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["cell"] for line in lines] == ["rnn", "lstm"]
    assert written == {"event": "written", "path": str(out)}
    table = pl.read_csv(out / "gradient_flow.csv")
    for line in lines:
        for weights in ("fresh", "trained"):
            there = table.filter(
                pl.col("cell") == line["cell"], pl.col("weights") == weights,
                pl.col("state") == line["state"], pl.col("steps_back") == 10,
            )  # fmt: skip
            assert there["relative"].item() == line[weights]["10"]
        assert line["fresh"] != line["trained"]


def test_the_seed_fixes_every_number(tmp_path: Path, capsys: Any) -> None:
    said = []
    for seed in (0, 0, 1):
        run(tmp_path / "out", as_json=True, seed=seed)
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert said[0] != said[2]


def test_training_on_a_series_of_ones_own_lowers_the_error(
    waves: Path, tmp_path: Path, capsys: Any
) -> None:
    errors = []
    for epochs in (1, 40):
        run(tmp_path / "out", waves, cells=("gru",), epochs=epochs, as_json=True)
        line = json.loads(capsys.readouterr().out.splitlines()[0])
        assert line["task"] == "the next value of level, after 20 steps"
        errors.append(line["error"])
    assert errors[1] < 0.2 < errors[0]


def test_windows_of_the_test_come_after_those_of_training(waves: Path) -> None:
    """Scaled by the part that is trained on, its first 160 values."""
    rows = verb._windows(Table().read(str(waves)), 20)
    assert rows.inputs.shape == (140, 20, 1)
    assert rows.test_inputs.shape == (40, 20, 1)
    values = pl.read_csv(waves)["level"].to_numpy()
    scaled = (values - values[:160].mean()) / values[:160].std()
    np.testing.assert_allclose(rows.targets[:, 0], scaled[20:160], atol=1e-5)
    np.testing.assert_allclose(rows.test_targets[:, 0], scaled[160:], atol=1e-5)
    np.testing.assert_allclose(rows.test_inputs[0, :, 0], scaled[140:160], atol=1e-5)


def test_mistakes_write_nothing(waves: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no built-in cell is named 'lstn'"):
        run(tmp_path / "out", cells=("lstn",))
    with pytest.raises(DataError, match=r"more than 160 values before its last fifth, got 160"):
        run(tmp_path / "out", waves, steps=160)
    assert [entry.name for entry in tmp_path.iterdir()] == ["waves.csv"]


def test_a_cell_that_explodes_does_not_end_the_comparison(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "RATE", 1e18)
    run(tmp_path / "out", cells=("rnn_relu", "gru"))
    said = capsys.readouterr().out
    assert "rnn_relu: training ended early. fit: expected a finite number" in said
    run(tmp_path / "out", cells=("rnn_relu",), as_json=True)
    assert json.loads(capsys.readouterr().out.splitlines()[0])["error"] is None
    assert set(pl.read_csv(tmp_path / "out" / "gradient_flow.csv")["cell"]) == {"rnn_relu"}
