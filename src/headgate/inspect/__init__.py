"""Pictures: forecasts, backtests, gates over time, losses."""

from __future__ import annotations

from .gates import gates_figure
from .pictures import backtest_figure, forecast_figure, loss_figure, save_figure

__all__ = ["backtest_figure", "forecast_figure", "gates_figure", "loss_figure", "save_figure"]
