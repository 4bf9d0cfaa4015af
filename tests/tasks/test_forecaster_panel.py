"""One network over many series, with covariates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from headgate import Forecaster
from headgate.data import Covariates, DataError, Frequency, Panel, Series
from headgate.tasks.forecast import table

HORIZON = 6


def shop(id: str, seed: int, length: int = 90, ahead: int = HORIZON) -> Series:
    """Sales that rise by 5 in promotions, which are known, and by a size of their own."""
    generator = np.random.default_rng(seed)
    promotion = (generator.random(length + ahead) < 0.3).astype(float)
    level = 20.0 + 10 * seed
    values = level + 5 * promotion[:length] + generator.normal(0, 0.1, length)
    time = np.datetime64("2015-01-01", "s") + np.arange(length) * np.timedelta64(1, "D")
    covariates = Covariates(
        {"promotion": promotion},
        {"visitors": values + generator.normal(0, 1, length)},
        {"size": float(seed), "kind": "ab"[seed % 2]},
    )
    return Series(values, time, Frequency("day"), "sales", "day", id=id, covariates=covariates)


def shops(count: int = 4) -> Panel:
    return Panel(tuple(shop(f"shop {k}", k, 90 + 3 * k) for k in range(count)))


def quick(**options: Any) -> Forecaster:
    given = {"hidden_size": 8, "epochs": 2, "window": 14, "horizon": HORIZON, "difference": "none"}
    return Forecaster(**{**given, **options})  # type: ignore[arg-type]


def test_a_forecast_for_each_series_by_its_id() -> None:
    panel = shops()
    found = quick().fit(panel).predict()
    assert [each.id for each in found] == [each.id for each in panel]
    for series in panel:
        assert found[series.id].time[0] == series.time[-1] + np.timedelta64(1, "D")
        assert abs(found[series.id].values.mean() - series.values.mean()) < 4
    rows = table(list(found))
    assert rows.columns == ["unique_id", "day", "value"]
    assert rows.height == len(panel) * HORIZON
    assert rows["day"].dtype == pl.Date


@pytest.mark.parametrize("strategy", ["direct", "closed-loop"])
def test_what_is_known_ahead_is_used(strategy: str) -> None:
    panel = shops()
    network = quick(strategy=strategy, epochs=25, learning_rate=0.02).fit(panel)
    for k, (series, forecast) in enumerate(zip(panel, network.predict(), strict=True)):
        promotion = series.covariates.known["promotion"][len(series) :]
        expected = 20.0 + 10 * k + 5 * promotion
        assert np.abs(forecast.values - expected).mean() < 1.2


def test_known_covariates_must_reach_as_far_as_the_forecast() -> None:
    network = quick().fit(shops())
    short = shop("shop 0", 0, ahead=2)
    with pytest.raises(DataError, match=r"'shop 0': covariate 'promotion' is known for 2 steps"):
        network.predict(series=short)
    bare = replace(short, covariates=Covariates())
    with pytest.raises(DataError, match=r"the known covariates \['promotion'\] are absent"):
        network.predict(series=bare)


def test_a_series_that_training_has_not_seen() -> None:
    new = shop("new", 7)
    found = quick(epochs=10).fit(shops()).predict(series=Panel((new,)))
    assert abs(found["new"].values.mean() - new.values.mean()) < 4


def test_series_do_not_depend_on_their_neighbours() -> None:
    panel = shops()
    network = quick().fit(panel)
    together = network.predict()
    alone = network.predict(series=Panel(panel.series[2:3]))
    np.testing.assert_allclose(alone["shop 2"].values, together["shop 2"].values, rtol=1e-5)


def test_a_backtest_judges_each_series_and_each_step() -> None:
    panel = shops()
    tested = quick().backtest(panel, origins=3)
    models = ["lstm", "seasonal naive", "naive", "drift"]
    assert [row["model"] for row in tested.table] == models
    assert len(tested.by_series) == 4 * len(panel)
    assert [row["step"] for row in tested.by_step[:HORIZON]] == list(range(1, HORIZON + 1))
    part = tested.parts[1]
    assert part.origins == (93 - 18, 93 - 12, 93 - 6)
    np.testing.assert_array_equal(part.actual[-1], panel.series[1].values[-HORIZON:])
    mean = np.mean([r["mae"] for r in tested.by_series if r["model"] == "lstm"])
    assert tested.table[0]["mae"] == pytest.approx(mean)


def test_what_comes_after_an_origin_does_not_change_its_forecast() -> None:
    def changed(series: Series, at: int) -> Series:
        values, visitors = series.values.copy(), series.covariates.past["visitors"].copy()
        values[at:], visitors[at:] = 999.0, -999.0
        past = {"visitors": visitors}
        return replace(series, values=values, covariates=replace(series.covariates, past=past))

    panel = shops(2)
    other = Panel(tuple(changed(s, len(s) - HORIZON) for s in panel))
    one, two = (quick().backtest(p, origins=2) for p in (panel, other))
    for a, b in zip(one.parts, two.parts, strict=True):
        for model in a.forecasts:
            np.testing.assert_array_equal(a.forecasts[model], b.forecasts[model])


def test_refitting_at_each_origin() -> None:
    panel = shops(2)
    once, anew = (quick().backtest(panel, origins=2, refit=refit) for refit in (False, True))
    first = [t.parts[0].forecasts["lstm"] for t in (once, anew)]
    np.testing.assert_allclose(first[0][0], first[1][0], rtol=1e-5)
    assert not np.allclose(first[0][1], first[1][1])
    assert anew.refitted


def test_too_short_a_series_for_lags_and_differences_is_said() -> None:
    values = np.sin(np.arange(120) / 3)
    fitted = quick(lags=7, season=12, difference="seasonal", window=3).fit(values)
    assert len(fitted.predict(series=values[:19])) == 6
    with pytest.raises(ValueError, match="expected at least 19 values, which differences and lags"):
        fitted.predict(series=values[:18])


@pytest.mark.parametrize("lags", [7, (7, 14)])
@pytest.mark.parametrize("strategy", ["direct", "closed-loop"])
def test_lags_bring_what_was_so_many_steps_before(strategy: str, lags: Any) -> None:
    pattern = np.random.default_rng(3).normal(0, 1, 7)
    series = np.tile(pattern, 20)
    found = quick(
        strategy=strategy, lags=lags, window=3, epochs=60, learning_rate=0.03, season=None
    ).fit(series)
    error = found.predict().values - np.tile(pattern, 21)[140:146]
    assert np.abs(error).mean() < 0.3 * pattern.std()


def test_a_direct_forecast_cannot_look_back_less_than_its_horizon() -> None:
    with pytest.raises(ValueError, match="lags: expected at least the horizon of 6"):
        quick(lags=3).fit(shops())
    assert len(quick(lags=3, strategy="closed-loop").fit(np.sin(np.arange(90.0))).predict()) == 6


def test_a_model_folder_holds_all_of_it(tmp_path: Path) -> None:
    panel = shops()
    network = quick(output="quantiles", lags=(7,)).fit(panel)
    network.calibrate(network.backtest(panel, origins=3))
    network.save(tmp_path / "model")
    loaded = Forecaster.load(tmp_path / "model")
    for one, two in zip(network.predict(), loaded.predict(), strict=True):
        np.testing.assert_allclose(two.values, one.values, rtol=1e-6)
        assert list(two.quantiles) == list(one.quantiles)
        np.testing.assert_allclose(two.interval(0.95), one.interval(0.95), rtol=1e-6)
    np.testing.assert_allclose(
        loaded.predict(series=panel)["shop 3"].values, network.predict()["shop 3"].values, rtol=1e-6
    )


def test_training_goes_on_with_new_values() -> None:
    panel = shops(2)
    network = quick(epochs=5).fit(Panel(tuple(s[:-10] for s in panel)))
    before = network.predict()["shop 0"]
    weights = [p.clone() for p in network.network_.parameters()]
    network.update(Panel(tuple(s[-10:] for s in panel)))
    assert network.predict()["shop 0"].time[0] - before.time[0] == np.timedelta64(10, "D")
    assert any(
        not np.array_equal(a.detach(), b.detach())
        for a, b in zip(weights, network.network_.parameters(), strict=True)
    )
    assert len(network.update(Panel(tuple(shop(s.id, k, len(s) + 9) for k, s in enumerate(panel))))
               .history_.series[0]) == 14  # fmt: skip


def test_an_update_must_go_on_from_the_end() -> None:
    panel = shops(2)
    network = quick().fit(Panel(tuple(s[:-10] for s in panel)))
    with pytest.raises(
        DataError, match=r"starts at 2015-03-24.*but the model's ends at 2015-03-21"
    ):
        network.update(Panel((panel.series[0][-8:],)))
    with pytest.raises(DataError, match="no later than the model's"):
        network.update(Panel((panel.series[0][:-20],)))
    with pytest.raises(DataError, match="series 'other' is new to this model"):
        network.update(Panel((replace(panel.series[0], id="other"),)))


def test_values_alone_do_not_say_what_a_model_with_covariates_reads() -> None:
    network = quick().fit(shops())
    with pytest.raises(ValueError, match="stream: expected a model that reads values alone"):
        network.stream(network.warm_up(Panel(shops().series[:1])))
    plain = quick().fit(Panel(tuple(replace(s, covariates=Covariates()) for s in shops())))
    with pytest.raises(ValueError, match="expected one series, got 4"):
        plain.stream()


def test_forecasts_of_several_networks_are_averaged(tmp_path: Path) -> None:
    panel = shops(2)
    network = quick(members=3, output="gaussian", seed=4).fit(panel)
    alone = [quick(output="gaussian", seed=seed).fit(panel).predict() for seed in (4, 5, 6)]
    for series, found in zip(panel, network.predict(), strict=True):
        singles = [each[series.id] for each in alone]
        np.testing.assert_allclose(found.values, np.mean([s.values for s in singles], 0), rtol=1e-6)
        lower = np.mean([s.interval(0.8)[0] for s in singles], 0)
        np.testing.assert_allclose(found.interval(0.8)[0], lower, rtol=1e-6)
    network.save(tmp_path / "model")
    again = Forecaster.load(tmp_path / "model").predict()
    np.testing.assert_allclose(again["shop 1"].values, network.predict()["shop 1"].values)
    with pytest.raises(ValueError, match=r"advance: expected one network.* has 3; forecast with"):
        network.advance(network.warm_up(panel), [1.0])
