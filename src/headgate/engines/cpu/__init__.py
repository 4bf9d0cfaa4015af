"""The compiled CPU engine: one matrix product and an elementwise Program for every cell."""

from headgate.engines.cpu.engine import (
    Job,
    Options,
    Parameters,
    chained,
    differentiated,
    returned,
    side_by_side,
)
from headgate.engines.cpu.repeated import Repeated
from headgate.engines.cpu.sources import supported
from headgate.engines.cpu.stream import prepared
from headgate.engines.cpu.weights import instruction_set, wanted

__all__ = [
    "Job",
    "Options",
    "Parameters",
    "Repeated",
    "chained",
    "differentiated",
    "instruction_set",
    "prepared",
    "returned",
    "side_by_side",
    "supported",
    "wanted",
]
