"""Critical path: which actions make a step as long as it is.

The step of a plan under a static order is the longest path through its actions,

    step = sum_i alpha_i f_i + beta_i b_i + gamma_i w_i + latency + reduce_j + max update + fixed

with the numbers of forwards, backwards and weight gradients of every stage on that path, the
latency of its hops and the stage j whose reduction ends last. A path is there whatever its actions
last, so for every other plan the same line is a lower bound: linear in its seconds, which is what
planner.search.inner.integer_programme adds, row by row, until a plan has no longer path.
"""

from dataclasses import dataclass

import numpy as np

from planner.search.inner.problem import Floats, Ints, ScheduleName
from planner.search.inner.static_order import action_ends, static_order


@dataclass(frozen=True, slots=True, eq=False)
class CriticalPath:
    """actions: [3, p], forwards, backwards and weight gradients of every stage on the path.

    end_seconds: its length with the reduction of `stage`, which it ends with."""

    actions: Ints
    latency_seconds: float
    stage: int
    end_seconds: float


def critical_path(
    schedule: ScheduleName, microbatches: int, seconds: Floats, reduce: Floats, hops: Floats
) -> CriticalPath:
    """The longest path. seconds: [3, p] as in CriticalPath.actions; reduce: [p]; hops: [p - 1]."""
    stages = len(reduce)
    order = static_order(schedule, stages, microbatches)
    end = action_ends(order, seconds[:, :, None], hops)[:, 0]
    finished = end[order.last] + reduce
    last = int(finished.argmax())
    actions, latency = np.zeros((3, stages), dtype=np.int64), 0.0
    hop, action = np.append(hops, 0.0), int(order.last[last])
    while action < len(order.kind):
        actions[order.kind[action], order.stage[action]] += 1
        here, there = int(order.previous[action]), int(order.remote[action])
        wait = float(hop[order.hop[action]])
        # previous and remote both point to the sentinel, at 0, where there is none
        if there < len(order.kind) and end[there] + wait >= end[here]:
            latency, action = latency + wait, there
        else:
            action = here
    return CriticalPath(actions, latency, last, float(finished[last]))
