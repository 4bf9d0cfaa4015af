"""The instruction set in use, and how weights are packed for its product kernel."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache

import torch

from headgate import native
from headgate.engines.cpu.code import Packing
from headgate.engines.cpu.compile import Machine
from headgate.engines.evaluate import cuts
from headgate.program.program import Program

Packed = tuple[int, int, list[int], int, int, int, int, int]
"""What native code takes: base, its elements, offsets, width, depth, strides of unit and depth,
units of a panel."""


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


def wanted() -> bool:
    """Whether the compiled engine is there, and HEADGATE_ENGINE asks for no other."""
    return native.available and native.environment("HEADGATE_ENGINE") in ("", "cpu")


def machine_for(dtype: torch.dtype) -> Machine:
    isa, size, vectors = instruction_set()
    return Machine(isa, size // dtype.itemsize, vectors)


def packed(packing: Packing, base: int, program: Program, sizes: Mapping[str, int]) -> Packed:
    """A packing of a family that lies contiguous at ``base``."""
    rows, columns = cuts(program, tuple(sizes.items()))
    shape = program.shape(packing.family, sizes)
    at, stride = columns[packing.family][packing.part], shape[1]
    first = [rows[packing.family][block] for block in packing.blocks]
    if packing.transpose:
        width, depth = at.stop - at.start, sum(r.stop - r.start for r in first)
        offsets, unit_stride, depth_stride = [first[0].start * stride + at.start], 1, stride
    else:
        width, depth = first[0].stop - first[0].start, at.stop - at.start
        offsets = [r.start * stride + at.start for r in first]
        unit_stride, depth_stride = stride, 1
    return (
        base, shape[0] * stride, offsets, width, depth, unit_stride, depth_stride,
        packing.unit_block,
    )  # fmt: skip
