"""Whole jobs behind scikit-learn's verbs."""

from __future__ import annotations

from .backtest import Backtest
from .folder import ModelError
from .forecaster import Forecaster
from .reader import CarriedState
from .search import search_settings

__all__ = ["Backtest", "CarriedState", "Forecaster", "ModelError", "search_settings"]
