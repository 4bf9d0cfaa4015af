"""What ``torch.autocast`` means for a layer: one dtype for all that enters a run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Cast = Callable[[Tensor], Tensor]


def caster(x: Tensor, parameters: torch.dtype) -> Cast:
    """How input, states and parameters are converted for a run on ``x``.

    Outside autocast not at all. Inside, to autocast's dtype, as torch does for its LSTM; on a CPU,
    where the compiled engine has no lower precision, and in float64, to that of the parameters.
    """
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return lambda value: value
    lowered = x.dtype != torch.float64 and device != "cpu"
    dtype = torch.get_autocast_dtype(device) if lowered else parameters
    return lambda value: value.to(dtype)
