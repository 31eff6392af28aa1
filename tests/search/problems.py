"""Random problems of cutting layers into stages, and all their plans."""

from typing import cast

import numpy as np
from hypothesis import strategies as st

from planner.search.inner.problem import Floats, Problem, ScheduleName

SCHEDULES: tuple[ScheduleName, ...] = ("gpipe", "1f1b", "zb-h1")
schedules = st.sampled_from(SCHEDULES)
seeds = st.integers(0, 2**32 - 1)


def plans_of(layers: int, stages: int) -> np.ndarray:
    """Layers of each stage of every plan, [plans, p]."""
    if stages == 1:
        return np.array([[layers]])
    parts = [np.insert(plans_of(layers - n, stages - 1), 0, n, axis=1) for n in range(layers + 1)]
    return np.concatenate(parts)


def wild(seed: int, schedule: ScheduleName, latency: bool = False, reduces: bool = True) -> Problem:
    """Every entry drawn by itself: no order between counts, some stages forbidden."""
    rng = np.random.default_rng(seed)
    p, m, high = int(rng.integers(1, 5)), int(rng.integers(1, 16)), int(rng.choice([2, 9, 40]))
    layers = int(rng.integers(1, 7 if p > 3 else 10))
    shape = (p, int(rng.choice([1, layers + 1])), layers + 1)

    def draw(low: int, top: int) -> Floats:
        return rng.integers(low, top + 1, shape).astype(np.float64)

    backward = np.where(rng.random(shape) < 0.1, np.inf, draw(1, high))
    reduce = draw(0, 3 * high) if reduces else np.zeros(shape)
    hops = rng.integers(0, 4, p - 1).astype(np.float64) if latency else 0.0
    weight = draw(1, high) if schedule == "zb-h1" else None
    return Problem(
        schedule, p, m, layers, draw(0, high), backward, reduce, draw(0, high), hops, 2.0, weight
    )


def transformer(seed: int, schedule: ScheduleName, latency: bool = False) -> Problem:
    """Layers that add up, an embedding, a head, recomputation where stages hold much."""
    rng = np.random.default_rng(seed)
    p, m = int(rng.integers(1, 6)), int(rng.integers(1, 16))
    layers = int(rng.integers(1, 7 if p > 3 else 12))
    kinds = bool(rng.integers(0, 2))
    each = rng.integers(1, 5, layers) if kinds else np.full(layers, rng.integers(1, 5))
    before = np.append(0, np.cumsum(each)).astype(np.float64)
    starts = np.arange(layers + 1 if kinds else 1)[:, None]
    end = starts + np.arange(layers + 1)[None, :]
    inside = np.where(end > layers, np.inf, before[np.minimum(end, layers)] - before[starts])

    def table(scale: float) -> Floats:
        made = np.repeat(scale * inside[None], p, axis=0)
        made[0] += rng.integers(0, 4)
        made[-1] += rng.integers(0, 9)
        return cast(Floats, made)

    free = rng.integers(0, layers + 1, (p, 1, 1))
    again = np.maximum(np.arange(layers + 1)[None, None, :] - free, 0) * float(rng.integers(0, 4))
    hops = float(rng.choice([0.1, 1.0])) if latency else 0.0
    split = schedule == "zb-h1"
    backward = table(1.0 if split else 2.0) + again
    update, weight = table(0.5), table(1.0) if split else None
    return Problem(
        schedule, p, m, layers, table(1.0), backward, table(0.25), update, hops, 0.0, weight
    )
