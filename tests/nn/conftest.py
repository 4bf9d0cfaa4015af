from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from headgate import native

ENGINES = ("reference", "aten", "cpu") if native.available else ("reference", "aten")
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


@contextmanager
def engine(name: str) -> Iterator[None]:
    """Ask for an engine; where it cannot run a cell, the reference does."""
    before = os.environ.get("HEADGATE_ENGINE")
    os.environ["HEADGATE_ENGINE"] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ["HEADGATE_ENGINE"]
        else:
            os.environ["HEADGATE_ENGINE"] = before


@pytest.fixture(name="engine", params=ENGINES)
def _engine(request: pytest.FixtureRequest) -> Iterator[str]:
    with engine(request.param):
        yield request.param


@pytest.fixture(scope="session")
def use_engine() -> Callable[[str], object]:
    return engine


@pytest.fixture(scope="session")
def assert_same() -> Callable[..., None]:
    """Equal up to the dtype's tolerance, relative to each tensor's largest value."""

    def check(found: Sequence[Tensor], expected: Sequence[Tensor], what: str = "") -> None:
        assert len(found) == len(expected)
        for index, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert a.shape == b.shape, f"{what}[{index}]: {a.shape} and {b.shape}"
            assert a.dtype == b.dtype, f"{what}[{index}]: {a.dtype} and {b.dtype}"
            scale = b.abs().max().item() if b.numel() else 0.0
            error = (a - b).abs().max().item() if b.numel() else 0.0
            allowed = TOLERANCE[b.dtype] * max(scale, 1e-3)
            assert error <= allowed, f"{what}[{index}]: {error} > {allowed}"

    return check


@pytest.fixture(scope="session")
def gradients() -> Callable[..., list[Tensor]]:
    """Gradients of random projections of the outputs, zero where an input has no part."""

    def pull(outputs: Sequence[Tensor], inputs: Sequence[Tensor], seed: int = 7) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        cotangents = [
            torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o.dtype)
            for o in outputs
        ]
        found = torch.autograd.grad(list(outputs), list(inputs), cotangents, allow_unused=True)
        return [torch.zeros_like(i) if g is None else g for i, g in zip(inputs, found, strict=True)]

    return pull
