from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.data import DataError, Preprocessing, fill_missing, spread_follows_level


@given(
    transform=st.sampled_from(["none", "log", "log1p", "sqrt"]),
    lag=st.sampled_from([0, 1, 3]),
    scaling=st.sampled_from(["standard", "minmax", "none"]),
    seed=st.integers(0, 100),
)
def test_invert_undoes_apply(transform: str, lag: int, scaling: str, seed: int) -> None:
    values = np.random.default_rng(seed).uniform(1, 9, 20)
    steps = Preprocessing(transform, lag, scaling).fit(values[:12])
    ahead = steps.apply(values)[12 - lag :]
    np.testing.assert_allclose(steps.invert(ahead, values[:12]), values[12:], rtol=1e-12)


def test_constants_come_from_the_training_values_alone_and_travel_as_json() -> None:
    steps = Preprocessing(scaling="minmax").fit(np.array([2.0, 4.0, np.nan, 3.0]))
    np.testing.assert_array_equal(steps.apply(np.array([2.0, 6.0, np.nan])), [0, 2, np.nan])
    assert Preprocessing.from_dict(json.loads(json.dumps(steps.to_dict()))) == steps


def test_a_constant_series_stays_finite() -> None:
    steps = Preprocessing(lag=1).fit(np.full(9, 5.0))
    np.testing.assert_array_equal(steps.apply(np.full(3, 5.0)), [0, 0])


def test_a_difference_with_a_missing_value_is_missing() -> None:
    steps = Preprocessing(lag=1, scaling="none")
    np.testing.assert_array_equal(steps.apply(np.array([1, np.nan, 3, 5])), [np.nan, np.nan, 2.0])


def test_errors() -> None:
    with pytest.raises(
        DataError, match=r"log' needs values above zero; row 2 is -1: use transform='none'"
    ):
        Preprocessing("log").fit(np.array([1.0, -1.0]))
    with pytest.raises(
        DataError, match="no two values lie 12 steps apart: the series has 5 values"
    ):
        Preprocessing(lag=12).fit(np.arange(5.0))
    with pytest.raises(
        ValueError, match=r"scaling must be one of standard, minmax, .*none; got 'robust'"
    ):
        Preprocessing(scaling="robust")


def test_missing_values_are_filled_on_a_straight_line() -> None:
    np.testing.assert_array_equal(
        fill_missing(np.array([np.nan, 1, np.nan, np.nan, 4, np.nan])), [1, 1, 2, 3, 4, 4]
    )


def test_spread_that_grows_with_the_level_is_noticed() -> None:
    steps = np.arange(96)
    wave, growth = np.sin(2 * np.pi * steps / 12), np.exp(steps / 40)
    assert spread_follows_level(growth * (3 + wave), 12)
    assert not spread_follows_level(10 * growth + wave, 12)
    assert not spread_follows_level(wave, 12)
    assert not spread_follows_level(np.full(96, 5.0), 12)
