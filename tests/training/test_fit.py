from __future__ import annotations

import json
import random
import warnings

import numpy as np
import pytest
import torch

from headgate.training import ArrayBatches, Batch, FitConfig, NonFiniteLossError, fit


def run(net, data, validation=True, batch_size: int | None = 4, **settings):
    settings = {"epochs": 4, "learning_rate": 0.02, **settings}
    validation = ArrayBatches(data[0].flip(0) * 0.9, data[1].flip(0)) if validation else None
    return fit(
        net,
        ArrayBatches(*data, batch_size=batch_size),
        loss="mse",
        config=FitConfig(**settings),
        validation=validation,
    )


def losses(result) -> list[float]:
    return [record.train_loss for record in result.history]


def weights(net) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def test_training_lowers_the_loss_and_the_result_is_json(make_net, data) -> None:
    result = run(make_net(), data, epochs=40)
    assert losses(result)[-1] < 0.1 * losses(result)[0]
    assert [record.epoch for record in result.history] == list(range(1, 41))
    document = json.loads(json.dumps(result.to_dict()))
    assert document["stop_reason"] == "epochs"
    assert document["history"][3]["train_loss"] == losses(result)[3]


CHANGES = {
    "epochs": 3,
    "optimizer": "rmsprop",
    "learning_rate": 0.01,
    "schedule": "cosine",
    "warmup_epochs": 2,
    "gradient_clip": 0.01,
    "clip_method": "norm",
    "l2": 0.5,
    "learning_rate_factors": {"W": 2.0},
    "l2_factors": {"b": 0.0},
    "truncated_bptt": 3,
    "max_seconds": 1e-9,
    "patience": 1,
    "min_delta": 10.0,
    "loss_threshold": 100.0,
    "tolerance": 0.9,
    "keep": "last",
    "validation_every": 3,
    "checkpoint_every": 3,
    "watch_gradients": True,
    "seed": 1,
}
BESIDE = {
    "clip_method": {"gradient_clip": 0.01, "optimizer": "sgd"},
    "l2_factors": {"l2": 0.5},
    "min_delta": {"patience": 2},
    "patience": {"learning_rate": 1.0},
    "keep": {"learning_rate": 1.0},
    "watch_gradients": {"schedule": {"kind": "exponential", "factor": 100.0}},
}


@pytest.mark.parametrize("field", FitConfig.model_fields)
def test_every_field_changes_something(field, make_net, data, tmp_path) -> None:
    outcomes = []
    for change in ({}, {field: CHANGES[field]}):
        net = make_net()
        settings = {"epochs": 4, "learning_rate": 0.02, **BESIDE.get(field, {}), **change}
        folder = tmp_path / str(len(outcomes))
        batches = ArrayBatches(*data, batch_size=4)
        validation = ArrayBatches(data[0].flip(0) * 0.9, data[1].flip(0))
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            result = fit(
                net,
                batches,
                loss="mse",
                config=FitConfig(**settings),
                validation=validation,
                step=_note_checkpoints(folder),
                checkpoint=folder,
            )
        seen = (folder / "seen").read_text() if (folder / "seen").exists() else ""
        said = (result.stop_reason, seen, [str(each.message) for each in heard])
        outcomes.append((weights(net).tolist(), losses(result), said))
    assert outcomes[0] != outcomes[1]


def _note_checkpoints(folder):
    """A step that writes down the newest checkpoint of each batch."""

    def step(model, batch, state):
        latest = folder / "latest"
        if latest.exists():
            with (folder / "seen").open("a") as file:
                file.write(latest.read_text() + "\n")
        return model(batch.inputs, state)

    return step


def test_padding_may_hold_nan(make_net, data) -> None:
    x, y = (value.clone() for value in data)
    lengths = torch.tensor([8, 3, 5, 1, 8, 2, 7, 4, 6, 8])
    past = torch.arange(8)[None, :] >= lengths[:, None]
    clean, poisoned = make_net(), make_net()
    for value in (x, y):
        value[past] = 0.0
    batches = ArrayBatches(x, y, lengths, batch_size=3)
    expected = fit(clean, batches, loss="mse", config=FitConfig(epochs=3), validation=batches)
    x, y = x.masked_fill(past[..., None], torch.nan), y.masked_fill(past[..., None], torch.nan)
    batches = ArrayBatches(x, y, lengths, batch_size=3)
    got = fit(poisoned, batches, loss="mse", config=FitConfig(epochs=3), validation=batches)
    assert losses(got) == losses(expected)
    assert torch.equal(weights(poisoned), weights(clean))


def test_the_loss_is_a_mean_over_valid_steps_not_over_batches(make_net, data) -> None:
    """One batch of three rows and one of a single short row weigh by their steps."""
    x, y = data[0][:4], data[1][:4]
    net = make_net()
    lengths = torch.tensor([8, 8, 8, 1])
    batches = ArrayBatches(x, y, lengths, batch_size=3, shuffle="never")
    result = fit(net, batches, loss="mse", config=FitConfig(epochs=1, learning_rate=1e-300))
    valid = torch.arange(8)[None, :] < lengths[:, None]
    prediction = make_net()(x)[0]
    expected = torch.nn.functional.mse_loss(prediction[valid], y[valid])
    assert losses(result)[0] == pytest.approx(float(expected.detach()), rel=1e-12)


def test_truncated_bptt_carries_the_state_and_cuts_the_gradient(make_net, data) -> None:
    still = {"epochs": 1, "learning_rate": 1e-300, "batch_size": None, "validation": False}
    whole = run(make_net(), data, **still)
    pieces = run(make_net(), data, truncated_bptt=3, **still)
    assert losses(pieces)[0] == pytest.approx(losses(whole)[0], rel=1e-12)

    net, by_hand = make_net(), make_net()
    sgd = {"kind": "sgd", "momentum": 0.0}
    settings = {"epochs": 1, "batch_size": None, "validation": False, "optimizer": sgd}
    run(net, data, truncated_bptt=3, **settings)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.02)
    state = None
    for start in range(0, 8, 3):
        x, y = (value[:, start : start + 3] for value in data)
        prediction, state = by_hand(x, state)
        state = state.detach()
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(prediction, y).backward()
        optimizer.step()
    torch.testing.assert_close(weights(net), weights(by_hand), rtol=1e-12, atol=0)


def test_the_seed_fixes_order_and_dropout(make_net, data) -> None:
    results = []
    for k in range(2):
        net = make_net(dropout=0.5)
        torch.manual_seed(k)
        results.append((losses(run(net, data)), weights(net)))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


def test_the_callers_generators_and_mode_come_back(make_net, data) -> None:
    for training in (True, False):
        net = make_net(dropout=0.5).train(training)
        before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state(legacy=True))
        run(net, data)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]
        assert repr(np.random.get_state(legacy=True)) == before[2]
        assert net.training is training


def test_dropout_is_on_in_training_and_off_in_validation(make_net, data) -> None:
    still = {"epochs": 2, "learning_rate": 1e-300, "batch_size": None}
    result = run(make_net(dropout=0.5), data, **still)
    assert result.history[0].train_loss != result.history[1].train_loss
    assert result.history[0].validation_loss == result.history[1].validation_loss


def test_lbfgs_draws_the_same_masks_all_along_a_line_search(make_net, data) -> None:
    draws: list[tuple[bool, float]] = []

    def step(model, batch, state):
        draws.append((model.training, float(torch.rand(()))))
        return model(batch.inputs, state)

    config = FitConfig(epochs=2, optimizer={"kind": "lbfgs", "iterations": 3})
    validation = ArrayBatches(*data)
    fit(make_net(), validation, loss="mse", step=step, config=config, validation=validation)
    assert len(draws) > 4
    assert len({number for training, number in draws if training}) == 2


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_loss_that_is_not_finite_says_where_and_what_to_try(optimizer, make_net, data) -> None:
    x, y = data[0].clone(), data[1].clone()
    y[7, 2] = torch.nan
    batches = ArrayBatches(x, y, batch_size=4, shuffle="never")
    where = "epoch 1" if optimizer == "lbfgs" else "epoch 1, batch 2"
    message = f"the loss of {where} is nan; try a smaller learning_rate .* in the inputs"
    with pytest.raises(NonFiniteLossError, match=message):
        fit(make_net(), batches, loss="mse", config=FitConfig(optimizer=optimizer))


def test_a_gradient_or_validation_that_is_not_finite_is_an_error(make_net, data) -> None:
    def root(model, batch, state):
        prediction, state = model(batch.inputs, state)
        return (prediction - prediction.detach()).sqrt(), state

    with pytest.raises(NonFiniteLossError, match=r"the gradient's norm of epoch 1, batch 1 is"):
        fit(make_net(), ArrayBatches(*data), loss="mae", step=root)
    bad = ArrayBatches(data[0], data[1] * torch.nan)
    with pytest.raises(NonFiniteLossError, match="a finite validation loss, but after epoch 1"):
        fit(make_net(), ArrayBatches(*data), loss="mse", validation=bad)


def test_no_valid_target_at_all_is_an_error_but_one_such_batch_is_not(make_net, data) -> None:
    valid = torch.zeros(10, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match="expected a valid target in epoch 1"):
        fit(make_net(), ArrayBatches(*data, valid=valid), loss="mse")
    valid[:3] = True
    batches = ArrayBatches(*data, valid=valid, batch_size=3, shuffle="never")
    fit(make_net(), batches, loss="mse", config=FitConfig(epochs=2))


def test_a_task_gives_its_own_step_inputs_and_loss(make_net, data) -> None:
    class Twice:
        """Batches of two inputs, held in a dict."""

        def epoch(self, k, generator):
            yield Batch({"left": data[0], "right": data[0] * 0}, data[1])

    def step(model, batch, state):
        return model(batch.inputs["left"] + batch.inputs["right"], state)

    def loss(prediction, targets, valid):
        assert valid is None
        return (prediction - targets).square().sum(), torch.tensor(float(targets.numel()))

    net, same = make_net(), make_net()
    fit(net, Twice(), loss=loss, step=step, config=FitConfig(epochs=2))
    config = FitConfig(epochs=2)
    fit(same, ArrayBatches(*data, shuffle="never"), loss="mse", config=config)
    torch.testing.assert_close(weights(net), weights(same), rtol=1e-12, atol=0)
