"""Candidates: many plans of one pipeline depth at once, as arrays.

A search over layouts is a table. All rows of one Candidates share pp, schedule and recompute
mode, so that every formula is a handful of numpy expressions over [N] or [N, pp].
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from planner.spec.layout import Layout, Stage
from planner.spec.runtime import Axis, Recompute, Schedule

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """N plans. dp, tp, micro_batch, microbatches, zero: [N]; counts, recomputed: [N, pp].

    counts: layers per stage. recomputed: how many of them recompute (all or none in a search).
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

    def __len__(self) -> int:
        return len(self.dp)

    def take(self, rows: Ints | NDArray[np.bool_]) -> Self:
        """The chosen rows."""
        arrays = ("dp", "tp", "micro_batch", "microbatches", "zero", "counts", "recomputed")
        chosen = {name: getattr(self, name)[rows] for name in arrays}
        same = {name: getattr(self, name) for name in ("pp", "schedule", "recompute", "axis_order")}
        return type(self)(**same, **chosen)

    def layout(self, row: int) -> Layout:
        """One row as a Layout."""
        return Layout(
            dp=int(self.dp[row]),
            tp=int(self.tp[row]),
            pp=self.pp,
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

        counts = [len(stage.layers) for stage in stages]
        recomputed = [sum(c.recompute != "none" for c in stage.layers) for stage in stages]
        modes = {c.recompute for stage in stages for c in stage.layers} - {"none"}
        return cls(
            pp=layout.pp,
            schedule=layout.schedule,
            recompute=next(iter(modes), "none"),
            axis_order=layout.axis_order,
            dp=column(layout.dp),
            tp=column(layout.tp),
            micro_batch=column(layout.micro_batch),
            microbatches=column(layout.microbatches(global_batch)),
            zero=column(layout.zero),
            counts=np.array([counts], dtype=np.int64),
            recomputed=np.array([recomputed], dtype=np.int64),
        )
