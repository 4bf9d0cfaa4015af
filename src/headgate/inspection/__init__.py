"""Pictures: forecasts, backtests, their errors, gates over time, losses; and a page of them."""

from __future__ import annotations

from .ahead import Bands
from .attribution import attribute
from .attribution_figures import attribution_figure
from .comparison import compare_cells
from .errors import coverage_figure, horizon_figure
from .flow import Flow, gradient_flow
from .flow_figures import flow_figure
from .gates import gates_figure
from .memory import memory_lengths
from .observation import Layer, Observation
from .openness import memory_figure, saturation_figure
from .page import Section, page
from .panel import PanelRow, panel_figure
from .pictures import backtest_figure, forecast_figure, loss_figure, save_figure
from .saturation import gates_of, idle_units, saturation
from .steps import steps_page
from .units import unit_figure, units_figure
from .watch import observe

__all__ = [
    "Bands",
    "Flow",
    "Layer",
    "Observation",
    "PanelRow",
    "Section",
    "attribute",
    "attribution_figure",
    "backtest_figure",
    "compare_cells",
    "coverage_figure",
    "flow_figure",
    "forecast_figure",
    "gates_figure",
    "gates_of",
    "gradient_flow",
    "horizon_figure",
    "idle_units",
    "loss_figure",
    "memory_figure",
    "memory_lengths",
    "observe",
    "page",
    "panel_figure",
    "saturation",
    "saturation_figure",
    "save_figure",
    "steps_page",
    "unit_figure",
    "units_figure",
]
