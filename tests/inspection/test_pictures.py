from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from matplotlib.lines import Line2D

from headgate.inspection import (
    Bands,
    PanelRow,
    backtest_figure,
    coverage_figure,
    forecast_figure,
    gates_figure,
    horizon_figure,
    loss_figure,
    panel_figure,
    save_figure,
)

DATES = np.arange("2020-01-01", "2020-02-10", dtype="datetime64[D]").astype("datetime64[s]")
VALUES = np.sin(np.arange(40.0))
UNITS = np.random.default_rng(0).uniform(0, 1, (40, 6))


AHEAD = VALUES[30:]
BANDS: Bands = {"95 %": (AHEAD - 2, AHEAD + 2), "80 %": (AHEAD - 1, AHEAD + 1)}


def band(axes: Axes, label: str) -> PolyCollection:
    (found,) = [each for each in axes.collections if each.get_label() == label]
    assert isinstance(found, PolyCollection)
    return found


def lightness(drawn: PolyCollection) -> float:
    return sum(to_rgb(drawn.get_facecolor()[0]))  # pyright: ignore[reportArgumentType]


def lines(axes: Axes) -> dict[str, Line2D]:
    return {str(line.get_label()): line for line in axes.lines}


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


def test_intervals_enclose_the_forecast_and_the_wider_are_lighter_and_behind() -> None:
    figure = forecast_figure(DATES[:30], VALUES[:30], DATES[30:], AHEAD, bands=BANDS)
    axes = figure.axes[0]
    assert legend(axes) == ["observed", "forecast", "80 %", "95 %"]
    narrow, wide = band(axes, "80 %"), band(axes, "95 %")
    assert lightness(narrow) < lightness(wide)
    assert wide.get_zorder() < narrow.get_zorder() < lines(axes)["forecast"].get_zorder()
    ends = wide.get_paths()[0].get_extents()
    assert (ends.y0, ends.y1) == pytest.approx((AHEAD.min() - 2, AHEAD.max() + 2))


def test_the_legend_lies_above_the_data() -> None:
    figure = forecast_figure(DATES[:30], VALUES[:30], DATES[30:], AHEAD, bands=BANDS)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert axes.legend_ is not None
    assert axes.legend_.get_window_extent().y0 >= axes.get_window_extent().y1
    assert axes.legend_.get_window_extent().x1 <= figure.bbox.x1


def test_a_single_step_is_visible() -> None:
    bands: Bands = {"80 %": (AHEAD[:1] - 1, AHEAD[:1] + 1)}
    figure = forecast_figure(DATES[:30], VALUES[:30], DATES[30:31], AHEAD[:1], bands=bands)
    axes = figure.axes[0]
    assert lines(axes)["forecast"].get_marker() == "o"
    (bar,) = axes.collections
    assert isinstance(bar, LineCollection)
    assert axes.get_title("left") == "value: 1 step ahead"


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    axes = forecast_figure(
        DATES[:30],
        VALUES[:30],
        DATES[30:],
        AHEAD,
        name="US$ per A$",
        baseline=("_own $x$", AHEAD),
    ).axes[0]
    assert axes.get_ylabel() == "US$ per A$"
    assert axes.legend_ is not None
    texts = [axes.yaxis.label, *axes.legend_.get_texts()]
    assert not any(text.get_parse_math() for text in texts)
    assert [text.strip() for text in legend(axes)] == ["observed", "_own $x$", "forecast"]


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ((AHEAD[1:], AHEAD), r"the lower end of '80 %' of shape \(10,\), got \(9,\)"),
        ((AHEAD + 1, AHEAD), "lower end of '80 %' lies above its upper end"),
    ],
)
def test_bands_that_are_none(ends: tuple[np.ndarray, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=f"forecast_figure: expected .*{message}"):
        forecast_figure(DATES[:30], VALUES[:30], DATES[30:], AHEAD, bands={"80 %": ends})


def test_a_backtest_shows_the_intervals_of_every_origin() -> None:
    times = np.stack([DATES[10:20], DATES[20:30]])
    rows = np.stack([VALUES[10:20], VALUES[20:30]])
    bands: Bands = {"80 %": (rows - 1, rows + 1)}
    axes = backtest_figure(DATES, VALUES, times, {"lstm": rows}, bands=bands).axes[0]
    assert legend(axes) == ["observed", "lstm", "80 %"]
    assert len(axes.collections) == 2
    with pytest.raises(ValueError, match=r"backtest_figure: expected forecasts of 'lstm'"):
        backtest_figure(DATES, VALUES, times, {"lstm": rows[:1]})


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


def test_no_gates() -> None:
    with pytest.raises(ValueError, match="at least one named value"):
        gates_figure(DATES, VALUES, {})


def test_losses_by_epoch() -> None:
    axes = loss_figure([3.0, 2.0, 1.0], [None, 2.5, None]).axes[0]
    assert axes.get_xlabel() == "epoch"
    assert [np.asarray(line.get_xdata()).tolist() for line in axes.lines] == [[1, 2, 3], [2]]


def test_errors_by_step_tell_the_network_from_naive_rows() -> None:
    steps = np.arange(1, 13)
    errors = {"lstm": steps * 0.5, "gru": steps * 0.6, "seasonal naive": steps, "drift": 2 * steps}
    axes = horizon_figure(steps, errors, unit="ppm").axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("steps ahead", "MAE (ppm)")
    assert legend(axes) == list(errors)
    drawn = lines(axes)
    widths = {name: line.get_linewidth() for name, line in drawn.items()}
    assert widths["lstm"] > max(width for name, width in widths.items() if name != "lstm")
    styles = [drawn[name].get_linestyle() for name in errors]
    assert styles[:2] == ["-", "-"]
    assert len(set(styles)) == 3
    assert len({str(drawn[name].get_color()) for name in errors}) == 3
    assert axes.get_ylim()[0] == 0
    assert list(np.asarray(drawn["lstm"].get_ydata())) == list(errors["lstm"])


def test_errors_of_one_step_stand_at_a_whole_step() -> None:
    axes = horizon_figure(np.array([1]), {"lstm": np.array([2.0])}, measure="MASE").axes[0]
    assert axes.get_ylabel() == "MASE"
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_errors_of_nothing() -> None:
    with pytest.raises(ValueError, match="horizon_figure: expected the errors of at least one"):
        horizon_figure(np.arange(3), {})
    with pytest.raises(ValueError, match=r"errors of 'lstm' of shape \(3,\), got \(2,\)"):
        horizon_figure(np.arange(3), {"lstm": np.zeros(2)})


def test_coverage_stands_beside_what_was_promised() -> None:
    axes = coverage_figure(np.array([80, 95]), np.array([74.25, np.nan])).axes[0]
    assert legend(axes) == ["within 3 points", "as promised", "measured"]
    assert axes.get_xlabel() == "nominal coverage (%)"
    assert [text.get_text() for text in axes.texts] == ["74.2"]
    promised = np.asarray(lines(axes)["as promised"].get_xydata())
    assert (promised[:, 0] == promised[:, 1]).all()
    assert axes.get_xlim() == axes.get_ylim()
    edge = band(axes, "within 3 points").get_paths()[0].vertices
    assert np.abs(np.diff(np.asarray(edge), axis=1)).max() == pytest.approx(3)


@pytest.mark.parametrize("nominal", [[0.8, 0.95], [100.0, 80.0]])
def test_coverage_in_percent(nominal: list[float]) -> None:
    with pytest.raises(ValueError, match="in percent, such as 80 and 95"):
        coverage_figure(np.array(nominal), np.array([70.0, 90.0]))


def panel_rows(count: int) -> list[PanelRow]:
    return [
        {
            "id": f"series {number}",
            "time": DATES[:30],
            "values": VALUES[:30],
            "forecast_time": DATES[30:],
            "forecast": AHEAD,
            "bands": BANDS,
        }
        for number in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 5, 12, 13])
def test_a_panel_shows_each_series_under_its_id(count: int) -> None:
    figure = panel_figure(panel_rows(count), name="sales", time_name="day")
    visible = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title("left") for axes in visible] == [
        f"series {number}" for number in range(min(count, 12))
    ]
    title = "sales: the first 12 of 13 series" if count == 13 else "sales"
    assert (figure.get_suptitle(), figure.get_supylabel()) == (title, "sales")
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["observed", "forecast", "80 %", "95 %"]
    assert visible[-1].get_xlabel() == "day"


def test_a_panel_of_nothing() -> None:
    with pytest.raises(ValueError, match="panel_figure: expected at least one series"):
        panel_figure([])
