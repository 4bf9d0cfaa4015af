from __future__ import annotations

import numpy as np
import pytest
import torch

from headgate.data import DataError, Frequency, Panel, Preprocessing, Series
from headgate.tasks.encoder import Encoder
from headgate.tasks.sampling import WindowBatches


def batches(
    lengths: list[int], lag: int = 0, window: int = 4, steps: int = 3, **options: int
) -> tuple[WindowBatches, list[Series], list[Preprocessing]]:
    generator = np.random.default_rng(0)
    series = [
        Series(generator.normal(100 * k, 1 + k, n), np.arange(n), id=str(k))
        for k, n in enumerate(lengths)
    ]
    scaling = [Preprocessing(lag=lag).fit(s.values) for s in series]
    encoder = Encoder(Frequency(), None, 0).fit(Panel(tuple(series)))
    encoded = [encoder.encode(s, p, steps, known=0) for s, p in zip(series, scaling, strict=True)]
    return WindowBatches(encoded, window, steps, **options), series, scaling  # type: ignore[arg-type]


@pytest.mark.parametrize("lag", [0, 1, 2, 5])
def test_inverted_targets_are_the_values_that_follow_each_step(lag: int) -> None:
    made, (series, _), (scaling, _) = batches([20, 31], lag)
    batch = made.batch(np.array([2]))
    assert batch.inputs.shape == (1, 4, 1)
    for step in range(4):
        now = lag + 2 + step
        found = scaling.invert_ahead(
            batch.targets[0, step].double().numpy(), series.values[: now + 1]
        )
        np.testing.assert_allclose(found, series.values[now + 1 : now + 4], rtol=1e-5)


def test_every_window_of_every_series_comes_once_an_epoch() -> None:
    made, _, _ = batches([10, 12, 9], batch_size=3)
    assert made.windows() == 4 + 6 + 3
    rows = torch.cat([b.inputs for b in made.epoch(0, torch.Generator())])
    assert len(rows) == made.windows() == len(torch.unique(rows, dim=0))
    again = torch.cat([b.inputs for b in made.epoch(1, torch.Generator())])
    assert not torch.equal(rows, again)
    assert torch.equal(rows.sum((1, 2)).sort().values, again.sum((1, 2)).sort().values)


def test_no_window_reaches_into_the_next_series() -> None:
    made, (one, short, other), _ = batches([20, 5, 30])
    batch = made.batch(np.arange(made.windows()))
    assert batch.valid is not None
    assert batch.valid.all(2).all(1).sum() == made.windows() - 1
    (row,) = torch.nonzero(~batch.valid.all(2).all(1)).flatten()
    assert batch.valid[row].sum(1).tolist() == [3, 3, 2, 1]
    assert len(short) == 5
    assert len(one) + len(other) == 50


def test_missing_values_are_read_as_the_last_one_and_do_not_count_as_targets() -> None:
    values = np.arange(12.0)
    values[[5, 6]] = np.nan
    series = Series(values, np.arange(12))
    scaling = Preprocessing(scaling="none").fit(values)
    encoder = Encoder(Frequency(), None, 0).fit(Panel((series,)))
    made = WindowBatches([encoder.encode(series, scaling, 2)], 8, 2)
    batch = made.batch(np.array([0]))
    assert batch.inputs[0, :, 0].tolist() == [0, 1, 2, 3, 4, 4, 4, 7]
    assert batch.inputs[0, :, 1].tolist() == [1, 1, 1, 1, 1, 0, 0, 1]
    assert batch.valid is not None
    assert batch.valid[0, 3:6].tolist() == [[True, False], [False, False], [False, True]]


def test_a_sample_of_the_windows() -> None:
    made, _, _ = batches([100], batch_size=8, samples=20)
    assert sum(len(b) for b in made.epoch(0, torch.Generator())) == 20
    assert len(made) == 3


def test_too_short_a_series_says_how_long_it_must_be() -> None:
    with pytest.raises(
        DataError, match="window of 4 steps and a horizon of 3 need at least 7 usab"
    ):
        batches([6, 5])
