"""The vectorised elementary functions of each instruction set against torch in float64 and mpmath:
the bounds that csrc/vec.hpp states, and special values."""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import pytest
import torch
from torch import Tensor

from headgate import native
from headgate.engines.cpu.code import OPS

pytestmark = pytest.mark.skipif(not native.available, reason=f"compiled engine {native.reason}")

SETS = [entry[0] for entry in native.extension.instruction_sets()] if native.extension else []
FUNCTIONS = ("exp", "sigmoid", "tanh", "log", "log_sigmoid", "sqrt")
EXACT: dict[str, Callable] = {
    "exp": mpmath.exp,
    "sigmoid": lambda v: 1 / (1 + mpmath.exp(-v)),
    "tanh": mpmath.tanh,
    "log": mpmath.log,
    "log_sigmoid": lambda v: -mpmath.log1p(mpmath.exp(-v)),
    "sqrt": mpmath.sqrt,
}
ULPS = {"exp": 2, "sigmoid": 3, "tanh": 2, "log": 1, "log_sigmoid": 3, "sqrt": 0.51}
ULPS_OF_TANH_IN_FLOAT32 = 6
INF, NAN = float("inf"), float("nan")


def apply(isa: str, name: str, x: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(x, (0, -len(x) % 16)).contiguous()
    out = torch.full_like(padded, NAN)
    double = x.dtype == torch.float64
    assert native.extension is not None
    native.extension.apply(
        isa, OPS.index(name), double, padded.data_ptr(), out.data_ptr(), len(padded)
    )
    return out[: len(x)]


def points(name: str, dtype: torch.dtype, count: int) -> Tensor:
    """Over the range, dense near zero, and for log near one."""
    wide = 88.7 if dtype == torch.float32 else 709.7  # exp is near the largest number there
    generator = torch.Generator().manual_seed(0)

    def draw() -> Tensor:
        return torch.rand(count, generator=generator, dtype=torch.float64)

    small = 10 ** (-12 * draw())
    if name in ("log", "sqrt"):
        return torch.cat([10 ** (60 * draw() - 30), 0.5 + draw(), 1 + 1e-3 * small]).to(dtype)
    far = torch.cat([wide * (2 * draw() - 1), wide - draw()])
    return torch.cat([far, 20 * draw() - 10, small, -small]).to(dtype)


def exact(name: str, x: Tensor) -> Tensor:
    """In float64; of float64 arguments as two numbers' sum (M, 2)."""
    with mpmath.workdps(45):
        values = [EXACT[name](mpmath.mpf(v)) for v in x.double().tolist()]
        high = [float(v) for v in values]
        return torch.tensor(
            [[h, float(v - h)] for h, v in zip(high, values, strict=True)], dtype=torch.float64
        )


def ulps(found: Tensor, expected: Tensor) -> Tensor:
    """Errors in units of the last place of the true value."""
    info = torch.finfo(found.dtype)
    exponent = torch.frexp(expected[:, 0]).exponent - 1
    unit = info.eps * torch.exp2(exponent.double())
    error = ((found.double() - expected[:, 0]) - expected[:, 1]).abs() / unit
    return error[expected[:, 0].abs() >= 2 * info.tiny]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_are_within_the_stated_bounds(name: str, dtype: torch.dtype):
    x = points(name, dtype, 1500)
    expected = exact(name, x)
    bound = ULPS[name]
    if name == "tanh" and dtype == torch.float32:
        bound = ULPS_OF_TANH_IN_FLOAT32
    for isa in SETS:
        worst = ulps(apply(isa, name, x), expected).max().item()
        assert worst <= bound, f"{isa}: {worst} ulp"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values_are_those_of_torch(name: str, dtype: torch.dtype):
    info = torch.finfo(dtype)
    special = [0.0, -0.0, INF, -INF, NAN, info.max, -info.max, 1.0, -1.0, 1e3, -1e3, 1e4, -1e4]
    whole = {torch.float32: torch.int32, torch.float64: torch.int64}[dtype]
    payload = torch.tensor(NAN, dtype=dtype).view(whole) | 0x6A0  # a NaN of other bits
    x = torch.cat([torch.tensor(special, dtype=dtype), payload.view(dtype)[None]])
    function = torch.nn.functional.logsigmoid if name == "log_sigmoid" else getattr(torch, name)
    expected = function(x.double()).to(dtype)
    expected[expected.abs() < info.tiny] = 0.0
    for isa in SETS:
        found = apply(isa, name, x)
        torch.testing.assert_close(found, expected, rtol=8 * info.eps, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_denormal_counts_as_zero(dtype: torch.dtype):
    tiny = torch.finfo(dtype).tiny
    x = torch.tensor([tiny / 4, -tiny / 4], dtype=dtype)
    for isa in SETS:
        assert not apply(isa, "tanh", x).any()
        assert apply(isa, "exp", x).tolist() == [1.0, 1.0]
        assert apply(isa, "sigmoid", x).tolist() == [0.5, 0.5]
        assert apply(isa, "log", x[:1]).tolist() == [-INF]
        assert not apply(isa, "sqrt", x[:1]).any()
        assert (x / 2).all()  # outside, it is a number as before
