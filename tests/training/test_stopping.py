from __future__ import annotations

import os
import re
import signal

import pytest
import torch

from headgate.training import ArrayBatches, FitConfig, fit
from headgate.training.stopping import EpochRecord, decide


def history(*losses: float | None, train: float = 5.0) -> list[EpochRecord]:
    return [EpochRecord(k, train, loss, 0.1, 1.0, k) for k, loss in enumerate(losses, 1)]


def reason(config: FitConfig, *losses: float | None, seconds: float = 0.0) -> str | None:
    stop = decide(history(*losses), config, True, seconds)
    return stop and stop.reason


def test_threshold_is_at_or_under() -> None:
    config = FitConfig(loss_threshold=0.5)
    assert reason(config, 1.0, 0.51) is None
    assert reason(config, 1.0, 0.5) == "threshold"


def test_tolerance_is_a_share_of_the_loss_before() -> None:
    config = FitConfig(tolerance=0.01)
    assert reason(config, 100.0) is None
    assert reason(config, 100.0, 98.9) is None
    assert reason(config, 100.0, 99.1) == "tolerance"
    assert reason(config, 100.0, 100.9) == "tolerance"


def test_patience_counts_validations_that_are_not_better_by_min_delta() -> None:
    config = FitConfig(patience=2)
    assert reason(config, 1.0, 0.9, 0.95) is None
    assert reason(config, 1.0, 0.9, 0.95, 0.9) == "patience"
    assert reason(config, 1.0, 0.95, 0.91) is None
    assert reason(FitConfig(patience=2, min_delta=0.1), 1.0, 0.95, 0.91) == "patience"


def test_epochs_without_validation_wait_for_the_next() -> None:
    config = FitConfig(patience=1, loss_threshold=0.5, validation_every=2)
    assert reason(config, None, 0.6, None) is None
    assert reason(config, None, 0.6, None, 0.5) == "threshold"
    assert reason(config, None, 0.6, None, 0.7) == "patience"


def test_time_and_epochs() -> None:
    assert reason(FitConfig(max_seconds=2.0), 1.0, seconds=1.9) is None
    assert reason(FitConfig(max_seconds=2.0), 1.0, seconds=2.0) == "time"
    assert reason(FitConfig(epochs=2), 1.0) is None
    assert reason(FitConfig(epochs=2), 1.0, 1.0) == "epochs"


@pytest.mark.parametrize(
    ("settings", "word", "sentence"),
    [
        ({"epochs": 2}, "epochs", "all 2 epochs are done"),
        ({"loss_threshold": 1e9}, "threshold", r"the training loss .* is at or under 1e\+09"),
        ({"tolerance": 0.9}, "tolerance", "the training loss changed from .* less than a share"),
        ({"max_seconds": 1e-9}, "time", "out of time in epoch 1, after batch 1"),
    ],
)
def test_a_fit_says_why_it_stopped(settings, word, sentence, make_net, data) -> None:
    batches = ArrayBatches(*data, batch_size=4)
    result = fit(make_net(), batches, loss="mse", config=FitConfig(**settings))
    assert result.stop_reason == word
    assert re.search(sentence, result.stop_sentence)


def test_patience_stops_a_fit_and_the_best_weights_are_kept(make_net, data) -> None:
    x, y = data
    net, best = make_net(), make_net()
    config = FitConfig(epochs=60, learning_rate=0.03, optimizer="rmsprop", patience=3)
    validation = ArrayBatches(x, y + 0.3 * torch.randn_like(y))
    batches = ArrayBatches(x, y, batch_size=4)
    result = fit(net, batches, loss="mse", config=config, validation=validation)
    assert result.stop_reason == "patience"
    assert result.best_epoch == result.epochs - 3
    losses = [record.validation_loss for record in result.history]
    assert result.best_loss == min(loss for loss in losses if loss is not None)
    config = FitConfig(epochs=result.best_epoch, learning_rate=0.03, optimizer="rmsprop")
    fit(best, batches, loss="mse", config=config)
    for p, q in zip(net.parameters(), best.parameters(), strict=True):
        assert torch.equal(p, q)


def test_patience_without_validation_is_an_error(make_net, data) -> None:
    with pytest.raises(ValueError, match="patience counts validations, but there is no validation"):
        fit(make_net(), ArrayBatches(*data), loss="mse", config=FitConfig(patience=2))


class _Interrupting:
    """A step during which Ctrl-C is pressed, once in its third batch, or again in the fourth."""

    def __init__(self, times: int) -> None:
        self.batches, self.times = 0, times

    def __call__(self, model, batch, state):
        self.batches += 1
        if self.batches == 3:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)
        return model(batch.inputs, state)


def test_ctrl_c_ends_training_after_the_batch(make_net, data) -> None:
    step = _Interrupting(1)
    net = make_net()
    result = fit(net, ArrayBatches(*data, batch_size=5), loss="mse", step=step)
    assert (result.stop_reason, result.epochs, step.batches) == ("interrupted", 1, 3)
    assert "in epoch 2, after batch 1" in result.stop_sentence
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_in_the_last_batch_keeps_the_whole_epoch(make_net, data) -> None:
    result = fit(make_net(), ArrayBatches(*data, batch_size=4), loss="mse", step=_Interrupting(1))
    assert (result.stop_reason, result.epochs) == ("interrupted", 1)
    assert result.stop_sentence == "interrupted after epoch 1"


def test_a_second_ctrl_c_raises(make_net, data) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(make_net(), ArrayBatches(*data), loss="mse", step=_Interrupting(2))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
