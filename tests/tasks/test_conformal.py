from __future__ import annotations

import json

import numpy as np
import pytest

from headgate.tasks.conformal import Conformal, calibrate, calibrate_point

RANDOM = np.random.default_rng(3)


def covered(actual, bounds) -> float:
    return float(((bounds[0] <= actual) & (actual <= bounds[1])).mean())


def test_the_margin_is_the_corrected_quantile_of_the_scores_by_hand() -> None:
    actual = np.array([[1.0], [-2.0], [3.0], [-4.0]])
    found = calibrate_point(actual, np.zeros((4, 1)), 0.8)  # ⌈5 · 0.8⌉ = 4th of 1, 2, 3, 4
    assert (found.margins, found.scores, found.enough, found.note) == ((4.0,), (4,), True, None)
    assert calibrate_point(actual, np.zeros((4, 1)), 0.5).margins == (3.0,)  # ⌈2.5⌉
    lower, upper = calibrate_point(actual, np.zeros((4, 1)), 0.8).around(np.array([10.0]))
    assert (lower.tolist(), upper.tolist()) == ([6.0], [14.0])
    # in floating point 100 · 0.55 is more than 55
    row = np.arange(1.0, 100.0)[:, None]
    assert calibrate_point(row, np.zeros((99, 1)), 0.55).margins == (55.0,)


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("origins", [39, 100])
def test_intervals_around_points_cover_what_they_promise(level, origins) -> None:
    shares = []
    spread = np.array([1.0, 2.0, 5.0])
    for _ in range(400):
        error = spread * RANDOM.standard_t(3, (origins + 50, 3))
        forecast = RANDOM.normal(0, 10, error.shape)
        actual = forecast + error
        found = calibrate_point(actual[:origins], forecast[:origins], level)
        assert found.scores == (origins,) * 3
        shares.append(covered(actual[origins:], found.around(forecast[origins:])))
    assert np.mean(shares) == pytest.approx(level, abs=0.02)


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("width", [0.3, 2.5])
def test_quantiles_that_are_too_narrow_or_too_wide_are_mended(level, width) -> None:
    before, after = [], []
    for _ in range(400):
        spread = np.exp(RANDOM.normal(0, 0.5, (119, 2)))
        actual = spread * RANDOM.normal(size=spread.shape)
        lower, upper = -width * spread, width * spread
        found = calibrate(actual[:59], lower[:59], upper[:59], level)
        before.append(covered(actual[59:], (lower[59:], upper[59:])))
        after.append(covered(actual[59:], found.apply(lower[59:], upper[59:])))
    assert abs(np.mean(before) - level) > 0.03
    assert np.mean(after) == pytest.approx(level, abs=0.02)


def test_steps_with_few_origins_share_their_neighbours_scores() -> None:
    actual = np.arange(1.0, 8.0) * np.ones((10, 1))  # step k always misses by k
    found = calibrate_point(actual, np.zeros((10, 7)), 0.95)
    assert found.scores == (20, 30, 30, 30, 30, 30, 20)
    assert found.margins == (2, 3, 4, 5, 6, 7, 7)
    assert found.enough
    assert calibrate_point(actual, np.zeros((10, 7)), 0.8).margins == (1, 2, 3, 4, 5, 6, 7)


def test_pooled_steps_cover_what_they_promise() -> None:
    shares = []
    for _ in range(400):
        actual = RANDOM.normal(size=(40, 6))
        found = calibrate_point(actual[:10], np.zeros((10, 6)), 0.95)
        shares.append(covered(actual[10:], found.around(np.zeros((30, 6)))))
    assert np.mean(shares) == pytest.approx(0.95, abs=0.02)


def test_too_few_scores_take_the_largest_and_say_so() -> None:
    actual = np.array([[1.0, -2.0, 3.0], [4.0, 0.5, 9.0]])
    found = calibrate_point(actual, np.zeros((2, 3)), 0.95)
    assert (found.margins, found.scores, found.enough) == ((9.0,) * 3, (6,) * 3, False)
    assert found.note == (
        "6 held-back scores are too few for intervals of 95%, which need 19: the largest score is "
        "the margin, and covers about 86%; hold back more origins"
    )


def test_missing_actual_values_give_no_score() -> None:
    actual = RANDOM.normal(size=(30, 2))
    kept = calibrate_point(actual[:, :1], np.zeros((30, 1)), 0.8)
    gaps = np.insert(actual, [3, 7], np.nan, axis=0)
    forecast = np.where(np.isnan(gaps), np.nan, 0)
    assert calibrate_point(gaps, forecast, 0.8).margins[0] == kept.margins[0]
    never = np.stack([actual[:, 0], np.full(30, np.nan)], 1)
    found = calibrate_point(never, np.zeros((30, 2)), 0.8)
    assert found.scores == (30, 30)
    assert found.margins == kept.margins * 2


def test_series_of_different_size_are_pooled_in_units_of_their_scale() -> None:
    scale = np.repeat([1.0, 1000.0], 1000)
    actual = scale[:, None] * RANDOM.normal(size=(2000, 2))
    found = calibrate_point(actual[::2], np.zeros((1000, 2)), 0.8, scale[::2])
    lower, upper = found.around(np.zeros((1000, 2)), scale[1::2])
    for rows in (slice(0, 500), slice(500, 1000)):
        assert covered(actual[1::2][rows], (lower[rows], upper[rows])) == pytest.approx(
            0.8, abs=0.07
        )
    one = found.around(np.zeros(2), 1000.0)
    np.testing.assert_array_equal(one[1], upper[750])
    absolute = calibrate_point(actual, np.zeros((2000, 2)), 0.8)
    with pytest.raises(ValueError, match="expected a scale, as in the calibration, got none"):
        found.around(np.zeros(2))
    with pytest.raises(ValueError, match="expected no scale, as in the calibration, got one"):
        absolute.around(np.zeros(2), 3.0)


def test_shorter_horizons_and_intervals_narrowed_to_nothing() -> None:
    made = Conformal(0.8, (1.0, -2.0, 5.0), (9, 9, 9))
    lower, upper = made.apply(np.zeros((4, 2)), np.full((4, 2), 3.0))
    assert lower[0].tolist() == [-1, 1.5]
    assert upper[0].tolist() == [4, 1.5]
    with pytest.raises(ValueError, match=r"at most the 3 steps calibrated; got \(4,\)"):
        made.around(np.zeros(4))


def test_json_and_back() -> None:
    actual = RANDOM.normal(size=(9, 2))
    for scale in (None, 2.0):
        made = calibrate_point(actual, np.zeros((9, 2)), 0.95, scale)
        stored = json.loads(json.dumps(made.to_dict(), allow_nan=False))
        assert Conformal.from_dict(stored) == made


def test_errors_say_what_was_expected() -> None:
    zeros = np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"level between 0 and 1, .* got 90"):
        calibrate_point(zeros, zeros, 90)
    with pytest.raises(ValueError, match=r"one shape .*\(3, 2\), \(3, 1\) and \(3, 1\)"):
        calibrate_point(zeros, zeros[:, :1], 0.9)
    with pytest.raises(ValueError, match="all are missing"):
        calibrate_point(zeros * np.nan, zeros, 0.9)
    with pytest.raises(ValueError, match="finite forecasts"):
        calibrate_point(zeros, zeros * np.nan, 0.9)
    for scale in (0.0, np.ones(2), np.array([1.0, 2.0, np.nan])):
        with pytest.raises(ValueError, match="positive scale for each of 3 rows"):
            calibrate_point(zeros, zeros, 0.9, scale)
