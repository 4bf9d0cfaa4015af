"""Series from tables and files, scaling fitted on training data only, and windows."""

from __future__ import annotations

from .calendar import Frequency
from .errors import DataError
from .preprocessing import Preprocessing, fill_forward, fill_missing, spread_follows_level
from .read import as_panel, as_series, read_panel, read_series
from .series import Covariates, Panel, Series

__all__ = [
    "Covariates",
    "DataError",
    "Frequency",
    "Panel",
    "Preprocessing",
    "Series",
    "as_panel",
    "as_series",
    "fill_forward",
    "fill_missing",
    "read_panel",
    "read_series",
    "spread_follows_level",
]
