from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

class BuildInfo(TypedDict):
    compiler: str
    cxx_standard: int

def uniform(
    seed: int,
    stream: int,
    rows: npt.NDArray[np.int64],
    first_step: int,
    out: npt.NDArray[Any],
) -> None: ...
def build_info() -> BuildInfo: ...

class Plan:
    def __init__(
        self,
        tensors: list[tuple[int, int, int]],
        before: list[tuple[Any, ...]],
        loop: list[tuple[Any, ...]],
        constants: list[tuple[int, float]],
        slots: int,
        slot_size: int,
        backward: bool,
    ) -> None: ...

class Stream:
    def __init__(
        self,
        isa: str,
        is_double: bool,
        rows: int,
        input_size: int,
        layers: list[
            tuple[Plan, list[tuple[int, int, int, int]], list[int], int, int, list[int], bool]
        ],
        kept: Any,
        empty: Any,
        shape: tuple[int, int],
        dtype: Any,
        /,
    ) -> None: ...
    def step(
        self, x: npt.NDArray[Any], out: npt.NDArray[Any] | None, /
    ) -> npt.NDArray[Any] | None: ...
    def read(self, layer: int, state: int, out: int, /) -> None: ...
    def write(self, layer: int, state: int, values: int, /) -> None: ...

def run(
    isa: str,
    plan: Plan,
    is_double: bool,
    steps: int,
    rows: int,
    lengths: int,
    reverse: bool,
    threads: int,
    arguments: list[tuple[int, int, int, int]],
    weights: list[int],
    /,
) -> None: ...
def multiply(
    isa: str,
    outer: bool,
    is_double: bool,
    a: int,
    a_stride: int,
    b: int,
    b_stride: int,
    c: int,
    c_stride: int,
    rows: int,
    count: int,
    total: int,
    height: int,
    width: int,
    vectors: int,
    threads: int,
    /,
) -> None: ...
def pack(
    is_double: bool,
    source: int,
    offsets: list[int],
    width: int,
    depth: int,
    unit_stride: int,
    depth_stride: int,
    unit_block: int,
    out: int,
    /,
) -> None: ...
def apply(isa: str, op: int, is_double: bool, x: int, out: int, count: int, /) -> None: ...
def fingerprint(data: int, size: int, /) -> int: ...
def instruction_sets() -> list[tuple[str, int, int]]: ...
