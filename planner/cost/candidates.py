"""Candidates: many plans of one pipeline depth at once, as arrays.

A search over layouts is a table. All rows of one Candidates share pp, schedule and recompute
mode, so that every formula is a handful of numpy expressions over [N] or [N, pp].
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from planner.spec.layout import Layout, Stage
from planner.spec.runtime import Axis, Recompute, Schedule

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """N plans of pp stages. dp, tp, micro_batch, microbatches, zero: [N]; the rest [N, pp].

    counts: layers per stage, of all its chunks together. recomputed: how many of them recompute
    (all or none in a search). vpp: chunks per stage. cp, ep: ranks of a context and an expert
    group. With chunks and several kinds of layers, a stage's kinds are counted as if its layers
    were consecutive.
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

    def __len__(self) -> int:
        return len(self.dp)

    def take(self, rows: Ints | NDArray[np.bool_]) -> Self:
        """The chosen rows."""
        arrays = ("dp", "tp", "micro_batch", "microbatches", "zero", "counts", "recomputed")
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in arrays})

    def layout(self, row: int) -> Layout:
        """One row as a Layout."""
        degrees = int(self.dp[row]), int(self.tp[row]), self.pp, self.vpp, self.cp, self.ep
        rest = int(self.micro_batch[row]), int(self.zero[row]), self.recompute, self.schedule
        return _layout(*degrees, *rest, self.axis_order)

    def layer_counts(self, row: int) -> tuple[int, ...]:
        """Layers per stage of one row."""
        return tuple(int(count) for count in self.counts[row])

    @classmethod
    def of_plan(cls, layout: Layout, stages: tuple[Stage, ...], global_batch: int) -> Self:
        """One plan as a table of one row. Chunk i of the stages lies on rank i % pp."""

        def column(value: int) -> Ints:
            return np.array([value], dtype=np.int64)

        chunks = [stages[rank :: layout.pp] for rank in range(layout.pp)]
        choices = [[c for stage in own for c in stage.layers] for own in chunks]
        counts = [len(own) for own in choices]
        recomputed = [sum(c.recompute != "none" for c in own) for own in choices]
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
            vpp=layout.vpp,
            cp=layout.cp,
            ep=layout.ep,
        )


@functools.lru_cache(maxsize=65_536)
def _layout(
    dp: int,
    tp: int,
    pp: int,
    vpp: int,
    cp: int,
    ep: int,
    micro_batch: int,
    zero: int,
    recompute: Recompute,
    schedule: Schedule,
    axis_order: tuple[Axis, ...],
) -> Layout:
    """A Layout, checked once: tables ask for the same ones again with every set of constants."""
    return Layout(
        dp=dp,
        tp=tp,
        pp=pp,
        vpp=vpp,
        cp=cp,
        ep=ep,
        micro_batch=micro_batch,
        zero=zero,
        recompute=recompute,
        schedule=schedule,
        axis_order=axis_order,
    )
