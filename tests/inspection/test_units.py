"""Pictures of units over steps, of open gates and of memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headgate import Recurrent
from headgate.inspection import (
    Observation,
    gates_figure,
    memory_figure,
    memory_lengths,
    observe,
    saturation,
    saturation_figure,
    unit_figure,
    units_figure,
)

T = 40
TIME = np.datetime64("2024-01-01", "s") + np.arange(T) * np.timedelta64(7, "D")


def seen(kind: str = "lstm", width: int = 2, steps: int = T, **options: int) -> Observation:
    module = Recurrent(kind, width, 6, dtype=torch.float64, **options)  # type: ignore[arg-type]
    x = torch.randn(steps, 2, width, dtype=torch.float64)
    return observe(module, x, lengths=[steps, 0], gradients=True)


def forecast() -> Observation:
    """As of a forecaster: a series of dates, and what was expected of it."""
    made = seen()
    values = np.stack([np.sin(np.arange(T)), np.full(T, np.nan)])
    expected = np.concatenate([np.full((2, 1), np.nan), values[:, :-1]], axis=1)
    return replace(
        made,
        time=[TIME, TIME[:0]],
        series=values,
        prediction=expected,
        name="co2",
        time_name="week",
    )


def lines(axes: Axes) -> Mapping[str, np.ndarray]:
    return {str(line.get_label()): np.asarray(line.get_ydata()) for line in axes.lines}


def legend(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.legend_.get_texts()] if axes.legend_ else []


def drawn(axes: Axes) -> np.ndarray:
    values = axes.images[0].get_array()
    assert values is not None
    return np.asarray(values)


def bands(figure: Figure) -> dict[str, Axes]:
    return {axes.get_title("left"): axes for axes in figure.axes if axes.images}


def test_units_that_do_alike_stand_together() -> None:
    one, other = np.sin(np.arange(T)) / 3 + 0.5, np.linspace(0.1, 0.9, T)
    mixed = np.stack([one, other, one, other, one, other], axis=1)
    mixed = mixed + np.random.default_rng(0).normal(0, 0.01, mixed.shape)
    figure = gates_figure(TIME, one, {"f": mixed, "c": 9 * mixed})
    band = bands(figure)["forget gate f"]
    order = [int(np.flatnonzero((mixed == row[:, None]).all(axis=0))[0]) for row in drawn(band)]
    assert sorted(order) == list(range(6))
    assert len({unit % 2 for unit in order[:3]}) == 1
    np.testing.assert_array_equal(drawn(bands(figure)["cell state c"]), 9 * mixed[:, order].T)
    marks = {int(y): text.get_text() for y, text in zip(
        band.get_yticks(), band.get_yticklabels(), strict=True
    )}  # fmt: skip
    assert marks == {y: str(order[y]) for y in marks}


def test_values_stand_under_the_series_and_what_was_expected_of_it() -> None:
    observation = forecast()
    figure = units_figure(observation)
    above = figure.axes[0]
    assert above.get_ylabel() == "co2"
    assert legend(above) == ["observed", "expected one step before"]
    np.testing.assert_array_equal(lines(above)["observed"], observation.series[0])  # type: ignore[index]
    assert [*bands(figure)] == [
        *("input gate i", "forget gate f", "candidate g", "output gate o", "cell state c"),
        "output h",
    ]
    assert figure.axes[6].get_xlabel() == "week"
    limits = [axes.images[0].get_clim() for axes in bands(figure).values()]
    assert [limit == (0, 1) for limit in limits] == [True, True, False, True, False, False]
    edges = {axes.get_xlim() for axes in figure.axes[:7]}
    assert len(edges) == 1


def test_gates_are_those_of_the_equations_not_of_the_values() -> None:
    module = Recurrent("rnn_relu", 2, 6)
    for parameter in module.parameters():
        parameter.data *= 0.3
    observation = observe(module, torch.randn(T, 2))
    assert 0 < observation.layers[0, 0].values["h"].max() < 1
    figure = units_figure(observation)
    (band,) = bands(figure).values()
    low, high = band.images[0].get_clim()
    assert low == -high


def test_names_mean_what_they_do_in_the_cell_at_hand() -> None:
    titles = [*bands(units_figure(seen("gru"), names=("z", "n")))]
    assert titles == ["update gate z", "candidate n"]


def test_the_place_is_named_where_there_are_several() -> None:
    observation = seen("gru", num_layers=2, bidirectional=True)
    figure = units_figure(observation, layer=1, direction=1, names=("z",))
    assert figure.axes[0].get_title("left") == "Units of the gru cell, layer 1, read backwards"
    values = observation.layers[1, 1].values["z"][0]
    assert sorted(map(tuple, drawn(bands(figure)["update gate z"]))) == sorted(map(tuple, values.T))


def test_a_model_without_a_series_shows_its_inputs() -> None:
    few = units_figure(seen(width=2)).axes[0]
    assert legend(few) == ["x0", "x1"]
    figure = units_figure(seen(width=9))
    assert figure.axes[0].get_ylabel() == "input"
    assert drawn(bands(figure)["inputs"]).shape == (9, T)


def test_error_terms_are_drawn_around_zero() -> None:
    figure = units_figure(forecast(), errors=True)
    low, high = bands(figure)["forget gate f"].images[0].get_clim()
    assert low == -high
    assert high < 1
    bare = observe(Recurrent("gru", 2, 3), torch.randn(5, 2))
    with pytest.raises(ValueError, match="inspect with gradients=True"):
        units_figure(bare, errors=True)


def test_one_unit_as_lines() -> None:
    observation = forecast()
    figure = unit_figure(observation, 4)
    _, gates, others, errors = figure.axes
    assert legend(gates) == ["input gate i", "forget gate f", "output gate o"]
    assert legend(others) == ["candidate g", "cell state c", "output h"]
    layer = observation.layers[0, 0]
    np.testing.assert_array_equal(lines(others)["cell state c"], layer.values["c"][0, :, 4])
    assert layer.gradients is not None
    np.testing.assert_array_equal(lines(errors)["forget gate f"], layer.gradients["f"][0, :, 4])
    colours = [
        {line.get_label(): line.get_color() for line in axes.lines}["cell state c"]
        for axes in (others, errors)
    ]
    assert colours[0] == colours[1]


def test_a_single_step_is_visible() -> None:
    figure = unit_figure(seen(steps=1), 0)
    assert all(line.get_marker() == "o" for axes in figure.axes for line in axes.lines)
    assert drawn(bands(units_figure(seen(steps=1)))["output h"]).shape == (6, 1)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"row": 2}, "no row 2; 2 were observed"),
        ({"row": 1}, "row 1 has no steps"),
        ({"layer": 1}, r"no layer 1 with direction 0; \(layer, direction\) are \(0, 0\)"),
        ({"names": ("f", "q")}, "no value named 'q' was observed; there are i, f, g, o, c, h"),
    ],
)
def test_what_was_not_observed(place: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        units_figure(seen(), **place)
    with pytest.raises(ValueError, match=message):
        unit_figure(seen(), 0, **place)


def test_a_unit_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="no unit 6; the layer has 6"):
        unit_figure(seen(), 6)


def test_the_parts_of_a_bar_are_the_shares() -> None:
    table = saturation(seen("gru", num_layers=2))
    table = table.with_columns(closed=0.25, half=0.7, open=0.05)
    axes = saturation_figure(table, "gru").axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        *("r, layer 0", "z, layer 0", "r, layer 1", "z, layer 1"),
    ]
    assert legend(axes) == [
        *("nearly closed (below 0.1)", "half open", "nearly open (above 0.9)"),
    ]
    ends = [[bar.get_x() + bar.get_width() for bar in part] for part in axes.containers]
    np.testing.assert_allclose(ends, [[0.25] * 4, [0.95] * 4, [1.0] * 4])
    assert [text.get_text() for text in axes.texts] == ["25%"] * 4 + ["70%"] * 4
    with pytest.raises(ValueError, match="a plain recurrent network has no gates"):
        saturation_figure(saturation(seen("rnn")))


def test_memory_rises_from_unit_to_unit_on_a_logarithmic_axis() -> None:
    table = memory_lengths(seen())
    axes = memory_figure(table, T, "lstm").axes[0]
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "memory length (steps)"
    dots = lines(axes)["c, factor f"]
    np.testing.assert_array_equal(dots, np.sort(table["memory"]))
    assert [text.get_text() for text in axes.texts] == [
        str(unit) for unit in table.sort("memory")["unit"]
    ]
    with pytest.raises(ValueError, match="plain recurrent network has none"):
        memory_figure(memory_lengths(seen("rnn")))


def test_units_that_never_forget_stand_above_all_others() -> None:
    table = memory_lengths(seen()).with_columns(
        memory=pl.Series([5.0, np.inf, 2.0, np.inf, 3.0, 40.0])
    )
    axes = memory_figure(table, T).axes[0]
    assert "never forgets" in [text.get_text() for text in axes.texts]
    dots = lines(axes)["c, factor f"]
    assert dots[:4].tolist() == [2.0, 3.0, 5.0, 40.0]
    assert (dots[4:] > 40).all()
    assert np.isfinite(dots).all()
    assert "steps observed" in legend(axes)
