from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.image import imread

from headgate.inspect import (
    backtest_figure,
    forecast_figure,
    gates_figure,
    loss_figure,
    save_figure,
)

DATES = np.arange("2020-01-01", "2020-02-10", dtype="datetime64[D]").astype("datetime64[s]")
VALUES = np.sin(np.arange(40.0))
UNITS = np.random.default_rng(0).uniform(0, 1, (40, 6))


def legend(axes: Axes) -> list[str]:
    return [handle.get_text() for handle in axes.legend_.get_texts()] if axes.legend_ else []


@pytest.mark.parametrize("time", [DATES, np.arange(40)])
def test_a_forecast_is_drawn_after_the_series(time: np.ndarray, tmp_path: Path) -> None:
    figure = forecast_figure(
        time[:30],
        VALUES[:30],
        time[30:],
        VALUES[30:],
        name="co2",
        time_name="date",
        baseline=("naive", np.zeros(10)),
    )
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("date", "co2")
    assert legend(axes) == ["observed", "naive", "forecast"]
    save_figure(figure, tmp_path / "forecast.png")
    assert imread(tmp_path / "forecast.png").shape[1] > 1000


def test_a_backtest_names_each_model_once() -> None:
    times = np.stack([DATES[10:20], DATES[20:30]])
    rows = {"lstm": np.zeros((2, 10)), "naive": np.ones((2, 10))}
    axes = backtest_figure(DATES, VALUES, times, rows, name="y").axes[0]
    assert legend(axes) == ["observed", "lstm", "naive"]


@pytest.mark.parametrize("time", [DATES, np.arange(40)])
def test_gates_lie_between_closed_and_open_and_states_around_zero(time: np.ndarray) -> None:
    figure = gates_figure(time, VALUES, {"f": UNITS, "c": 5 * UNITS - 2}, name="y", cell="lstm")
    series, forget, state = figure.axes[:3]
    assert series.get_ylabel() == "y"
    assert forget.get_title("left") == "forget gate f"
    assert forget.images[0].get_clim() == (0, 1)
    low, high = state.images[0].get_clim()
    assert low == -high
    drawn = forget.images[0].get_array()
    assert drawn is not None
    assert drawn.shape == (6, 40)
    means = np.asarray(drawn).mean(axis=1)
    assert (np.diff(means) >= 0).all()


def test_no_gates() -> None:
    with pytest.raises(ValueError, match="at least one named value"):
        gates_figure(DATES, VALUES, {})


def test_losses_by_epoch() -> None:
    axes = loss_figure([3.0, 2.0, 1.0], [None, 2.5, None]).axes[0]
    assert axes.get_xlabel() == "epoch"
    assert [np.asarray(line.get_xdata()).tolist() for line in axes.lines] == [[1, 2, 3], [2]]
