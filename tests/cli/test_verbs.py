"""fit, predict and evaluate; options from a file; places that cannot be written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headgate import Forecaster
from headgate.cli import main

QUICK = ("--epochs", "1", "--hidden-size", "4")


def code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    found = stopped.value.code
    assert isinstance(found, int)
    return found


def table(path: Path, months: int, shops: Sequence[str] = ()) -> Path:
    """Months of sales, each month after the other; one block for each shop."""
    parts = []
    for number, shop in enumerate(shops or [""]):
        t = np.arange(months)
        month = pl.date_range(pl.date(2010, 1, 1), pl.date(2060, 1, 1), "1mo", eager=True)[:months]
        sales = 50 + 10 * number + t / 4 + 8 * np.sin(2 * np.pi * t / 12)
        named = {"shop": [shop] * months} if shops else {}
        parts.append(pl.DataFrame({**named, "month": month, "sales": sales.round(3)}))
    pl.concat(parts).write_csv(path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated model of 96 months."""
    folder = tmp_path_factory.mktemp("fit")
    data, out = table(folder / "sales.csv", 96), folder / "model"
    arguments = ("fit", "forecast", str(data), "--horizon", "6", "--calibrate", *QUICK)
    assert code(*arguments, "--out", str(out)) == 0
    return out


def test_predict_is_what_the_loaded_model_says(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code("predict", str(model)) == 0
    printed = pl.read_csv(capsys.readouterr().out.encode())
    expected = Forecaster.load(model).predict()
    np.testing.assert_allclose(printed["sales"].to_numpy(), expected.values, rtol=1e-6)
    assert "q2.5" in "".join(printed.columns)
    for name, read in (("a.csv", pl.read_csv), ("a.parquet", pl.read_parquet)):
        assert code("predict", str(model), "--out", str(tmp_path / name)) == 0
        np.testing.assert_allclose(read(tmp_path / name)["sales"], expected.values, rtol=1e-6)
    assert {each.name for each in tmp_path.iterdir()} == {"a.csv", "a.parquet"}


def test_predict_follows_the_table_it_is_given(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = table(tmp_path / "later.csv", 108)
    assert code("predict", str(model), str(later), "--horizon", "3") == 0
    printed = pl.read_csv(capsys.readouterr().out.encode())
    assert printed["month"].to_list() == ["2019-01-01", "2019-02-01", "2019-03-01"]


def test_evaluate_stands_beside_the_naive_rules(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = table(tmp_path / "later.csv", 120)
    assert code("evaluate", str(model), str(later), "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    rows = [line for line in lines if line["event"] == "backtest"]
    assert [row["model"] for row in rows] == ["lstm", "seasonal naive", "naive", "drift"]
    assert all(row["mae"] > 0 for row in rows)


def test_a_file_holds_options_and_the_command_line_goes_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = table(tmp_path / "sales.csv", 60), tmp_path / "model"
    settings = tmp_path / "settings.toml"
    settings.write_text('horizon = 4\ncell = "gru"\nepochs = 1\nhidden_size = 3\n')
    arguments = ("fit", "forecast", str(data), "--config", str(settings), "--out", str(out))
    assert code(*arguments, "--cell", "rnn") == 0
    loaded = Forecaster.load(out)
    assert (loaded.cell, loaded.hidden_size, loaded.settings_.horizon) == ("rnn", 3, 4)
    settings.write_text("horizont = 4\n")
    capsys.readouterr()
    assert code(*arguments) == 2
    assert "horizont" in capsys.readouterr().err


def test_anomalies_of_several_series_are_listed(tmp_path: Path) -> None:
    data, out = table(tmp_path / "sales.csv", 72, ("north", "south")), tmp_path / "out"
    rows = pl.read_csv(data)
    spike = pl.when((pl.col("shop") == "south") & (pl.col("month") == "2014-05-01"))
    rows.with_columns(spike.then(500.0).otherwise(pl.col("sales")).alias("sales")).write_csv(data)
    arguments = ("forecast", str(data), "--horizon", "3", *QUICK, "--anomalies")
    assert code(*arguments, "--out", str(out)) == 0
    found = pl.read_csv(out / "anomalies.csv")
    assert ("south", "2014-05-01") in list(zip(found["unique_id"], found["month"], strict=True))
    assert set(pl.read_csv(out / "backtest_by_series.csv")["unique_id"]) == {"north", "south"}
    assert "Anomalies" in (out / "report.html").read_text(encoding="utf-8")


def test_search_tries_settings_before_the_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = table(tmp_path / "sales.csv", 96)
    arguments = ("forecast", str(data), "--horizon", "3", "--epochs", "1", "--search", "2")
    assert code(*arguments, "--out", str(tmp_path / "out"), "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(line["event"] == "trial" for line in lines) == 2
    assert sum(line["event"] == "chosen" for line in lines) == 1


FOREIGN = {
    "nothing": "there is no such model folder",
    "empty": "config.json is missing",
    "other": "not that of a Headgate model",
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_folder_that_is_no_model_is_said(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / what
    if what != "nothing":
        folder.mkdir()
    if what == "other":
        (folder / "config.json").write_text('{"architectures": ["Bert"]}')
    assert code("predict", str(folder)) == 1
    said = capsys.readouterr().err
    assert FOREIGN[what] in said
    assert said.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_one_line(model: Path) -> None:
    """Standard output stands for any file here: what is written to /dev/full finds no room."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "headgate.cli", "predict", str(model)],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_reader_that_stops_is_no_error(model: Path) -> None:
    command = f"{sys.executable} -m headgate.cli predict {model} --horizon 6 | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("month")
    assert done.stderr == ""


@pytest.mark.parametrize("place", ["file/out", "/proc/headgate/out"])
def test_a_place_that_cannot_be_written_is_said(
    place: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / place  # an absolute one replaces it
    data = table(tmp_path / "sales.csv", 60)
    for arguments in (
        ("forecast", str(data), "--horizon", "3", *QUICK),
        ("fit", "forecast", str(data), "--horizon", "3", *QUICK),
        ("predict", str(model)),
    ):
        assert code(*arguments, "--out", str(out)) == 1
        said = capsys.readouterr().err
        assert f"{out} cannot be written" in said
        assert said.count("\n") == 1
    assert {each.name for each in tmp_path.iterdir()} == {"file", "sales.csv"}
