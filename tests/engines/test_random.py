from __future__ import annotations

import os
import subprocess
import sys
import zlib

import pytest
import torch

from headgate import native
from headgate.engines.random import MaskKey, philox, uniform

KEY = MaskKey(seed=0x0123456789ABCDEF, layer=1, direction=0)
CPU = {"device": "cpu", "dtype": torch.float32}
needs_native = pytest.mark.skipif(not native.available, reason=native.reason)


# The vectors that the paper's authors publish with their implementation (kat_vectors).
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000",
         "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
         "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
         "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
    ids=["zeros", "ones", "pi"],
)  # fmt: skip
def test_philox_gives_its_published_vectors(counter: str, key: str, expected: str) -> None:
    c0, c1, c2, c3 = (torch.tensor(int(word, 16)) for word in counter.split())
    k0, k1 = (int(word, 16) for word in key.split())
    words = philox((c0, c1, c2, c3), (k0, k1))
    assert " ".join(f"{int(word):08x}" for word in words) == expected


def test_a_number_is_the_philox_word_of_its_place() -> None:
    row, step, unit = 5, 7, 6
    value = uniform(KEY, "h", torch.tensor([2, row]), (step - 1, 2), 9, **CPU)[1, 1, unit]
    counter = [unit // 4, row, step, zlib.crc32(b"1/0/h")]
    c0, c1, c2, c3 = (torch.tensor(word) for word in counter)
    word = philox((c0, c1, c2, c3), (0x89ABCDEF, 0x01234567))[unit % 4]
    assert float(value) == (int(word) >> 8) / 2**24


@needs_native
@pytest.mark.parametrize("width", [0, 1, 3, 4, 5, 17])
@pytest.mark.parametrize("steps", [(0, 3), (0, 0), (2**32 - 4, 3), None])
@pytest.mark.parametrize(
    "rows", [0, 1, 4, torch.tensor([3, 0, 2**32 - 1])], ids=["none", "one", "four", "some"]
)
def test_compiled_and_portable_numbers_are_equal(
    monkeypatch: pytest.MonkeyPatch,
    rows: int | torch.Tensor,
    steps: tuple[int, int] | None,
    width: int,
) -> None:
    for seed in (0, 2**64 - 1, KEY.seed):
        key = MaskKey(seed, 0, 1)
        with monkeypatch.context() as patch:
            patch.setattr(native, "available", False)
            portable = uniform(key, "c", rows, steps, width, **CPU)
        assert torch.equal(uniform(key, "c", rows, steps, width, **CPU), portable)


def test_shapes() -> None:
    assert uniform(KEY, "h", 3, (0, 5), 7, **CPU).shape == (5, 3, 7)
    assert uniform(KEY, "h", 3, None, 7, **CPU).shape == (3, 7)
    assert uniform(KEY, "h", torch.tensor([4, 9]), None, 7, **CPU).shape == (2, 7)


def test_numbers_do_not_depend_on_how_the_work_is_split() -> None:
    whole = uniform(KEY, "h", 6, (0, 10), 5, **CPU)
    pieces = [uniform(KEY, "h", 6, (first, 5), 5, **CPU) for first in (0, 5)]
    assert torch.equal(whole, torch.cat(pieces))
    order = torch.tensor([4, 1, 5])
    assert torch.equal(whole[:, order], uniform(KEY, "h", order, (0, 10), 5, **CPU))
    strided = torch.arange(6)[::2]
    assert torch.equal(whole[:, ::2], uniform(KEY, "h", strided, (0, 10), 5, **CPU))
    assert torch.equal(whole[..., :3], uniform(KEY, "h", 6, (0, 10), 3, **CPU))


def test_every_coordinate_gives_other_numbers() -> None:
    def draw(seed: int = 1, layer: int = 0, direction: int = 0, name: str = "h") -> torch.Tensor:
        return uniform(MaskKey(seed, layer, direction), name, 4, (0, 4), 8, **CPU)

    draws = [draw(), draw(seed=2), draw(seed=1 + 2**32), draw(layer=1), draw(direction=1),
             draw(name="c")]  # fmt: skip
    assert torch.stack(draws).unique().numel() == 6 * 4 * 4 * 8
    once = uniform(MaskKey(1, 0, 0), "h", 4, None, 8, **CPU)
    assert not torch.isin(once, draws[0]).any()


def test_numbers_are_uniform() -> None:
    numbers = uniform(KEY, "h", 64, (0, 64), 64, **CPU)
    n = numbers.numel()
    assert numbers.min() >= 0 < 1e-4 < 1 - 1e-4 < numbers.max() < 1
    # Five standard deviations of the mean of uniforms, and of a Bernoulli rate.
    assert abs(numbers.double().mean() - 0.5) < 5 * (1 / 12 / n) ** 0.5
    for rate in (0.1, 0.5, 0.9):
        kept = (numbers < rate).double().mean()
        assert abs(kept - rate) < 5 * (rate * (1 - rate) / n) ** 0.5
    # Independence of neighbours in each axis: correlations have a deviation of 1 / sqrt(n).
    centred = (numbers.double() - 0.5) * 12**0.5
    for axis in range(3):
        lag = (centred * centred.roll(1, axis)).mean()
        assert abs(lag) < 5 / n**0.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_numbers_stay_below_one_in_every_dtype(dtype: torch.dtype) -> None:
    numbers = uniform(KEY, "h", 64, (0, 64), 64, device="cpu", dtype=dtype)
    assert numbers.dtype == dtype
    assert numbers.min() >= 0
    assert numbers.max() < 1
    exact = uniform(KEY, "h", 64, (0, 64), 64, **CPU).double()
    assert (exact - numbers.double()).min() >= 0
    assert (exact - numbers.double()).max() < torch.finfo(dtype).eps


def test_masks_can_be_drawn_inside_transforms_and_compiled_code() -> None:
    def loss(x: torch.Tensor) -> torch.Tensor:
        return (x * uniform(KEY, "h", 2, (0, 3), 5, **CPU)).sum()

    x = torch.zeros(3, 2, 5)
    mask = uniform(KEY, "h", 2, (0, 3), 5, **CPU)
    assert torch.equal(torch.func.grad(loss)(x), mask)
    assert torch.equal(torch.func.vmap(torch.func.grad(loss))(x[None])[0], mask)
    x.requires_grad_()
    torch.compile(loss, backend="eager", fullgraph=True)(x).backward()
    assert x.grad is not None
    assert torch.equal(x.grad, mask)


def test_the_default_device_does_not_matter() -> None:
    mask = uniform(KEY, "h", 2, (0, 3), 5, **CPU)
    with torch.device("meta"):
        assert torch.equal(uniform(KEY, "h", 2, (0, 3), 5, **CPU), mask)


def test_wrong_arguments_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"uniform: expected steps=.*got steps=\(-1, 2\)"):
        uniform(KEY, "h", 1, (-1, 2), 1, **CPU)
    with pytest.raises(ValueError, match=r"steps below 4294967295; got steps=\(4294967295, 1\)"):
        uniform(KEY, "h", 1, (2**32 - 1, 1), 1, **CPU)
    with pytest.raises(ValueError, match=r"expected a dtype among .*; got torch.int64"):
        uniform(KEY, "h", 1, None, 1, device="cpu", dtype=torch.int64)


def test_it_runs_without_the_compiled_part() -> None:
    code = (
        "import torch; from headgate import native; from headgate.engines.random import *;"
        "assert not native.available and 'HEADGATE_NATIVE=0' in native.reason;"
        "print(uniform(MaskKey(3, 0, 0), 'h', 2, None, 3, device='cpu', dtype=torch.float32)"
        ".tolist())"
    )
    environment = os.environ | {"HEADGATE_NATIVE": "0"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    here = uniform(MaskKey(3, 0, 0), "h", 2, None, 3, **CPU)
    assert run.stdout.strip() == str(here.tolist())


@needs_native
def test_the_compiled_part_says_how_it_was_built() -> None:
    assert native.extension is not None
    info = native.extension.build_info()
    assert info["compiler"]
    assert info["cxx_standard"] >= 201703
    assert info["compiler"] in native.reason
