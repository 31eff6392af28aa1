"""Candidates: many plans of one pipeline depth at once, as arrays.

A search over layouts is a table. All rows of one Candidates share pp, schedule and recompute
mode, so that every formula is a handful of numpy expressions over [N] or [N, pp].
"""

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from planner.spec.layout import Layout, Stage
from planner.spec.runtime import Axis, Recompute, Schedule

Ints = NDArray[np.int64]

V_SHAPED = frozenset({"zbv", "dualpipev"})
"""Schedules whose rank r holds stages r and 2 pp - 1 - r; the others hold every pp-th stage."""


def stage_ranks(schedule: str, pp: int, vpp: int) -> Ints:
    """The pipeline rank of every stage, [pp * vpp]."""
    stages = np.arange(pp * vpp, dtype=np.int64)
    return np.minimum(stages, stages[::-1]) if schedule in V_SHAPED else stages % pp


@dataclass(frozen=True, slots=True)
class Candidates:
    """N plans of pp ranks. dp, tp, micro_batch, microbatches, zero: [N]; the rest [N, columns].

    A column is a pipeline rank with all its chunks, or, after `by_chunk`, one of the pp * vpp
    stages. counts: layers per column. recomputed: how many of them recompute (all or none in a
    search). vpp: chunks per rank. cp, ep: ranks of a context and an expert group. modes: of a plan,
    how each layer recomputes, by stage in the order of the pipeline; without it all that recompute
    do it as `recompute` says, and with chunks and several kinds of layers a rank's kinds are
    counted as if its layers were consecutive.
    """

    pp: int
    schedule: Schedule
    recompute: Recompute
    axis_order: tuple[Axis, ...]
    dp: Ints
    tp: Ints
    micro_batch: Ints
    microbatches: Ints
    zero: Ints
    counts: Ints
    recomputed: Ints
    vpp: int = 1
    cp: int = 1
    ep: int = 1
    modes: tuple[tuple[Recompute, ...], ...] | None = None

    def __len__(self) -> int:
        return len(self.dp)

    def take(self, rows: Ints | NDArray[np.bool_]) -> Self:
        """The chosen rows."""
        arrays = ("dp", "tp", "micro_batch", "microbatches", "zero", "counts", "recomputed")
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in arrays})

    @property
    def stage_ranks(self) -> Ints:
        """The pipeline rank of every stage, [pp * vpp]."""
        return stage_ranks(self.schedule, self.pp, self.vpp)

    @property
    def is_by_chunk(self) -> bool:
        """Whether a column is one of several chunks of a rank."""
        return bool(self.counts.shape[1] != self.pp)

    @property
    def last(self) -> int:
        """The column that holds the head."""
        return self.pp * self.vpp - 1 if self.is_by_chunk else int(self.stage_ranks[-1])

    @property
    def ends_meet(self) -> bool:
        """Whether one rank holds the first and the last stage, and with them tied weights once."""
        return int(self.stage_ranks[0]) == int(self.stage_ranks[-1])

    def by_chunk(self) -> Self:
        """The same plans with one column per stage. Unless a plan says otherwise, the chunks of a
        rank hold equal numbers of layers, the first ones one more where they cannot."""
        if self.modes is not None:
            counts = np.array([[len(own) for own in self.modes]], dtype=np.int64)
            again = [[sum(mode != "none" for mode in own) for own in self.modes]]
            recomputed = np.array(again, dtype=np.int64)
        else:
            counts, recomputed = self._dealt(self.counts), self._dealt(self.recomputed)
        return dataclasses.replace(self, counts=counts, recomputed=recomputed)

    def _dealt(self, layers: Ints) -> Ints:
        """Layers of ranks [N, pp] dealt out to their chunks [N, pp * vpp]."""
        ranks = self.stage_ranks
        chunk = np.array([np.sum(ranks[:s] == ranks[s]) for s in range(len(ranks))])
        dealt: Ints = layers[:, ranks] // self.vpp + (chunk < layers[:, ranks] % self.vpp)
        return dealt

    def layout(self, row: int) -> Layout:
        """One row as a Layout."""
        return Layout(
            dp=int(self.dp[row]),
            tp=int(self.tp[row]),
            pp=self.pp,
            vpp=self.vpp,
            cp=self.cp,
            ep=self.ep,
            micro_batch=int(self.micro_batch[row]),
            zero=int(self.zero[row]),
            recompute=self.recompute,
            schedule=self.schedule,
            axis_order=self.axis_order,
        )

    def layer_counts(self, row: int) -> tuple[int, ...]:
        """Layers per stage of one row."""
        return tuple(int(count) for count in self.counts[row])

    @classmethod
    def of_plan(cls, layout: Layout, stages: tuple[Stage, ...], global_batch: int) -> Self:
        """One plan as a table of one row."""

        def column(value: int) -> Ints:
            return np.array([value], dtype=np.int64)

        ranks = stage_ranks(layout.schedule, layout.pp, layout.vpp)
        modes = tuple(tuple(choice.recompute for choice in stage.layers) for stage in stages)
        own = [[m for s in np.flatnonzero(ranks == r) for m in modes[s]] for r in range(layout.pp)]
        recomputed = [sum(mode != "none" for mode in each) for each in own]
        used = Counter(mode for each in modes for mode in each if mode != "none")
        return cls(
            pp=layout.pp,
            schedule=layout.schedule,
            recompute=used.most_common(1)[0][0] if used else "none",
            axis_order=layout.axis_order,
            dp=column(layout.dp),
            tp=column(layout.tp),
            micro_batch=column(layout.micro_batch),
            microbatches=column(layout.microbatches(global_batch)),
            zero=column(layout.zero),
            counts=np.array([[len(each) for each in own]], dtype=np.int64),
            recomputed=np.array([recomputed], dtype=np.int64),
            vpp=layout.vpp,
            cp=layout.cp,
            ep=layout.ep,
            modes=modes,
        )
