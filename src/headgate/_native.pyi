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
