"""What the next forecast rests on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from headgate import Forecaster
from headgate.tasks.reasons import reasons

STEPS = np.arange(90)
VALUES = 20 + 3 * np.sin(2 * np.pi * STEPS / 12) + np.random.default_rng(0).normal(0, 0.2, 90)


def fitted(**options: Any) -> Forecaster:
    given = {"hidden_size": 5, "epochs": 3, "window": 24, "horizon": 6, "season": 12}
    return Forecaster(**{**given, "difference": "none", **options}).fit(VALUES)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [{}, {"cell": "gru", "num_layers": 2}, {"lags": 6}, {"output": "quantiles"}],
    ids=str,
)
def test_what_the_inputs_add_makes_up_the_forecast(options: dict[str, Any]) -> None:
    network = fitted(**options)
    found = reasons(network, VALUES)
    assert found.attribution.shape == found.inputs.shape == (90, len(found.input_names))
    scaled = network.preprocessing_.apply(network.predict(series=VALUES).values)
    reader = network._reader
    with torch.no_grad():
        given = {}
        if reader.local:
            encoded = reader.encoder.encode(network.history_.series[0], network.preprocessing_, 6)
            given["ahead"] = torch.from_numpy(encoded.ahead[-6:])[None, None].expand(1, 90, 6, -1)
        raw = network.network_(torch.zeros(1, *found.inputs.shape), **given)[0][:, -1]
        nothing = reader.middle(raw, torch.tensor(1.0)).sum()
    # quantiles are sorted, so the forecast has kinks between the points of the integral
    gap = 0.02 if "output" in options else 2e-3
    assert found.attribution.sum() == pytest.approx(scaled.sum() - float(nothing), abs=gap)


def test_later_steps_matter_more_here_and_the_flow_says_so() -> None:
    found = reasons(fitted(), VALUES)
    early, late = np.abs(found.attribution[:30]).sum(), np.abs(found.attribution[-30:]).sum()
    assert early < 0.01 * late
    relative = found.flow.relative("c")
    assert relative[0] == 1
    assert relative[60] < 0.01
    assert len(found.time) == 90


def test_nothing_of_the_network_is_changed() -> None:
    network = fitted()
    weights = list(network.network_.parameters())
    before, kept = network.predict().values, [(p.grad, p.requires_grad) for p in weights]
    reasons(network)
    assert all(
        p.grad is grad and p.requires_grad is needed
        for p, (grad, needed) in zip(weights, kept, strict=True)
    )
    np.testing.assert_array_equal(network.predict().values, before)
