"""Counter-based random numbers for the masks of dropout and zoneout.

A number depends only on the seed and on its own place: layer, direction, name of the mask, row,
step and unit. So a mask is the same however a batch or a sequence is split, on any device and on
any number of threads.

Source: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from headgate import native

WHOLE_SEQUENCE = 0xFFFFFFFF
"""The step number under which a mask that holds for the whole sequence is drawn."""

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_BITS = {torch.float64: 24, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}


@dataclass(frozen=True)
class MaskKey:
    """What the masks of one layer and direction are drawn from in one call.

    seed: 64 bits, drawn once a call. layer, direction: numbers from 0. first_step: the number of
    the first step, where a call is a later piece of a sequence.
    """

    seed: int
    layer: int
    direction: int
    first_step: int = 0


def uniform(
    key: MaskKey,
    name: str,
    rows: Tensor | int,
    steps: tuple[int, int] | None,
    width: int,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
) -> Tensor:
    """Uniform numbers in [0, 1) that depend on nothing but their place.

        word = philox((unit ÷ 4, row, step, crc32("layer/direction/name")), seed)[unit mod 4]
        u = ⌊word / 2³²⁻ᵇ⌋ / 2ᵇ

    b is 24 in float32 and float64, and what the significand holds in float16 (11) and
    bfloat16 (8), so that no number is rounded up to 1.

    rows: the rows' numbers in the original batch, integers (N,); an int N means 0 … N−1.
    steps: (first, count) gives (count, N, width); None gives the one mask of a whole sequence,
    (N, width).

    Raises ValueError where steps or width are negative, steps leave the 32 bits of their counter
    word, or dtype is not one of these four.
    """
    first, count = (WHOLE_SEQUENCE, 1) if steps is None else steps
    if first < 0 or count < 0 or width < 0 or (steps and first + count > WHOLE_SEQUENCE):
        raise ValueError(
            f"uniform: expected steps=(first, count) and width from 0 on, steps below "
            f"{WHOLE_SEQUENCE}; got steps={steps}, width={width}; count steps from the "
            f"sequence's start"
        )
    if dtype not in _BITS:
        raise ValueError(
            f"uniform: expected a dtype among {', '.join(map(str, _BITS))}; got {dtype}; "
            f"draw in one of them and convert the mask"
        )
    device = torch.device(device)
    if isinstance(rows, int):
        rows = torch.arange(rows, device=device)
    rows = rows.to(device, torch.int64)
    mask = f"{key.layer}/{key.direction}/{name}"
    numbers = _uniform(_signed(key.seed), mask, rows, first, count, width)
    if _BITS[dtype] < 24:
        numbers = torch.floor(numbers * 2.0 ** _BITS[dtype]) * 2.0 ** -_BITS[dtype]
    numbers = numbers.to(dtype)
    return numbers[0] if steps is None else numbers


def _signed(seed: int) -> int:
    """The same 64 bits as the signed integer that an operator's argument can hold."""
    return ((seed + 2**63) & (2**64 - 1)) - 2**63


# One operator, so that transforms of torch.func hand it plain tensors and torch.compile does not
# trace into it.
@torch.library.custom_op("headgate::uniform", mutates_args=())
def _uniform(seed: int, mask: str, rows: Tensor, first: int, count: int, width: int) -> Tensor:
    fill = _compiled if native.available and rows.device.type == "cpu" else _portable
    return fill(seed & (2**64 - 1), zlib.crc32(mask.encode()), rows, first, count, width)


@_uniform.register_fake
def _(seed: int, mask: str, rows: Tensor, first: int, count: int, width: int) -> Tensor:
    return rows.new_empty(count, rows.shape[0], width, dtype=torch.float32)


def _compiled(seed: int, stream: int, rows: Tensor, first: int, count: int, width: int) -> Tensor:
    assert native.extension is not None
    out = rows.new_empty(count, len(rows), width, dtype=torch.float32)
    native.extension.uniform(seed, stream, rows.contiguous().numpy(), first, out.numpy())
    return out


def _portable(seed: int, stream: int, rows: Tensor, first: int, count: int, width: int) -> Tensor:
    device = rows.device
    blocks = torch.arange((width + 3) // 4, device=device)
    steps = torch.arange(first, first + count, device=device)
    counter = (
        blocks,
        rows[:, None],
        steps[:, None, None],
        torch.tensor(stream, device=device),
    )
    words = torch.stack(philox(counter, (seed & _WORD, seed >> 32)), dim=-1)
    words = words.reshape(count, len(rows), 4 * len(blocks))[..., :width]
    return (words >> 8).to(torch.float32) * 2.0**-24


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10: four random 32-bit words for each counter, as int64.

    counter: four int64 tensors of 32-bit words that broadcast. key: two 32-bit words.
    """
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def _multiply(factor: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """High and low words of a 32 × 32-bit product, in halves that int64 holds."""
    below = factor * (word & 0xFFFF)
    above = factor * (word >> 16) + (below >> 16)
    return above >> 16, ((above & 0xFFFF) << 16) | (below & 0xFFFF)
