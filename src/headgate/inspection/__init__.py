"""Pictures: forecasts, backtests, their errors, gates over time, losses; and a page of them."""

from __future__ import annotations

from .ahead import Bands
from .errors import coverage_figure, horizon_figure
from .gates import gates_figure
from .page import Section, page
from .panel import PanelRow, panel_figure
from .pictures import backtest_figure, forecast_figure, loss_figure, save_figure

__all__ = [
    "Bands",
    "PanelRow",
    "Section",
    "backtest_figure",
    "coverage_figure",
    "forecast_figure",
    "gates_figure",
    "horizon_figure",
    "loss_figure",
    "page",
    "panel_figure",
    "save_figure",
]
