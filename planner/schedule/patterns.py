"""Patterns: the compute order of each pipeline rank, before communication is added.

Stages are numbered 0 .. p-1, microbatches 0 .. m-1; rank i holds stage i.

GPipe (Huang et al. 2019): all forwards, then all backwards; every stage keeps m microbatches.
1F1B (Narayanan et al. 2021, PipeDream-flush): stage i runs w_i = min(p - i, m) forwards, then
alternates one backward and one forward, then drains; at most w_i microbatches are in flight.
"""

from collections.abc import Callable

from planner.schedule.action import Action, Grid, Kind, Order


def gpipe(stages: int, microbatches: int) -> Grid:
    """All forwards, then all backwards, on every rank."""
    return tuple(_gpipe_order(stage, microbatches) for stage in range(stages))


def _gpipe_order(stage: int, microbatches: int) -> Order:
    forwards = [Action(stage, Kind.FORWARD, k) for k in range(microbatches)]
    backwards = [Action(stage, Kind.BACKWARD, k) for k in range(microbatches)]
    return tuple(forwards + backwards)


def one_f_one_b(stages: int, microbatches: int) -> Grid:
    """Warm-up forwards, one backward per forward, drain."""
    return tuple(_1f1b_order(stage, stages, microbatches) for stage in range(stages))


def _1f1b_order(stage: int, stages: int, microbatches: int) -> Order:
    warm_up = min(stages - stage, microbatches)
    order = [Action(stage, Kind.FORWARD, k) for k in range(warm_up)]
    for k in range(microbatches):
        order.append(Action(stage, Kind.BACKWARD, k))
        if warm_up + k < microbatches:
            order.append(Action(stage, Kind.FORWARD, warm_up + k))
    return tuple(order)


PATTERNS: dict[str, Callable[[int, int], Grid]] = {"gpipe": gpipe, "1f1b": one_f_one_b}


def in_flight(schedule: str, stage: int, stages: int, microbatches: int) -> int:
    """Microbatches whose activations a stage holds at its fullest moment."""
    return microbatches if schedule == "gpipe" else min(stages - stage, microbatches)
