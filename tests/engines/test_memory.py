from __future__ import annotations

import pytest
import torch

import headgate
from headgate.engines.cpu import memory


@pytest.mark.parametrize("lengths", [None, [7, 3]])
def test_memory_of_a_call_in_inference_mode_serves_training(
    lengths: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADGATE_ENGINE", "cpu")
    monkeypatch.setattr(memory, "free", {})  # no other test's memory
    torch.manual_seed(0)
    module = headgate.LSTM(3, 5)
    x = torch.randn(7, 2, 3)
    with torch.inference_mode():
        expected = module(x, lengths=lengths)[0].clone()
    output, _ = module(x, lengths=lengths)
    output.sum().backward()
    torch.testing.assert_close(output.detach(), expected)
    assert module.weight_hh_l0.grad is not None
