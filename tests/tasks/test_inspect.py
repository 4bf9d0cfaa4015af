"""headgate.inspect: inside a forecaster, and inside a module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

import headgate
from headgate import Forecaster, Record
from headgate.data import Covariates, DataError, Frequency, Panel, Series
from headgate.inspection import saturation
from headgate.tasks import ModelError
from headgate.tasks.sampling import loss_of

SEASON = 12


def series(length: int = 80, id: str = "", seed: int = 0, holes: bool = False) -> Series:
    generator = np.random.default_rng(seed)
    steps = np.arange(length)
    values = (
        40 + steps / 5 + 3 * np.sin(2 * np.pi * steps / SEASON) + generator.normal(0, 0.2, length)
    )
    if holes:
        values[20:23] = np.nan
    time = np.datetime64("2015-01-01", "s") + steps * np.timedelta64(1, "D")
    covariates = Covariates(
        {"promotion": generator.random(length + 6)},
        {"visitors": generator.random(length)},
        {"size": float(seed), "kind": "ab"[seed % 2]},
    )
    return Series(values, time, Frequency("day"), "sales", "day", id=id, covariates=covariates)


def plain(data: Series) -> Series:
    return Series(data.values, data.time, data.frequency, data.name, data.time_name, id=data.id)


def fitted(data: Any, **options: Any) -> Forecaster:
    given = {"hidden_size": 4, "epochs": 2, "window": 20, "horizon": 6, "season": SEASON}
    return Forecaster(**{**given, **options}).fit(data)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"difference": "seasonal"},
        {"difference": "first", "transform": "log", "num_layers": 2, "cell": "gru"},
        {"difference": "none", "strategy": "closed-loop", "output": "gaussian"},
        {"output": "quantiles", "lags": 6},
        {"output": "negative_binomial", "difference": "none", "scaling": "mean"},
    ],
    ids=str,
)
def test_what_was_expected_is_the_forecast_of_one_step(options: dict[str, Any]) -> None:
    data = plain(series(holes=True))
    if options.get("output") == "negative_binomial":
        data = Series(np.round(data.values), data.time, data.frequency, data.name, data.time_name)
    forecaster = fitted(data, **options)
    seen = headgate.inspect(forecaster, data)
    lag = forecaster.preprocessing_.lag
    assert seen.lengths.tolist() == [len(data) - lag]
    assert (seen.name, seen.time_name) == ("sales", "day")
    assert seen.series is not None
    assert seen.prediction is not None
    np.testing.assert_array_equal(seen.time[0], data.time[lag:])
    np.testing.assert_array_equal(seen.series[0], data.values[lag:])
    assert np.isnan(seen.prediction[0, 0])
    for step in (8, 19):  # no more than a window before it
        expected = forecaster.predict(series=data[: step + lag], intervals=()).values[0]
        assert seen.prediction[0, step] == pytest.approx(expected, rel=1e-5)
    if options.get("output") == "quantiles":  # a forecast is the median, what is odd the mean's
        return
    odd = forecaster.anomalies(data, level=0.5)
    places = np.searchsorted(seen.time[0], odd["day"].to_numpy().astype("datetime64[s]"))
    assert len(places)
    np.testing.assert_allclose(seen.prediction[0, places], odd["expected"], rtol=1e-6)


def test_the_columns_of_the_input_have_names() -> None:
    panel = Panel(tuple(series(80 + k, f"shop {k}", k, holes=k == 1) for k in range(3)))
    forecaster = fitted(panel, difference="none", harmonics=2, calendar=("weekday",), lags=(6, 7))
    seen = headgate.inspect(forecaster, panel)
    assert seen.input_names == (
        *("value", "seen", "season sin 1", "season sin 2", "season cos 1", "season cos 2"),
        *("weekday sin 1", "weekday sin 2", "weekday cos 1", "weekday cos 2"),
        *("promotion", "lag 6", "lag 7", "visitors", "size", "kind = a", "kind = b"),
    )
    assert seen.ids == ("shop 0", "shop 1", "shop 2")
    assert seen.lengths.tolist() == [80, 81, 82]

    def column(name: str, row: int = 1) -> np.ndarray:
        return seen.inputs[row, : seen.lengths[row], seen.input_names.index(name)]

    assert column("seen").tolist() == [float(not 20 <= t < 23) for t in range(81)]
    assert set(column("kind = b")) == {1.0}
    wave = column("season sin 1") ** 2 + column("season cos 1") ** 2
    np.testing.assert_allclose(wave, 1, rtol=1e-5)
    np.testing.assert_allclose(
        column("season sin 1")[SEASON:], column("season sin 1")[:-SEASON], atol=1e-5
    )
    np.testing.assert_allclose(column("lag 6")[5:-1], column("value")[: 81 - 6], rtol=1e-5)
    given = panel["shop 1"].covariates.known["promotion"][1:81]
    assert np.corrcoef(column("promotion")[:-1], given)[0, 1] == pytest.approx(1, abs=1e-6)


def test_a_row_of_a_panel_is_what_it_is_alone() -> None:
    panel = Panel(tuple(plain(series(60 + 9 * k, f"shop {k}", k)) for k in range(3)))
    forecaster = fitted(panel)
    whole, alone = headgate.inspect(forecaster, panel), headgate.inspect(forecaster, panel, row=1)
    assert (alone.ids, alone.name, whole.name) == (("shop 1",), "shop 1", "sales")
    length = alone.lengths[0]
    for name, values in alone.layers[0, 0].values.items():
        np.testing.assert_allclose(
            values[0], whole.layers[0, 0].values[name][1, :length], atol=1e-6
        )
    np.testing.assert_allclose(alone.prediction[0], whole.prediction[1, :length], rtol=1e-5)  # type: ignore[index]
    for row in (3, -1):
        with pytest.raises(ValueError, match=f"no row {row}; the data has 3 rows, 0 to 2"):
            headgate.inspect(forecaster, panel, row=row)


@pytest.mark.parametrize("covariates", [False, True])
def test_error_terms_are_those_of_the_training_loss(covariates: bool) -> None:
    data = series(50) if covariates else plain(series(50))
    horizon = 6
    forecaster = fitted(data, difference="none", horizon=horizon)
    encoder, steps = forecaster.encoder_, forecaster.preprocessing_
    encoded = encoder.encode(data, steps, horizon, known=0)
    ahead = np.arange(50)[:, None] + np.arange(1, 1 + horizon)
    came = np.append(steps.apply(data.values), np.full(horizon, np.nan))[ahead]
    record, network = Record(gradients=True), forecaster.network_.eval()
    raw, _ = network(
        torch.from_numpy(encoded.inputs)[None],
        ahead=torch.from_numpy(encoded.ahead[ahead])[None] if covariates else None,
        record=record,
    )
    valid = torch.from_numpy(~np.isnan(came))
    (raw[0] - torch.from_numpy(came))[valid].square().mean().backward()
    layer = headgate.inspect(forecaster, data, gradients=True).layers[0, 0]
    assert layer.gradients is not None
    for name in "ifgoch":
        expected = record.gradient(name)[0]
        np.testing.assert_allclose(layer.gradients[name], expected, rtol=1e-3, atol=1e-7)
    assert not layer.gradients["h"][0, -1].any()
    assert layer.gradients["h"][0, -2].any()


def test_error_terms_of_a_closed_loop_are_those_of_its_only_window() -> None:
    data = plain(series(50))
    forecaster = fitted(data, difference="none", strategy="closed-loop", window=49)
    batch = forecaster.batches(data).batch(np.array([0]))
    record = Record(gradients=True)
    raw, _ = forecaster.network_.eval()(batch.inputs, record=record)
    total, count = loss_of(forecaster._output)(raw, batch.targets, batch.valid)
    (total / count).backward()
    layer = headgate.inspect(forecaster, data, gradients=True).layers[0, 0]
    assert layer.gradients is not None
    for name in "ifgoch":
        found = layer.gradients[name][0, :-1]
        np.testing.assert_allclose(found, record.gradient(name)[0, 0], rtol=1e-4, atol=1e-8)


def test_a_saved_model_reads_the_end_of_its_series(tmp_path: Path) -> None:
    forecaster = fitted(plain(series()), members=2)
    forecaster.save(tmp_path / "model")
    one, other = headgate.inspect(forecaster), headgate.inspect(tmp_path / "model", names=("f",))
    assert [*other.layers[0, 0].values] == ["f"]
    assert one.lengths.tolist() == [20 + 6 - 6]
    np.testing.assert_array_equal(one.layers[0, 0].values["f"], other.layers[0, 0].values["f"])
    assert other.time[0][-1] == series().time[-1]


def test_a_series_that_is_too_short_and_models_that_are_none(tmp_path: Path) -> None:
    forecaster = fitted(plain(series()), difference="seasonal")
    with pytest.raises(DataError, match="expected more than 12 values"):
        headgate.inspect(forecaster, plain(series())[:12])
    with pytest.raises(ValueError, match="values are i, f, g, o, c, h"):
        headgate.inspect(forecaster, names=("z",))
    with pytest.raises(NotFittedError):
        headgate.inspect(Forecaster())
    with pytest.raises(ModelError, match="no such model folder"):
        headgate.inspect(tmp_path / "absent")
    with pytest.raises(TypeError, match="a torch module; got int"):
        headgate.inspect(3)  # type: ignore[arg-type]


def test_a_module_reads_arrays_of_any_form() -> None:
    rows = [np.random.default_rng(k).normal(size=(steps, 3)) for k, steps in enumerate((7, 4, 0))]
    first = headgate.GRU(3, 5, batch_first=True)
    second = headgate.GRU(3, 5)
    second.load_state_dict(first.state_dict())
    ragged = headgate.inspect(first, rows)
    assert ragged.lengths.tolist() == [7, 4, 0]
    assert ragged.input_names == ("x0", "x1", "x2")
    assert ragged.series is None
    for other in (
        headgate.inspect(second, rows),
        headgate.inspect(second, [torch.from_numpy(row) for row in rows]),
    ):
        assert other.table().equals(ragged.table())
    whole = headgate.inspect(second, rows[0])
    np.testing.assert_allclose(
        whole.layers[0, 0].values["h"][0], ragged.layers[0, 0].values["h"][0], rtol=1e-6
    )
    stacked = headgate.inspect(second, np.stack([rows[0], rows[0]]), row=1, gradients=True)
    assert stacked.inputs.shape == (1, 7, 3)
    assert stacked.layers[0, 0].gradients is not None
    assert saturation(stacked)["values"].to_list() == [35, 35]


@pytest.mark.parametrize(
    ("data", "came"),
    [
        (None, "NoneType"),
        (np.zeros(5), r"shape \(5,\)"),
        ([], "list"),
        ([np.zeros((3, 2)), np.zeros((3, 1))], "list"),
    ],
)
def test_what_a_module_cannot_read(data: Any, came: str) -> None:
    with pytest.raises(ValueError, match=rf"expected an array \(N, T, I\).* got {came}"):
        headgate.inspect(headgate.LSTM(2, 3), data)
