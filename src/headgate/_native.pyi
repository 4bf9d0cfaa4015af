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

class Binding:
    def __init__(
        self,
        plan: Plan,
        is_double: bool,
        reverse: bool,
        steps: int,
        rows: int,
        tensors: list[tuple[Any, ...]],
        histories: list[tuple[Any, ...]],
        tails: list[tuple[Any, ...]],
        zeroed: list[tuple[Any, ...]],
        packings: list[tuple[Any, ...]],
        outers: list[tuple[Any, ...]],
        throughs: list[tuple[Any, ...]],
    ) -> None: ...

class Stream:
    def __init__(
        self,
        isa: str,
        is_double: bool,
        rows: int,
        input_size: int,
        layers: list[tuple[Any, ...]],
        threads: int,
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
    calls: list[tuple[Binding, list[int], int, int, int, list[int]]],
    threads: int,
    chain: bool,
    /,
) -> None: ...
def apply(isa: str, op: int, is_double: bool, x: int, out: int, count: int, /) -> None: ...
def fingerprint(data: int, size: int, /) -> int: ...
def environment(name: str, /) -> str: ...
def instruction_sets() -> list[tuple[str, int, int]]: ...
