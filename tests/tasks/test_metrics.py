from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from headgate.tasks.metrics import (
    by_step,
    coverage,
    crps,
    crps_of_samples,
    drift,
    measures,
    pinball,
)

NAN = float("nan")


def test_smape_by_hand() -> None:
    actual, forecast = np.array([1.0, 0.0, NAN, 0.0, -2.0]), np.array([3.0, 0.0, 1.0, 5.0, 2.0])
    # 200 · (2/4, 0, missing, 1, 1)
    assert measures(actual, forecast, 1.0)["smape"] == pytest.approx((100 + 0 + 200 + 200) / 4)
    assert np.isnan(measures(np.array([NAN]), np.array([1.0]), 1.0)["smape"])


def test_each_step_is_measured_by_itself() -> None:
    actual = np.array([[1.0, 10.0, NAN], [2.0, NAN, NAN]])
    rows = by_step(actual, np.array([[2.0, 13.0, 1.0], [2.0, 1.0, 1.0]]), 2.0)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert [row["mae"] for row in rows[:2]] == [0.5, 3]
    assert [row["mase"] for row in rows[:2]] == [0.25, 1.5]
    assert np.isnan(rows[2]["rmse"])
    assert {"step", *measures(actual, actual, 1.0)} == set(rows[0])
    with pytest.raises(
        ValueError, match=r"by_step: expected arrays .*\(2, 3\), got one of \(2, 2\)"
    ):
        by_step(actual, actual[:, :2], 1.0)
    with pytest.raises(ValueError, match=r"expected arrays \(origins, steps\), got \(3,\)"):
        by_step(actual[0], actual[0], 1.0)


def test_drift_goes_on_along_the_line_from_the_first_to_the_last_value() -> None:
    assert drift(np.array([1.0, 9.0, 5.0]), 3).tolist() == [7, 9, 11]
    assert drift(np.array([NAN, 1.0, NAN, 5.0, NAN]), 2).tolist() == [9, 11]
    assert drift(np.array([NAN, 4.0]), 2).tolist() == [4, 4]
    assert np.isnan(drift(np.array([NAN, NAN]), 2)).all()


def test_coverage_counts_the_bounds_in_and_missing_values_out() -> None:
    actual = np.array([0.0, 1.0, 2.0, NAN, 3.0])
    assert coverage(actual, np.ones(5), np.full(5, 2.0)) == 0.5
    assert np.isnan(coverage(actual[3:4], np.ones(1), np.ones(1)))
    with pytest.raises(ValueError, match=r"coverage: expected .* \(5,\), got one of \(1,\)"):
        coverage(actual, np.ones(1), np.ones(5))


def test_pinball_by_hand_and_at_its_minimum() -> None:
    actual = np.array([[1.0, NAN]])
    quantiles = np.array([[[0.0, 3.0], [5.0, NAN]]])
    assert pinball(actual, quantiles, [0.1, 0.9]) == pytest.approx((0.1 * 1 + 0.1 * 2) / 2)
    assert np.isnan(pinball(actual[:, 1:], quantiles[:, 1:], [0.1, 0.9]))
    values = stats.norm.ppf((np.arange(999) + 0.5) / 999)
    guesses = np.linspace(-2, 2, 401)
    losses = [pinball(values, np.full((999, 1), guess), [0.8]) for guess in guesses]
    assert guesses[np.argmin(losses)] == pytest.approx(stats.norm.ppf(0.8), abs=0.02)
    with pytest.raises(ValueError, match=r"pinball: expected quantiles \(1, 2, 3\)"):
        pinball(actual, quantiles, [0.1, 0.5, 0.9])


def test_crps_of_many_levels_or_samples_is_that_of_the_gaussian() -> None:
    actual = np.array([-1.0, 0.2, NAN, 3.0])
    mean, spread = np.array([0.0, 1.0, 0.0, 2.5]), np.array([1.0, 2.0, 1.0, 0.3])
    z = (actual - mean) / spread
    # the closed form of Gneiting et al. (2005)
    exact = spread * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - np.pi**-0.5)
    levels = (np.arange(2000) + 0.5) / 2000
    quantiles = mean[:, None] + spread[:, None] * stats.norm.ppf(levels)
    assert crps(actual, quantiles, levels) == pytest.approx(np.nanmean(exact), rel=1e-3)
    assert crps_of_samples(actual, quantiles.T) == pytest.approx(np.nanmean(exact), rel=1e-3)


def test_crps_of_samples_is_exact_for_their_distribution() -> None:
    random = np.random.default_rng(0)
    actual, samples = random.normal(size=(4, 2)), random.normal(size=(7, 4, 2))
    actual[1, 1] = NAN
    pairs = np.abs(samples[:, None] - samples[None]).mean((0, 1))
    expected = np.nanmean(np.abs(samples - actual).mean(0) - pairs / 2)
    assert crps_of_samples(actual, samples) == pytest.approx(expected)
    one = crps_of_samples(np.array([1.0, 2.0]), np.array([[3.0, 2.0]]))
    assert one == pytest.approx(1)  # of a single sample it is the absolute error
    assert np.isnan(crps_of_samples(np.array([NAN]), samples[:, 0, :1]))
    with pytest.raises(ValueError, match=r"expected samples \('S', 4, 2\).* got \(7, 4\)"):
        crps_of_samples(actual, samples[..., 0])
