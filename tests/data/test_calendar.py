from __future__ import annotations

import numpy as np

from headgate.data import Frequency


def test_a_season_of_a_year_follows_the_calendar() -> None:
    weekly = Frequency("week")
    time = np.arange("1990-01-06", "2001-12-29", 7, dtype="datetime64[D]").astype("datetime64[s]")
    phase = weekly.phase(time, 52)
    january = time.astype("datetime64[M]").astype(int) % 12 == 0
    assert phase[january].max() < 31.1 / 365
    assert phase.min() >= 0
    assert phase.max() < 1


def test_other_seasons_count_steps_and_do_not_depend_on_the_start() -> None:
    daily = Frequency("day")
    time = np.arange("2024-01-01", "2024-01-20", dtype="datetime64[D]").astype("datetime64[s]")
    phase = daily.phase(time, 7)
    np.testing.assert_allclose(phase[7:], phase[:-7])
    np.testing.assert_array_equal(daily.phase(time[3:], 7), phase[3:])
    np.testing.assert_allclose(np.diff(phase) % 1, 1 / 7)


def test_future_continues_the_grid() -> None:
    quarter = Frequency("month", 3).future(np.datetime64("2024-10-01", "s"), 2)
    assert [str(t)[:10] for t in quarter] == ["2025-01-01", "2025-04-01"]
    assert list(Frequency("step", 5).future(np.int64(20), 2)) == [25, 30]
