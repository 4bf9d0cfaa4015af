from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import headgate

SCRIPT = Path(__file__).with_name("fit_script.py")
SOURCE = Path(headgate.__file__).parents[1]

JOBS = {
    "a last batch of one row": {"epochs": 3, "optimizer": "sgd", "learning_rate": 0.1},
    "pieces": {"epochs": 3, "truncated_bptt": 3, "gradient_clip": 0.1, "l2": 0.1},
    "lbfgs": {"epochs": 3, "optimizer": {"kind": "lbfgs", "iterations": 4}},
    "time": {"epochs": 10**6, "max_seconds": 0.3},
    "interrupted": {"epochs": 10, "interrupt": True},
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fit_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes under torchrun have left their results of every job."""
    folder = tmp_path_factory.mktemp("distributed")
    jobs = [
        {"out": f"{folder}/{name}", "checkpoint": f"{folder}/{name} checkpoints", **settings}
        for name, settings in JOBS.items()
    ]
    torchrun = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--nproc-per-node=2"),
        *("--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    command = [*torchrun, str(SCRIPT), json.dumps(jobs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


def results(folder: Path, name: str) -> list[dict]:
    return [json.loads((folder / f"{name}.{rank}").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", ["a last batch of one row", "pieces", "lbfgs"])
def test_two_processes_give_one_process_s_gradients_and_weights(name, folder, script) -> None:
    one = script.train(**JOBS[name])
    first, second = results(folder, name)
    assert first == second
    torch.testing.assert_close(
        torch.tensor(first["history"], dtype=torch.float64),
        torch.tensor(one["history"], dtype=torch.float64),
        rtol=1e-9,
        atol=0,
    )
    for got, expected in zip(first["weights"], one["weights"], strict=True):
        assert got == pytest.approx(expected, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("reason", ["time", "interrupted"])
def test_all_processes_stop_together(reason, folder) -> None:
    """Also where Ctrl-C reached only one of them."""
    first, second = results(folder, reason)
    assert first["reason"] == second["reason"] == reason
    assert first == second


def test_the_first_process_writes_the_checkpoint(folder) -> None:
    written = sorted(path.name for path in (folder / "pieces checkpoints").iterdir())
    assert written == ["latest", "step-000003"]
