"""The compiled CPU engine: one matrix product and an elementwise Program for every cell."""

from headgate.engines.cpu.engine import returned
from headgate.engines.cpu.sources import supported

__all__ = ["returned", "supported"]
