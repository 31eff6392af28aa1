"""Streams: what runs beside a rank's compute, the reduction of its gradients.

Without overlap a rank reduces a stage's gradients right after its last backward (planner.schedule.
lowering) and does nothing else meanwhile. With overlap a stage of L layers, whose last backward
(with a split backward: weight gradient) takes b from `begin` to `end`, hands over a bucket after
each layer, and the rank's dp stream takes the buckets of its stages, r/L each, one after another:

    bucket i is ready at begin + i b/L,      reduced = max(free + r, begin + b/L + r, end + r/L)

with `free` when the stream has done the stages before. For one stage that is
exposed = max(r/L, r - b(L-1)/L) after the backward. Compute under a running reduction is slower:
hidden seconds h add slowdown * h to the rank's end (as planner.cost.stages charges them), where

    h = min( r - what is reduced after the rank's last action,  compute while it runs )

Left out: that a slowed backward sends its gradient later, and links that p2p and dp share.
"""

from dataclasses import dataclass

import numpy as np

from planner.simulator.script import Script
from planner.simulator.stage_seconds import Floats, StageSeconds


@dataclass(frozen=True, slots=True)
class Reductions:
    """begins, ends: [S], of each stage's reduction. done: [ranks], when all gradients of a rank are
    reduced and all its compute is over, slowed as it was."""

    begins: Floats
    ends: Floats
    done: Floats


def reductions(script: Script, seconds: StageSeconds, ends: Floats) -> Reductions:
    """The reductions of a replay. ends: [n], of its compute actions."""
    last = ends[script.numbers[script.finals - 1]]
    done = ends[script.numbers[script.lasts - 1]]
    if not seconds.overlaps:
        reduced = last + seconds.reduction
        np.maximum.at(done, script.orders.rank_of_stage, reduced)
        return Reductions(last, reduced, done)
    begins, reduced = _buckets(script, seconds, last)
    hidden = [
        _hidden(script, seconds, ends, begins, reduced, rank) for rank in range(script.orders.ranks)
    ]
    np.maximum.at(done, script.orders.rank_of_stage, reduced)
    return Reductions(begins, reduced, done + seconds.slowdown * np.array(hidden))


def _buckets(script: Script, seconds: StageSeconds, last: Floats) -> tuple[Floats, Floats]:
    """When the dp streams begin and end with each stage, [S]. last: its last backward's end."""
    made = script.orders
    kinds = made.kind[script.numbers[script.finals - 1]]
    lasting = seconds.durations[kinds, np.arange(script.stages)]
    first = last - lasting * (1 - 1 / seconds.layers)
    begins, reduced, free = np.zeros(script.stages), np.zeros(script.stages), np.zeros(made.ranks)
    for stage in np.argsort(last, kind="stable").tolist():
        rank, whole = made.rank_of_stage[stage], seconds.reduction[stage]
        begins[stage] = max(free[rank], first[stage])
        free[rank] = max(begins[stage] + whole, last[stage] + whole / seconds.layers[stage])
        reduced[stage] = free[rank]
    return begins, reduced


def _hidden(
    script: Script,
    seconds: StageSeconds,
    ends: Floats,
    begins: Floats,
    reduced: Floats,
    rank: int,
) -> float:
    """Seconds of a rank's reductions that run beside its compute."""
    made = script.orders
    own = slice(made.starts[rank], made.starts[rank + 1])
    stop, last = ends[own], float(ends[own][-1])
    start = stop - seconds.durations[made.kind[own], made.stage[own]]
    total = 0.0
    for stage in np.flatnonzero(made.rank_of_stage == rank).tolist():
        alone = max(reduced[stage] - max(last, begins[stage]), 0.0)
        both = np.minimum(stop, reduced[stage]) - np.maximum(start, begins[stage])
        total += min(seconds.reduction[stage] - alone, float(both.clip(min=0).sum()))
    return total
