from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headgate import Forecaster, cell, sigmoid, tanh
from headgate.data import Series
from headgate.tasks import ModelError
from headgate.tasks.folder import whole_folder

NAMES = {
    "config.json",
    "history.json",
    "metrics.json",
    "model.safetensors",
    "preprocessing.json",
}

READ_ELSEWHERE = """
import sys, numpy as np
from headgate import Forecaster, Record
forecaster = Forecaster.load(sys.argv[1])
record = Record("keep")
values = forecaster.predict(record=record).values
assert record["keep"].shape[-1] == 4
np.save(sys.argv[2], values)
"""


@cell
def minimal(x, h, *, W, U, b):
    """A cell that no other process knows."""
    keep = sigmoid(W.keep @ x + U.keep @ h + b.keep)
    new = tanh(W.new @ x + U.new @ (keep * h) + b.new)
    h = (1 - keep) * h + keep * new
    return h


@cell(widths={"h": "narrow"})
def squeezed(x, h, s, *, W, R, P):
    """What is given out is narrower than what is remembered."""
    s = tanh(W @ x + R @ h + 0.5 * s)
    h = P @ s
    return h, s


def fitted(**options) -> Forecaster:
    steps = np.arange(60.0)
    series = Series(10 + np.sin(steps) + np.where(steps == 54, np.nan, 0), np.arange(60), name="y")
    options = {"hidden_size": 4, "epochs": 1, "window": 8, "horizon": 5, **options}
    return Forecaster(**options).fit(series)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model"
    fitted().save(path)
    return path


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(model, tmp_path / "copy")


@pytest.mark.parametrize("strategy", ["direct", "closed-loop"])
def test_a_loaded_forecaster_is_the_same(tmp_path: Path, strategy: str) -> None:
    forecaster = fitted(
        cell="lstm",
        strategy=strategy,
        hidden_size=(3, 4),
        num_layers=2,
    )
    forecaster.backtest(np.sin(np.arange(60.0)), origins=1)
    forecaster.save(tmp_path / "m")
    loaded = Forecaster.load(tmp_path / "m")
    assert loaded.get_params() == forecaster.get_params()
    np.testing.assert_array_equal(loaded.predict().values, forecaster.predict().values)
    np.testing.assert_array_equal(loaded.predict().time, forecaster.predict().time)
    assert loaded.metrics_["backtest"][0]["model"] == "lstm"
    loaded.save(tmp_path / "again")
    for name in NAMES:
        assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_users_cell_loads_in_a_process_that_never_saw_its_source(tmp_path: Path) -> None:
    forecaster = fitted(cell=minimal)
    forecaster.save(tmp_path / "m")
    script = [sys.executable, "-c", READ_ELSEWHERE, str(tmp_path / "m"), str(tmp_path / "y.npy")]
    subprocess.run(script, check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), forecaster.predict().values, rtol=1e-6)
    again = Forecaster.load(tmp_path / "m")
    assert again.name == "minimal"
    again.fit(np.sin(np.arange(40.0)))


def test_named_widths_travel(tmp_path: Path) -> None:
    forecaster = fitted(cell=squeezed, sizes={"narrow": 2})
    forecaster.save(tmp_path / "m")
    loaded = Forecaster.load(tmp_path / "m")
    assert loaded.sizes == {"narrow": 2}
    np.testing.assert_array_equal(loaded.predict().values, forecaster.predict().values)


def test_the_folder_is_json_and_safetensors_only(model: Path) -> None:
    assert {entry.name for entry in model.iterdir()} == NAMES
    config = json.loads((model / "config.json").read_text())
    assert config["format_version"] == 2
    assert config["task"] == "forecaster"
    assert json.loads((model / "history.json").read_text())["series"][0]["values"][3] is None


def test_no_model_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such model folder"):
        Forecaster.load(tmp_path / "absent")
    with pytest.raises(ModelError, match=r"config.json is missing; this is not a whole model"):
        Forecaster.load(tmp_path)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_missing_or_broken_part_is_named(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"\xff not this")
    with pytest.raises(ModelError, match=f"{name} cannot be read") as caught:
        Forecaster.load(copy)
    assert "\n" not in str(caught.value)
    (copy / name).unlink()
    with pytest.raises(ModelError, match=f"{name} is missing"):
        Forecaster.load(copy)


def change(path: Path, **entries: object) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **entries}))


def test_foreign_and_newer_models(copy: Path) -> None:
    change(copy / "config.json", format_version=3)
    with pytest.raises(ModelError, match=r"format version 3, this Headgate .* reads up to 2"):
        Forecaster.load(copy)
    change(copy / "config.json", format_version=1)
    with pytest.raises(ModelError, match=r"format version 1, .* before the first release; fit"):
        Forecaster.load(copy)
    change(copy / "config.json", format_version=2, task="tagger")
    with pytest.raises(ModelError, match="this is a tagger, a forecaster was expected"):
        Forecaster.load(copy)
    (copy / "config.json").write_text('{"hidden_size": 3}')
    with pytest.raises(ModelError, match="not that of a Headgate model"):
        Forecaster.load(copy)
    (copy / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="not that of a Headgate model"):
        Forecaster.load(copy)


def test_a_description_that_does_not_fit(copy: Path) -> None:
    recurrent = json.loads((copy / "config.json").read_text())["recurrent"]
    change(copy / "config.json", recurrent={**recurrent, "hidden_size": [5]})
    with pytest.raises(ModelError, match=r"model.safetensors does not fit config.json") as caught:
        Forecaster.load(copy)
    assert "\n" not in str(caught.value)
    change(copy / "preprocessing.json", series={"": {"turbo": True}})
    with pytest.raises(ModelError, match="the model's description is broken"):
        Forecaster.load(copy)


def test_saving_replaces_a_model_and_nothing_else(copy: Path, tmp_path: Path) -> None:
    (copy / "config.json").write_text("old")
    fitted().save(copy)
    Forecaster.load(copy)
    (copy / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match=r"holds something else .* choose another folder"):
        fitted().save(copy)
    assert (copy / "notes.txt").read_text() == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["copy"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").write_text("before")

    def fail() -> None:
        with whole_folder(out, ("a",)) as folder:
            (folder / "a").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (out / "a").read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
