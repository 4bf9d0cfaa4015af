"""headgate info."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from typing import Annotated, Any

import torch
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

import headgate
from headgate import native
from headgate.cells import lstm
from headgate.engines import choose

LIBRARIES = ("numpy", "polars", "scikit-learn", "safetensors")


def info(*, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """Versions, threads, the compiled part, and the engine that would run.

    Parameters
    ----------
    as_json
        One JSON object instead of a table.
    """
    facts = collect()
    if as_json:
        print(json.dumps(facts))
        return
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), value if isinstance(value, str) else str(value))
    Console().print(table)


def collect() -> dict[str, Any]:
    choice = choose(lstm.program)
    return {
        "headgate": headgate.__version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "torch_device": "cuda" if torch.cuda.is_available() else "cpu",
        "torch_threads": torch.get_num_threads(),
        "compiled_part": native.available,
        "compiled_part_reason": native.reason,
        "engine_for_lstm": choice.engine,
        "engine_reason": choice.reason,
        **{name: version(name) for name in LIBRARIES},
    }
