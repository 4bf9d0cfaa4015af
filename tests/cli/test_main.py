from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import headgate
from headgate import Forecaster
from headgate.cli import main
from headgate.cli.output import FILES

QUICK = ["--epochs", "1", "--hidden-size", "3", "--horizon", "6"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    steps = np.arange(72)
    months = [f"{2010 + s // 12}-{s % 12 + 1:02d}" for s in steps]
    values = 20 + steps / 10 + np.sin(2 * np.pi * steps / 12)
    path = tmp_path / "sales.csv"
    pl.DataFrame({"month": months, "sales": values}).write_csv(path)
    return path


def code(*arguments: str) -> int:
    try:
        main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_forecast_does_it_all(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert code("forecast", str(table), *QUICK, "--out", str(out)) == 0
    said = capsys.readouterr().out
    assert "sales: 72 monthly values, 2010-01-01 to 2015-12-01" in said
    assert "time: column 'month'" in said
    assert "seasonal naive" in said
    absent = {"anomalies.csv", "backtest_by_series.csv"}
    assert {entry.name for entry in out.iterdir()} == {*FILES} - absent
    forecast = pl.read_csv(out / "forecast.csv")
    assert forecast.columns == ["month", "sales", "q2.5", "q10", "q90", "q97.5"]
    assert forecast["month"].to_list()[:2] == ["2016-01-01", "2016-02-01"]
    loaded = Forecaster.load(out / "model")
    np.testing.assert_allclose(loaded.predict().values, forecast["sales"].to_numpy(), rtol=1e-6)
    assert pl.read_csv(out / "backtest.csv")["model"].to_list()[0] == "lstm"
    assert loaded.metrics_["backtest"][0]["mase"] > 0


def test_json_lines(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert code("forecast", str(table), *QUICK, "--cell", "gru", "--out", out, "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == [
        "series",
        *["note"] * 2,
        *["backtest"] * 4,
        *["coverage"] * 2,
        *["forecast"] * 6,
        "written",
    ]
    assert lines[3]["model"] == "gru"


@pytest.mark.slow
def test_a_second_run_replaces_the_first(table: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert code("forecast", str(table), *QUICK, "--out", out) == 0
    assert code("forecast", str(table), *QUICK, "--out", out, "--strategy", "closed-loop") == 0
    assert Forecaster.load(tmp_path / "out" / "model").strategy == "closed-loop"


MISTAKES = {
    "absent.csv --horizon 6": (1, "absent.csv: there is no such file"),
    "{table} --horizon 6 --target profit": (1, "no column 'profit'; the columns are 'month', 'sa"),
    "{table} --horizon 60": (1, "the series is too short"),
    "{table} --horizon 0": (2, "Must be >= 1"),
    "{table} --horizon 6 --cell lstn": (2, "no built-in cell is named 'lstn'"),
    "{table}": (2, "--horizon"),
    "{table} --horizon six": (2, "six"),
    "{table} --horizon 6 --colour red": (2, "--colour"),
    "{table} --horizon 6 --strategy open": (2, "open"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line_and_write_nothing(
    mistake: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, said = MISTAKES[mistake]
    out = tmp_path / "out"
    arguments = ["forecast", *mistake.format(table=table).split(), "--epochs", "1"]
    assert code(*arguments, "--out", str(out)) == expected
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("headgate: ")
    assert [entry.name for entry in tmp_path.iterdir()] == ["sales.csv"]


def test_a_folder_with_other_files_is_left_alone(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert code("forecast", str(table), *QUICK, "--out", str(tmp_path)) == 1
    assert "choose another folder" in capsys.readouterr().err
    assert {entry.name for entry in tmp_path.iterdir()} == {"sales.csv", "thesis.tex"}


def test_an_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert code("prophesy") == 2
    assert "prophesy" in capsys.readouterr().err


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert code("info", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["headgate"] == headgate.__version__
    assert isinstance(facts["compiled_part"], bool)
    assert facts["compiled_part_reason"]
    assert facts["engine_for_lstm"] in ("cpu", "aten")
    assert code("info") == 0
    assert "torch threads" in capsys.readouterr().out


def test_standard_input_and_the_module(table: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "headgate.cli", "forecast", "-", *QUICK, "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, input=table.read_bytes(), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "out" / "forecast.csv").exists()


def test_ctrl_c_leaves_nothing_half_written(table: Path, tmp_path: Path) -> None:
    arguments = ["forecast", str(table), "--horizon", "6", "--epochs", "1000000", "--out", "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "headgate.cli", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "sales" in process.stdout.readline()
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (said, process.returncode) == ("headgate: stopped by Ctrl-C; nothing was written\n", 130)
    assert [entry.name for entry in tmp_path.iterdir()] == ["sales.csv"]
