"""Patterns: named schedules as grids of actions, a view of planner.schedule.orders."""

from planner.schedule import orders
from planner.schedule.action import Grid


def pattern(schedule: str, ranks: int, microbatches: int, chunks: int | None = None) -> Grid:
    """The compute order of every rank; chunks: what the schedule has when nobody says.

    Raises ScheduleError where the schedule cannot have these numbers.
    """
    chunks = orders.default_chunks(schedule) if chunks is None else chunks
    return orders.grid(orders.orders(schedule, ranks, microbatches, chunks))
