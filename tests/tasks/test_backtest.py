from __future__ import annotations

import numpy as np
import pytest

from headgate import Forecaster
from headgate.data import DataError, Frequency, Panel, Series
from headgate.tasks.backtest import place_origins, roll
from headgate.tasks.forecast import Forecast
from headgate.tasks.metrics import measures, naive, seasonal_scale


def test_measures_by_hand() -> None:
    actual, forecast = np.array([1.0, 2.0, np.nan, 4.0]), np.array([2.0, 2.0, 9.0, 2.0])
    found = measures(actual, forecast, scale=2.0)
    assert found["mae"] == pytest.approx(1)
    assert found["rmse"] == pytest.approx(np.sqrt(5 / 3))
    assert found["mape"] == pytest.approx(50)
    assert found["mase"] == pytest.approx(0.5)


def test_mape_leaves_out_zeros_and_nothing_is_nan() -> None:
    assert measures(np.array([0.0, 2.0]), np.array([1.0, 1.0]), 1.0)["mape"] == pytest.approx(50)
    assert all(np.isnan(v) for v in measures(np.array([np.nan]), np.array([1.0]), 1.0).values())


def test_naive_forecasts() -> None:
    history = np.arange(1.0, 7.0)
    assert naive(history, 4, None).tolist() == [6, 6, 6, 6]
    assert naive(history, 4, 3).tolist() == [4, 5, 6, 4]


def test_mase_is_one_for_the_seasonal_naive_forecast_of_an_even_series() -> None:
    values = np.arange(24.0) + np.tile([0, 5, 2, 1], 6)
    assert seasonal_scale(values[:20], 4) == pytest.approx(4)
    forecast = naive(values[:20], 4, 4)
    assert measures(values[20:], forecast, seasonal_scale(values[:20], 4))["mase"] == 1


def test_the_last_forecast_ends_with_the_series() -> None:
    assert place_origins(100, 12, 3, None) == (64, 76, 88)
    assert place_origins(100, 12, 2, 1) == (87, 88)
    assert place_origins(2284, 52, None, None)[0] == 2284 - 520
    assert place_origins(30, 12, None, None) == (18,)


def test_too_many_origins() -> None:
    with pytest.raises(DataError, match="9 origins 12 steps apart with a horizon of 12 need more"):
        place_origins(100, 12, 9, None)


def test_models_see_only_what_precedes_their_origin() -> None:
    values = np.arange(40.0)
    values[25] = np.nan
    series = Series(values, np.arange(40))
    seen = []

    def forecast(past: Panel) -> list[Forecast]:
        seen.append(len(past.series[0]))
        return [Forecast(np.zeros(5), np.arange(5), Frequency())]

    (result,) = roll(Panel((series,)), (14, 9), 5, None, "zeros", forecast).parts
    assert seen == [26, 31]
    assert result.forecasts["naive"][0].tolist() == [24] * 5
    assert result.times.tolist() == [[26, 27, 28, 29, 30], [31, 32, 33, 34, 35]]


def test_changing_the_future_does_not_change_the_forecasts_made_before_it() -> None:
    values = 5 + np.sin(np.arange(80.0)) + 0.01 * np.arange(80)
    values[60] = np.nan
    changed = values.copy()
    changed[68:] = np.random.default_rng(0).normal(0, 100, 12)
    forecaster = Forecaster(horizon=6, epochs=1, hidden_size=3, window=8)
    one, two = (
        forecaster.backtest(Series(v, np.arange(80)), origins=3).parts[0] for v in (values, changed)
    )
    assert one.origins == (62, 68, 74)
    for model in one.forecasts:
        np.testing.assert_array_equal(one.forecasts[model][:2], two.forecasts[model][:2])
    assert not np.array_equal(one.forecasts["lstm"][2], two.forecasts["lstm"][2])
    assert one.scale == two.scale


def test_a_backtest_does_not_fit_the_forecaster_itself() -> None:
    forecaster = Forecaster(horizon=6, epochs=1, hidden_size=3, window=8)
    forecaster.backtest(np.sin(np.arange(60.0)), origins=1)
    assert not hasattr(forecaster, "network_")
