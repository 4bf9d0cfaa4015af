"""Forecasts that say how sure they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headgate import Forecaster
from headgate.data import DataError
from headgate.tasks.intervals import measured_coverage

OUTPUTS = ["quantiles", "gaussian", "student_t"]
COUNTS = ["poisson", "negative_binomial"]


def noisy(length: int = 300, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return 50 + 5 * np.sin(np.arange(length) / 5) + generator.normal(0, 1, length)


def quick(**options: Any) -> Forecaster:
    given = {"hidden_size": 8, "epochs": 8, "window": 24, "horizon": 6, "difference": "none"}
    return Forecaster(**{**given, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", ["direct", "closed-loop"])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("difference", ["none", "first"])
def test_intervals_lie_around_the_values(output: str, strategy: str, difference: str) -> None:
    network = quick(output=output, strategy=strategy, difference=difference).fit(noisy())
    found = network.predict()
    levels = sorted(found.quantiles)
    assert levels == [0.025, 0.1, 0.9, 0.975]
    stacked = np.stack([found.quantiles[q] for q in levels])
    assert (np.diff(stacked, axis=0) > 0).all()
    lower, upper = found.interval(0.8)
    assert ((lower < found.values) & (found.values < upper)).all()
    assert 1 < np.mean(upper - lower) < 15
    again = network.predict(intervals=(0.8,))
    np.testing.assert_array_equal(again.interval(0.8), found.interval(0.8))
    with pytest.raises(KeyError, match=r"no interval of 0.9"):
        found.interval(0.9)


@pytest.mark.parametrize("strategy", ["direct", "closed-loop"])
@pytest.mark.parametrize("output", COUNTS)
def test_counts_stay_counts(output: str, strategy: str) -> None:
    values = np.random.default_rng(0).poisson(6, 200).astype(float)
    found = quick(output=output, strategy=strategy, difference="auto").fit(values).predict()
    assert 3 < found.values.mean() < 9
    lower, upper = found.interval(0.8)
    assert (lower >= 0).all()
    if strategy == "direct":
        assert (np.stack([lower, upper]) % 1 == 0).all()


@pytest.mark.parametrize("output", COUNTS)
def test_what_is_no_count_is_refused(output: str) -> None:
    with pytest.raises(
        DataError, match=r"whole numbers of at least 0, but row 3 of 'value' is 2.5"
    ):
        quick(output=output, difference="auto").fit([1, 2, 2.5, 3, 4, 5] * 20)
    with pytest.raises(ValueError, match=r"difference: the output .* describes counts as they are"):
        quick(output=output, difference="first").fit([1, 2, 3, 4] * 20)


def test_paths_are_drawn_in_a_closed_loop_and_their_seed_fixes_them() -> None:
    network = quick(strategy="closed-loop", output="gaussian").fit(noisy())
    one, two = (network.predict(20, paths=40) for _ in range(2))
    assert one.paths.shape == (40, 20)
    np.testing.assert_array_equal(one.paths, two.paths)
    np.testing.assert_allclose(one.values, one.paths.mean(0))
    assert one.paths[:, 0].std() > 0.3
    with pytest.raises(ValueError, match=r"predict: a direct forecast .* no paths"):
        quick(output="gaussian").fit(noisy()).predict(paths=3)


def test_a_point_forecast_has_intervals_once_it_is_calibrated() -> None:
    values = noisy()
    network = quick().fit(values)
    assert network.predict().quantiles == {}
    with pytest.raises(ValueError, match=r"a point forecast has no intervals \[0.8\]"):
        network.predict(intervals=(0.8,))
    tested = network.backtest(values, origins=12)
    found = network.calibrate(tested).predict()
    lower, upper = found.interval(0.8)
    np.testing.assert_allclose(upper - found.values, found.values - lower)
    assert np.mean(upper - lower) < np.mean(np.subtract(*reversed(found.interval(0.95))))


@pytest.mark.parametrize("output", ["point", "quantiles"])
def test_calibrated_intervals_hold_about_what_they_say(output: str) -> None:
    values = noisy(1200)
    own = () if output == "point" else None
    tested = quick(output=output).backtest(values, origins=40, intervals=own)
    for row in measured_coverage(tested, (0.8, 0.95)):
        assert row["measured"] == pytest.approx(row["interval"], abs=0.08)
        assert row["values"] == 20 * 6


@pytest.mark.parametrize("output", ["point", "quantiles", "gaussian"])
def test_a_spike_is_an_anomaly(output: str) -> None:
    values = noisy(400)
    network = quick(output=output).fit(values)
    assert len(network.anomalies(values, level=0.95)) == pytest.approx(20, abs=2)
    values[333] += 30
    found = network.anomalies(values)
    assert found["step"].to_list().count(333) == 1
    assert len(found) <= 4
    (row,) = found.filter(found["step"] == 333).iter_rows(named=True)
    assert row["value"] > row["upper"] > row["expected"] > row["lower"]


@pytest.mark.parametrize("output", ["point", "gaussian"])
@pytest.mark.parametrize("options", [{}, {"difference": "first"}, {"transform": "log"}])
def test_what_was_expected_is_the_forecast_one_step_before(
    output: str, options: dict[str, Any]
) -> None:
    values = noisy(200)
    network = quick(output=output, **options).fit(values)
    values[-1] = 500.0
    *_, last = network.anomalies(values).iter_rows(named=True)
    forecast = network.predict(1, state=network.warm_up(values[:-1]), intervals=())
    assert last["value"] == 500
    assert last["expected"] == pytest.approx(forecast.values[0], rel=1e-4)
