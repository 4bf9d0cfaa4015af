from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.base import clone

from headgate import Forecaster, Record, cell, sigmoid, tanh
from headgate.data import DataError, Frequency, Series, as_series, read_series

BUNDLED = Path(__file__).parents[2] / "examples" / "data"


def wave(length: int = 90, seed: int = 0) -> Series:
    steps = np.arange(length)
    noise = np.random.default_rng(seed).normal(0, 0.1, length)
    time = np.datetime64("2015-01", "M") + steps.astype("timedelta64[M]")
    values = 20 + 0.1 * steps + 3 * np.sin(2 * np.pi * steps / 12) + noise
    return Series(values, time.astype("datetime64[s]"), Frequency("month"), "sales", "month")


def quick(**options: Any) -> Forecaster:
    return Forecaster(**{"hidden_size": 4, "epochs": 2, "window": 12, "horizon": 6, **options})


@cell
def leaky(x, h, *, W, R, b):
    """A gate that mixes the old state with the new."""
    k = sigmoid(W.k @ x + R.k @ h + b.k)
    n = tanh(W.n @ x + R.n @ h + b.n)
    h = k * h + (1 - k) * n
    return h


def test_it_learns_a_seasonal_series_better_than_it_is_naive() -> None:
    series = wave(120)
    result = Forecaster(horizon=12, epochs=15, hidden_size=8).backtest(series, origins=2)
    score = {row["model"]: row["mase"] for row in result.table}
    assert list(score) == ["lstm", "seasonal naive", "naive", "drift"]
    assert score["lstm"] < score["seasonal naive"] < score["naive"]


def test_weekly_co2_is_forecast_better_than_by_repeating_the_last_year() -> None:
    series = read_series(BUNDLED / "co2_weekly.csv")
    result = Forecaster(horizon=52, epochs=3, hidden_size=8).backtest(series)
    assert len(result.parts[0].origins) == 10
    score = {row["model"]: row["mase"] for row in result.table}
    assert score["lstm"] < 0.5 * score["seasonal naive"]


@pytest.mark.parametrize("strategy", ["direct", "closed-loop"])
def test_a_forecast_continues_the_series(strategy: str) -> None:
    forecast = quick(strategy=strategy).fit(wave()).predict()
    assert [str(t)[:7] for t in forecast.time[:2]] == ["2022-07", "2022-08"]
    assert forecast.values.shape == (6,)
    assert np.isfinite(forecast.values).all()
    assert (forecast.name, forecast.time_name) == ("sales", "month")


def test_frames_and_plain_numbers_are_welcome() -> None:
    series = wave()
    frame = pl.DataFrame({"month": series.time.astype("datetime64[ms]"), "sales": series.values})
    expected = quick().fit(series).predict().values
    np.testing.assert_array_equal(quick().fit(frame).predict().values, expected)
    assert len(quick(season=12).fit(list(series.values)).predict()) == 6


def test_a_seed_fixes_everything_and_leaves_the_global_generators_alone() -> None:
    before = torch.random.get_rng_state()
    np.random.seed(5)
    one, two, other = (quick(seed=s).fit(wave()).predict().values for s in (3, 3, 4))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.random.rand() == np.random.RandomState(5).rand()


def test_scikit_learns_verbs() -> None:
    forecaster = quick(cell="gru", transform="log")
    copy = clone(forecaster)
    assert isinstance(copy, Forecaster)
    copy.set_params(horizon=3)
    assert copy.get_params()["cell"] == "gru"
    assert copy.get_params()["horizon"] == 3
    fitted = copy.fit(wave())
    assert fitted is copy
    assert len(copy.predict()) == 3
    assert copy.score(wave()) < 0


@pytest.mark.parametrize(
    "options", [{}, {"lags": (3, 7)}, {"difference": "first", "calendar": "year", "lags": 1}]
)
def test_closed_loop_equals_feeding_the_predictions_by_hand(options: dict[str, Any]) -> None:
    series = wave()
    forecaster = quick(strategy="closed-loop", **options).fit(series)
    together = forecaster.predict(30).values
    state, alone = forecaster.warm_up(forecaster.history_), []
    for _ in range(30):
        alone.append(forecaster.predict(1, state=state).values[0])
        state = forecaster.advance(state, alone[-1])
    np.testing.assert_allclose(alone, together, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"strategy": "closed-loop", "difference": "none"}, {"lags": (6, 9), "calendar": "year"}],
)
@pytest.mark.parametrize("kind", ["lstm", leaky])
def test_a_carried_state_goes_on_as_if_the_series_were_read_at_once(
    kind: Any, options: dict[str, Any]
) -> None:
    series = wave()
    forecaster = quick(cell=kind, **options).fit(series)
    whole = forecaster.warm_up(series)
    pieces = forecaster.advance(forecaster.warm_up(series[:40]), series.values[40:41])
    pieces = forecaster.advance(pieces, series.values[41:])
    assert pieces.time == whole.time
    np.testing.assert_allclose(
        forecaster.predict(state=pieces).values, forecaster.predict(state=whole).values, rtol=1e-6
    )


def test_a_users_cell_is_recorded_while_it_reads() -> None:
    forecaster = quick(cell=leaky, difference="first").fit(wave())
    record = Record()
    forecaster.predict(record=record)
    assert record.names == ("k", "n", "h")
    gate = record["k"]
    assert gate.shape == (1, 1, 12, 4)
    assert gate.min() > 0
    assert gate.max() < 1


def test_layers_of_different_width() -> None:
    forecaster = quick(hidden_size=(5, 3), num_layers=2).fit(wave())
    state = forecaster.warm_up(wave()[:50])
    assert np.isfinite(forecaster.predict(state=forecaster.advance(state, [20.0])).values).all()


def test_missing_values_are_bridged_and_do_not_count() -> None:
    series = wave()
    series.values[[20, 21, 50]] = np.nan
    forecast = quick().fit(series).predict()
    assert np.isfinite(forecast.values).all()


def test_missing_targets_do_not_count_in_the_loss() -> None:
    series = wave()
    series.values[[20, 50]] = np.nan
    forecaster = quick(epochs=1, batch_size=1000, learning_rate=1e-30).fit(series)
    batches = forecaster.batches(series)
    batch = batches.batch(np.arange(batches.windows()))
    with torch.no_grad():
        prediction = forecaster.network_(batch.inputs)[0]
    assert batch.valid is not None
    squares = (prediction - batch.targets)[batch.valid] ** 2
    assert not batch.valid.all()
    assert forecaster.metrics_["fit"]["mse"] == pytest.approx(float(squares.mean()), rel=1e-5)


def test_scaling_is_fitted_on_training_values_alone() -> None:
    series = wave()
    constants = quick(difference="none").fit(series[:60]).preprocessing_
    assert constants.offset == pytest.approx(series.values[:60].mean())
    assert constants.scale == pytest.approx(series.values[:60].std())


def test_what_auto_chooses() -> None:
    fitted = quick(window=None, horizon=None).fit(wave())
    assert (fitted.settings_.season, fitted.settings_.horizon) == (12, 12)
    assert fitted.settings_.window == 24
    assert fitted.preprocessing_.lag == 12
    assert fitted.settings_.harmonics == 0
    plain = quick(window=None).fit(wave().values)
    assert plain.settings_.season is None
    assert plain.preprocessing_.lag == 1
    calendar = quick(difference="first").fit(wave())
    assert calendar.settings_.harmonics == 2
    assert calendar.network_.recurrent.input_size == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "open"}, "strategy: expected one of direct, closed-loop; got 'open'"),
        ({"transform": "cube"}, "transform: expected one of auto, none, log"),
        ({"difference": 12}, "difference: expected one of auto, none, first, seasonal; got 12"),
        ({"horizon": 0}, "horizon: expected a whole number of at least 1; got 0"),
        ({"window": 2.5}, r"window: expected a whole number of at least 1; got 2\.5"),
        ({"season": 1}, "season: expected a whole number of at least 2; got 1"),
        ({"season": None, "difference": "seasonal"}, "needs a season; give season="),
        ({"season": None, "harmonics": 2}, "calendar features need a season"),
        ({"scaling": "robust"}, "scaling must be one of"),
        ({"cell": "lstn"}, "lstn"),
    ],
)
def test_wrong_settings_are_told_at_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quick(**options).fit(wave())


def test_too_short_a_series() -> None:
    with pytest.raises(DataError, match="window of 12 steps and a horizon of 6 need at least 18"):
        quick(difference="none").fit(wave(17))
    with pytest.raises(DataError, match="the series is too short: 1 values"):
        quick().fit([1.0])


def test_wrong_calls_are_told() -> None:
    forecaster = quick().fit(wave())
    with pytest.raises(ValueError, match=r"a horizon of 7 is more than the 6 steps .* fit with"):
        forecaster.predict(7)
    with pytest.raises(ValueError, match="warm_up: expected at least 13 values"):
        forecaster.warm_up(wave(12))
    with pytest.raises(ValueError, match="advance: expected finite values"):
        forecaster.advance(forecaster.warm_up(wave()), [np.nan])
    with pytest.raises(Exception, match="not fitted"):
        quick().predict()


def test_a_series_passes_through_unchanged() -> None:
    series = wave()
    assert as_series(series) is series
