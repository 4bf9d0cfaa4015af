from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import headgate
from headgate.training import (
    ArrayBatches,
    Checkpoint,
    CheckpointError,
    FitConfig,
    fit,
    load_checkpoint,
    save_checkpoint,
)

SCRIPT = Path(__file__).with_name("fit_script.py")
SOURCE = Path(headgate.__file__).parents[1]


def run(net, data, folder=None, resume=False, loss="mse", **settings):
    return fit(
        net,
        ArrayBatches(*data, batch_size=4),
        loss=loss,
        config=FitConfig(**{"learning_rate": 0.02, **settings}),
        validation=ArrayBatches(data[0].flip(0) * 0.9, data[1].flip(0)),
        checkpoint=folder,
        resume=resume,
    )


def numbers(net, result):
    history = [(r.train_loss, r.validation_loss, r.learning_rate) for r in result.history]
    return history, [p.tolist() for p in net.parameters()], result.best_epoch


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam", "adamw", "lbfgs"])
@pytest.mark.parametrize("keep", ["best", "last"])
def test_stopped_and_resumed_is_bit_for_bit_never_stopped(
    optimizer, keep, make_net, data, tmp_path
) -> None:
    settings = {"optimizer": optimizer, "keep": keep, "schedule": "exponential", "epochs": 7}
    if optimizer == "lbfgs":
        settings["optimizer"] = {"kind": "lbfgs", "iterations": 3}
    alone, net = make_net(dropout=0.3), make_net(dropout=0.3)
    expected = numbers(alone, run(alone, data, **settings))
    run(net, data, tmp_path, **{**settings, "epochs": 3})
    net = make_net(dropout=0.3)
    net.head.bias.data.fill_(9.0)
    result = run(net, data, tmp_path, resume=True, **settings)
    assert numbers(net, result) == expected
    assert [p.name for p in tmp_path.glob("step-*")] == ["step-000007"]


def test_resuming_a_finished_fit_gives_its_result_again(make_net, data, tmp_path) -> None:
    net, again = make_net(), make_net()
    result = run(net, data, tmp_path, epochs=3)
    repeated = run(again, data, tmp_path, resume=True, epochs=3)
    assert numbers(again, repeated) == numbers(net, result)
    assert repeated.stop_reason == "epochs"
    assert repeated.seconds >= result.history[-1].seconds


def test_an_interrupted_epoch_is_done_again(make_net, data, tmp_path) -> None:
    class Interrupt(ArrayBatches):
        def epoch(self, k, generator):
            for number, batch in enumerate(super().epoch(k, generator)):
                if (k, number) == (2, 1):
                    os.kill(os.getpid(), signal.SIGINT)
                yield batch

    net, alone = make_net(dropout=0.3), make_net(dropout=0.3)
    config = FitConfig(epochs=5)
    batches = Interrupt(*data, batch_size=4)
    first = fit(net, batches, loss="mse", config=config, checkpoint=tmp_path)
    assert (first.stop_reason, first.epochs) == ("interrupted", 2)
    batches = ArrayBatches(*data, batch_size=4)
    result = fit(net, batches, loss="mse", config=config, checkpoint=tmp_path, resume=True)
    expected = fit(alone, batches, loss="mse", config=config)
    assert numbers(net, result) == numbers(alone, expected)


def test_another_configuration_model_or_loss_is_refused(make_net, data, tmp_path) -> None:
    run(make_net(), data, tmp_path, epochs=2)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    refused = [
        (
            r"resume: expected learning_rate 0.02 as in the checkpoint, got 0.5",
            {"learning_rate": 0.5},
        ),
        (r"resume: expected loss 'MeanSquaredError\(\)' .* got 'MeanAbs", {"loss": "mae"}),
        (r"resume: expected seed 0 as in the checkpoint, got 1", {"seed": 1}),
    ]
    for message, change in refused:
        with pytest.raises(CheckpointError, match=message):
            run(make_net(), data, tmp_path, resume=True, epochs=2, **change)
    with pytest.raises(CheckpointError, match=r"head.bias of shape \(2,\) as in this model"):
        run(make_net(outputs=2), data, tmp_path, resume=True, epochs=2)
    with pytest.raises(CheckpointError, match=r"earlier fit, after epoch 2; .* resume=True"):
        run(make_net(), data, tmp_path, epochs=2)
    with pytest.raises(ValueError, match="say which folder with checkpoint="):
        run(make_net(), data, resume=True)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_cosine_schedule_is_not_resumed_with_other_epochs(make_net, data, tmp_path) -> None:
    run(make_net(), data, tmp_path, epochs=2, schedule="cosine")
    with pytest.raises(CheckpointError, match="expected epochs 2 as in the checkpoint, got 3"):
        run(make_net(), data, tmp_path, resume=True, epochs=3, schedule="cosine")


def test_a_damaged_checkpoint_says_so(make_net, data, tmp_path) -> None:
    run(make_net(), data, tmp_path, epochs=1)
    state = tmp_path / "step-000001" / "state.json"
    text = state.read_text()
    state.write_text(text.replace('"format": 1', '"format": 99'))
    with pytest.raises(CheckpointError, match="expected format 1, got 99"):
        load_checkpoint(tmp_path)
    state.write_text(text[:50])
    with pytest.raises(CheckpointError, match="remove the folder to start again"):
        load_checkpoint(tmp_path)
    state.write_text(text)
    (tmp_path / "step-000001" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="remove the folder to start again"):
        load_checkpoint(tmp_path)


def test_what_is_saved_comes_back(tmp_path) -> None:
    assert load_checkpoint(tmp_path / "none") is None
    optimizer = {"state": {0: {"d": [torch.ones(2), None, torch.tensor(3.0)]}}, "g": (1, 0.1, True)}
    tied = torch.arange(3.0)
    saved = Checkpoint({"epoch": 3}, {"a": tied, "b": tied}, optimizer)
    save_checkpoint(tmp_path, 3, saved)
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.state == {"epoch": 3}
    assert found.best is None
    assert torch.equal(found.model["b"], tied)
    assert str(found.optimizer) == str(optimizer)
    with pytest.raises(TypeError, match="cannot store set at /x"):
        save_checkpoint(tmp_path, 4, Checkpoint({}, {}, {"x": {1}}))
    assert load_checkpoint(tmp_path) is not None


@pytest.fixture(scope="module")
def server():
    """A process that forks one for every job it is sent."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(SCRIPT)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        yield process


def run_job(server, **job) -> int:
    """The job's exit code."""
    server.stdin.write(json.dumps(job) + "\n")
    server.stdin.flush()
    return int(server.stdout.readline())


def test_killed_at_random_moments_and_resumed_ends_as_one_left_alone(server, tmp_path) -> None:
    settings = {"epochs": 40, "dropout": 0.3, "gradient_clip": 0.5, "keep": "best"}
    assert run_job(server, out=f"{tmp_path}/alone", **settings) == 0
    job = {"out": f"{tmp_path}/killed", "checkpoint": f"{tmp_path}/checkpoints", **settings}
    chance = random.Random()
    codes = [run_job(server, kill_after=chance.uniform(0.02, 0.3), **job) for _ in range(6)]
    assert -signal.SIGKILL in codes
    assert run_job(server, **job) == 0
    alone, killed = ((tmp_path / f"{name}.0").read_text() for name in ("alone", "killed"))
    assert killed == alone


def test_a_kill_while_writing_leaves_the_last_checkpoint_whole(server, tmp_path) -> None:
    """A process that does nothing but save, killed again and again."""
    chance, newest = random.Random(), 0
    for _ in range(20):
        run_job(server, kill_after=chance.uniform(0.0, 0.1), folder=str(tmp_path))
        found = load_checkpoint(tmp_path)
        if found is None:
            continue
        assert found.state["epoch"] >= newest
        newest = found.state["epoch"]
        for tensors in (found.model, found.best, found.optimizer):
            assert tensors is not None
            assert torch.equal(tensors["w"], torch.full((2000,), float(newest)))
    assert newest > 0
