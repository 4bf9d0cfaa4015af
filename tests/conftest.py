from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import settings

# One thread: results do not depend on the machine, and parallel runs do not fight for cores.
torch.set_num_threads(1)

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test starts from the same seed, whatever ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)
