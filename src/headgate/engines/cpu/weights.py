"""The instruction set in use, and weights packed for its product kernel."""

from __future__ import annotations

import os
from collections import OrderedDict
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from headgate import native
from headgate.engines.cpu.code import Packing
from headgate.engines.cpu.compile import Machine
from headgate.engines.evaluate import Weights

PACKED_AT_MOST = 256


@lru_cache(maxsize=1)
def instruction_set() -> tuple[str, int, int]:
    """(name, bytes of a vector, vectors a product's tile spans): HEADGATE_ISA's, or the best.

    Raises ValueError where HEADGATE_ISA names one that this machine does not have.
    """
    found = {entry[0]: entry for entry in native.extension.instruction_sets()}  # type: ignore[union-attr]
    asked = os.environ.get("HEADGATE_ISA")
    if asked and asked not in found:
        raise ValueError(
            f"HEADGATE_ISA: expected one of {', '.join(found)} on this machine, got '{asked}'"
        )
    return found[asked] if asked else next(iter(found.values()))


def machine_for(dtype: torch.dtype) -> Machine:
    isa, size, vectors = instruction_set()
    return Machine(isa, size // dtype.itemsize, vectors)


class Packed:
    """Packed weights, kept until the bits they were made from change."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Any, tuple[int, Tensor]] = OrderedDict()

    def __call__(self, weights: Weights, packing: Packing) -> Tensor:
        family = weights.families[packing.family]
        key = (family.data_ptr(), tuple(family.shape), family.dtype, packing)
        size = family.numel() * family.element_size()
        mark = native.extension.fingerprint(family.data_ptr(), size)  # type: ignore[union-attr]
        found = self._kept.get(key)
        if found is not None and found[0] == mark:
            self._kept.move_to_end(key)
            return found[1]
        made = _pack(weights, packing, family)
        self._kept[key] = (mark, made)
        self._kept.move_to_end(key)
        while len(self._kept) > PACKED_AT_MOST:
            self._kept.popitem(last=False)
        return made


packed = Packed()


def _pack(weights: Weights, packing: Packing, family: Tensor) -> Tensor:
    rows, columns = weights.rows[packing.family], weights.columns[packing.family]
    at = columns[packing.part]
    stride = family.stride(0)
    first = [rows[block] for block in packing.blocks]
    if packing.transpose:
        width, depth = at.stop - at.start, sum(r.stop - r.start for r in first)
        offsets, unit_stride, depth_stride = [first[0].start * stride + at.start], 1, stride
    else:
        width, depth = first[0].stop - first[0].start, at.stop - at.start
        offsets = [r.start * stride + at.start for r in first]
        unit_stride, depth_stride = stride, 1
    block = packing.unit_block
    panels = -(-width // block)
    out = family.new_empty(panels * depth * len(offsets) * block)
    native.extension.pack(  # type: ignore[union-attr]
        family.dtype == torch.float64, family.data_ptr(), offsets, width, depth,
        unit_stride, depth_stride, block, out.data_ptr(),
    )  # fmt: skip
    return out
