"""Problem: where to cut the layers into stages, given mesh, microbatch and schedule.

Variables n_0 .. n_{p-1} >= 0, layers of each stage, sum n_i = L; u_i = n_0 + .. + n_{i-1} is the
layer where stage i starts. A stage without layers holds the embedding or the head alone.

    minimise   max_i (end_i + reduce_i) + max_i update_i + fixed

end_i is the end of the last backward of stage i when the schedule's static order is played
exactly (planner.search.inner.static_order) with the seconds that the tables give for (i, u_i, n_i).
There is no memory constraint: the tables hold the cheapest recompute mix that fits
(planner.search.inner.stage_tables), and infinity where none does. This loses nothing: a makespan
under a static order is a maximum of sums of durations, so it never falls when a duration grows, and
of all mixes of one (i, u, n) the cheapest backward is at least as good in every plan.

That needs durations that do not depend on what other ranks do at the moment (no interference),
the recompute inside the backward, and one stage per rank.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Counts = tuple[int, ...]
"""Layers of each stage."""

ScheduleName = Literal["gpipe", "1f1b", "zb-h1"]

RELATIVE = 1e-9
"""Two steps closer than this are equal. Assumed: sums of up to 1e5 doubles differ by 1e-11."""


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Seconds of every stage that is possible; shape [p, U, N + 1] unless said.

    Index [i, u, n]: stage i starts at layer u and holds n layers. U = 1 where all layers are
    alike, else L + 1. N: the most layers one stage may hold. Infinite: not allowed.

    forward, backward: per microbatch, blocking transfers and recompute included; for zb-h1
    backward is the input gradient (recompute included) and weight the weight gradient.
    reduce: exposed gradient reduction after the last backward. update: the optimizer.
    latency: seconds of a hop between two stages that occupies neither, each way; one number or
    [p - 1]. fixed: seconds per step beside all this.
    Raises ValueError where shapes disagree.
    """

    schedule: ScheduleName
    stages: int
    microbatches: int
    layers: int
    forward: Floats
    backward: Floats
    reduce: Floats
    update: Floats
    latency: float | Floats = 0.0
    fixed: float = 0.0
    weight: Floats | None = None

    def __post_init__(self) -> None:
        p, starts, _ = self.forward.shape
        if p != self.stages or starts not in (1, self.layers + 1):
            raise ValueError(f"tables are {self.forward.shape}, stages {self.stages}")
        for name in ("backward", "reduce", "update"):
            if getattr(self, name).shape != self.forward.shape:
                raise ValueError(f"{name} is {getattr(self, name).shape}, not as forward")
        if (self.schedule == "zb-h1") != (self.weight is not None):
            raise ValueError("weight belongs to zb-h1, and zb-h1 needs it")

    @property
    def most(self) -> int:
        """The most layers of one stage."""
        return min(int(self.forward.shape[2]) - 1, self.layers)

    @property
    def hops(self) -> Floats:
        """Latency between neighbours, [p - 1]."""
        return np.broadcast_to(np.asarray(self.latency, dtype=np.float64), (self.stages - 1,))

    @property
    def mirrored(self) -> "Problem":
        """Stages and layers in reverse order; counts of a plan are reversed with them."""
        return replace(
            self,
            forward=self._mirror(self.forward),
            backward=self._mirror(self.backward),
            reduce=self._mirror(self.reduce),
            update=self._mirror(self.update),
            latency=self.hops[::-1],
            weight=None if self.weight is None else self._mirror(self.weight),
        )

    def _mirror(self, table: Floats) -> Floats:
        if table.shape[1] == 1:
            return table[::-1]
        held = np.arange(table.shape[2])[None, :]
        starts = self.layers - np.arange(self.layers + 1)[:, None] - held
        return np.where(starts < 0, np.inf, table[::-1, np.maximum(starts, 0), held])

    @property
    def weights(self) -> Floats:
        """Seconds of the weight gradients; zeros where the backward is not split."""
        return np.zeros_like(self.forward) if self.weight is None else self.weight


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The tables at K plans: [K, p] each."""

    forward: Floats
    backward: Floats
    weight: Floats
    reduce: Floats
    update: Floats


def choose(problem: Problem, counts: Ints, first: int = 0) -> Chosen:
    """The tables at plans. counts: [K, p - first], layers of the stages from `first` on.

    Layers of the stages before `first` are those left over. More than N layers: infinite.
    """
    ends = problem.layers - (counts.sum(axis=1, keepdims=True) - counts.cumsum(axis=1))
    starts = ends - counts if problem.forward.shape[1] > 1 else np.zeros_like(counts)
    stage = np.arange(first, problem.stages)[None, :]
    over = counts > problem.most
    held = np.where(over, 0, counts)

    def at(table: Floats) -> Floats:
        return np.where(over, np.inf, table[stage, starts, held])

    return Chosen(
        forward=at(problem.forward),
        backward=at(problem.backward),
        weight=at(problem.weights),
        reduce=at(problem.reduce),
        update=at(problem.update),
    )
