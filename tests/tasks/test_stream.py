from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headgate import Forecaster
from headgate.data import Frequency, Series


def wave(length: int = 100) -> Series:
    steps = np.arange(length)
    values = 20 + 0.1 * steps + 3 * np.sin(2 * np.pi * steps / 12) + 0.3 * np.cos(steps**2)
    time = np.datetime64("2015-01", "M") + steps.astype("timedelta64[M]")
    return Series(values, time.astype("datetime64[s]"), Frequency("month"), "sales", "month")


def quick(cell: str = "lstm", **options: Any) -> Forecaster:
    given = {"hidden_size": 4, "epochs": 2, "window": 12, "horizon": 6, **options}
    return Forecaster(cell, **given)


@pytest.mark.parametrize(
    "options", [{}, {"strategy": "closed-loop", "lags": 3}, {"num_layers": 2}, {"lags": (6, 8)}]
)
def test_a_stream_forecasts_as_reading_everything_at_once(options: dict[str, Any]) -> None:
    series = wave(100)
    forecaster = quick(**options).fit(series[:80])
    stream = forecaster.stream(forecaster.warm_up(series[:80]))
    for seen in range(80, 100):
        found = stream.step(series.values[seen])
        state = forecaster.advance(forecaster.warm_up(series[:80]), series.values[80 : seen + 1])
        expected = forecaster.predict(len(found), state=state)
        np.testing.assert_allclose(found, expected.values, rtol=1e-5)
        assert stream.state.time == state.time


def test_a_stream_goes_on_from_any_state() -> None:
    series = wave(100)
    forecaster = quick("gru").fit(series)
    stream = forecaster.stream(forecaster.warm_up(series[:50]))
    first = stream.step(series.values[50])
    after = stream.state
    second = stream.step(series.values[51])
    stream.state = after
    np.testing.assert_array_equal(stream.step(series.values[51]), second)
    assert not np.array_equal(first, second)


def test_a_missing_value_is_refused_and_leaves_the_stream_where_it_was() -> None:
    series = wave()
    stream = quick().fit(series).stream()
    before = stream.state
    with pytest.raises(ValueError, match="expected a finite value, got nan; fill a missing one"):
        stream.step(float("nan"))
    assert stream.state.time == before.time
