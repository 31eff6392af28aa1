"""Figures: functions that take ax= and return matplotlib Axes."""

from reports.figures.breakdown import breakdowns, plot_breakdown
from reports.figures.gantt import plot_gantt, plot_gantt_pair
from reports.figures.memory import measured_by_stage, plot_memory, plot_memory_over_time
from reports.figures.plans import plot_plans
from reports.figures.scatter import plot_scatter

__all__ = [
    "breakdowns",
    "measured_by_stage",
    "plot_breakdown",
    "plot_gantt",
    "plot_gantt_pair",
    "plot_memory",
    "plot_memory_over_time",
    "plot_plans",
    "plot_scatter",
]
