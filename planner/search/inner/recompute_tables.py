"""Recompute tables: every stage with every number of layers that recompute, for one outer choice.

Index [i, u, n, r]: stage i starts at layer u and holds n layers, of which the first r recompute.
planner.search.inner.stage_tables keeps of each (i, u, n) only the cheapest mix that fits; here all
of them stand side by side with their bytes, so that a search may decide r itself
(planner.search.inner.integer_programme). The reduction of the one to the other is `cheapest`:

    of the r with peak_bytes[i,u,n,r] <= limit, the one of least backward[i,u,n,r]

It loses nothing where a plan never gains by a longer backward: the step is a maximum of sums of
durations under a static order, and an exposed reduction falls by no more than the last backward
behind which it hides grows.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.memory import stage_memory
from planner.search.inner.columns import Columns
from planner.search.inner.problem import Counts, Floats, Ints, Problem, ScheduleName
from planner.search.inner.stage_tables import Way, stage_tables
from planner.spec.runtime import Recompute

Rule = Literal["any", "same", "all"]
"""Which numbers r_i of layers may recompute: any; min(k, n_i) with one k; none or all of all."""


@dataclass(frozen=True, slots=True, eq=False)
class RecomputeTables:
    """Seconds and bytes, [p, U, N + 1, R + 1]; infinite where there is no such stage (r > n).

    U = 1 where all layers are alike, else L + 1. latency: a number or [p - 1]; fixed: seconds per
    step beside all this, both as in planner.search.inner.problem.Problem.
    """

    schedule: ScheduleName
    microbatches: int
    layers: int
    forward: Floats
    backward: Floats
    reduce: Floats
    update: Floats
    peak_bytes: Floats
    limit_bytes: float
    latency: float | Floats = 0.0
    fixed: float = 0.0

    @property
    def stages(self) -> int:
        """p."""
        return len(self.forward)

    @property
    def fits(self) -> NDArray[np.bool_]:
        """Which choices exist and stay within the memory of their rank."""
        seconds = self.forward + self.backward + self.reduce + self.update
        fits: NDArray[np.bool_] = np.isfinite(seconds) & (self.peak_bytes <= self.limit_bytes)
        return fits

    def cheapest(self) -> tuple[Problem, Ints]:
        """The problem without r, and the r of every (i, u, n)."""
        backward = np.where(self.fits, self.backward, np.inf)
        again = backward.argmin(axis=3)

        def at(table: Floats) -> Floats:
            found: Floats = np.take_along_axis(table, again[..., None], axis=3)[..., 0]
            return found

        return self._problem(
            at(self.forward), at(backward), at(self.reduce), at(self.update)
        ), again

    def chosen(self, counts: Counts, again: Counts) -> Problem:
        """The problem in which stage i can only hold counts[i] layers, of which again[i] recompute;
        its step is that of this plan."""
        held = np.arange(self.forward.shape[2]) == np.array(counts)[:, None]
        stage = np.arange(self.stages)

        def at(table: Floats) -> Floats:
            found: Floats = table[stage, :, :, np.array(again)]
            return found

        fits = self.fits[stage, :, :, np.array(again)]
        backward = np.where(held[:, None] & fits, at(self.backward), np.inf)
        return self._problem(at(self.forward), backward, at(self.reduce), at(self.update))

    def _problem(
        self, forward: Floats, backward: Floats, reduce: Floats, update: Floats
    ) -> Problem:
        return Problem(
            self.schedule,
            self.stages,
            self.microbatches,
            self.layers,
            forward,
            backward,
            reduce,
            update,
            self.latency,
            self.fixed,
        )


def recompute_tables(
    blocks: Blocks, one: Candidates, mode: Recompute, limit_bytes: float, most: int
) -> RecomputeTables:
    """The tables of one outer choice (a table of one row), up to `most` layers per stage.

    mode none: R = 0, no layer recomputes."""
    most = blocks.model.layers if one.pp == 1 else min(most, blocks.model.layers)
    numbers = range(1 if mode == "none" else most + 1)
    made = [stage_tables(blocks, one, Way(mode, again), np.inf, most) for again in numbers]
    first = made[0].problem(0, blocks.model.layers)
    held = np.arange(first.forward.shape[2])

    def stacked(parts: list[Floats]) -> Floats:
        table = np.stack(parts, axis=-1)
        return np.where(np.array(numbers) <= held[:, None], table, np.inf)

    return RecomputeTables(
        schedule=first.schedule,
        microbatches=first.microbatches,
        layers=first.layers,
        forward=stacked([each.spread("forward", 0) for each in made]),
        backward=stacked([each.spread("backward", 0) for each in made]),
        reduce=stacked([each.spread("reduce", 0) for each in made]),
        update=stacked([each.spread("update", 0) for each in made]),
        peak_bytes=stacked([_peak_bytes(blocks, one, mode, again, most) for again in numbers]),
        limit_bytes=limit_bytes,
        fixed=first.fixed,
    )


def _peak_bytes(blocks: Blocks, one: Candidates, mode: Recompute, again: int, most: int) -> Floats:
    """Peak bytes of every (i, u, n) whose first `again` layers recompute, [p, U, N + 1]."""
    columns = Columns.of(blocks, one.pp, most)
    some = np.minimum(columns.kinds.sum(axis=1), again)[None]
    played = columns.choices(one, mode, some)
    result: Floats = columns.spread(stage_memory(BlockTables(blocks, played)).total)[0]
    return result
