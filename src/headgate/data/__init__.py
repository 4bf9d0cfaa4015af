"""Series from tables and files, scaling fitted on training data only, and windows."""

from __future__ import annotations

from .calendar import Frequency
from .errors import DataError
from .preprocessing import Preprocessing, fill_missing, spread_follows_level
from .read import as_series, read_series
from .series import Covariates, Panel, Series
from .windows import Windows, cut_windows

__all__ = [
    "Covariates",
    "DataError",
    "Frequency",
    "Panel",
    "Preprocessing",
    "Series",
    "Windows",
    "as_series",
    "cut_windows",
    "fill_missing",
    "read_series",
    "spread_follows_level",
]
