"""Candidates: many plans of one pipeline depth at once, as arrays.

A search over layouts is a table. All rows of one Candidates share pp, vpp, schedule, the order of
the axes and the strongest recompute mode, so that every formula is a handful of numpy
expressions over [N] or [N, S]. S columns are pipeline ranks: all pp of them where rows are whole
plans; a search also asks what single ranks would cost with any number of layers, and then names
the rank of every column in `stage`. The replay asks for every chunk by itself: `by_chunk`.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from planner.schedule.orders import rank_of_stage
from planner.spec.layout import LayerChoice, Layout, Stage
from planner.spec.model import ModelSpec
from planner.spec.runtime import (
    CONTEXT_STYLES,
    RECOMPUTES,
    SYNCHRONISATIONS,
    Axis,
    Recompute,
    Schedule,
)

Ints = NDArray[np.int64]


COLUMNS = (
    "dp",
    "tp",
    "micro_batch",
    "microbatches",
    "zero",
    "cp",
    "ep",
    "etp",
    "shard",
    "style",
    "sync",
)
"""Fields with one number per row; a single number stands for all rows."""

STAGE_COLUMNS = ("counts", "recomputed", "selective", "kinds")


def _one() -> Ints:
    return np.ones(1, dtype=np.int64)


def _zero() -> Ints:
    return np.zeros(1, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Candidates:
    """N plans of pp stages. COLUMNS: [N]; the others [N, S].

    counts: layers per stage, of all its chunks together. recomputed: how many of them recompute as
    `recompute` says, selective: how many others recompute selectively; [N, S], or [N, S, kinds]
    where a stage holds several kinds of layers and recomputes some of them. kinds: layers of every
    kind, [N, S, kinds]; without it layers are counted in the order of the model, stage by stage.
    stage: the pipeline rank of every column. chunk: which chunk of the rank it is, [S]; without it
    all of them. chunks: of a plan, the same plan by chunk. vpp: chunks per rank. cp, ep, etp:
    ranks of a context, an expert group, and that share an expert. shard: ranks that one copy of the
    states is divided over (0: all replicas). style, sync: places in CONTEXT_STYLES and
    SYNCHRONISATIONS.
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
    cp: Ints = field(default_factory=_one)
    ep: Ints = field(default_factory=_one)
    etp: Ints = field(default_factory=_one)
    shard: Ints = field(default_factory=_zero)
    style: Ints = field(default_factory=_zero)
    sync: Ints = field(default_factory=_zero)
    selective: Ints | None = None
    kinds: Ints | None = None
    stage: Ints | None = None
    chunk: Ints | None = None
    chunks: Self | None = None

    def __post_init__(self) -> None:
        rows = len(self.dp)
        for name in COLUMNS:
            value = np.asarray(getattr(self, name), dtype=np.int64)
            object.__setattr__(self, name, np.broadcast_to(value, (rows,)))

    def __len__(self) -> int:
        return len(self.dp)

    @property
    def ranks_of_columns(self) -> Ints:
        """The pipeline rank of every column, [S]."""
        return np.arange(self.pp) if self.stage is None else self.stage

    @property
    def replicas(self) -> Ints:
        """Ranks that hold the same dense parameters, [N]."""
        return self.dp * self.cp

    @property
    def shards(self) -> Ints:
        """Ranks that ZeRO divides a copy of the dense states over, [N]."""
        return np.where(self.shard > 0, self.shard, self.replicas)

    @property
    def served(self) -> NDArray[np.bool_]:
        """Whether parameter servers keep the states, [N]."""
        served: NDArray[np.bool_] = self.sync == SYNCHRONISATIONS.index("parameter_server")
        return served & (self.replicas > 1)

    @property
    def expert_replicas(self) -> Ints:
        """Ranks that hold the same experts, [N]."""
        return np.maximum(self.replicas * self.tp // (self.ep * self.etp), 1)

    def stride(self, axis: Axis) -> Ints:
        """Distance in ranks between neighbours on an axis, [N]."""
        sizes = {"tp": self.tp, "cp": self.cp, "dp": self.dp, "pp": np.full(len(self), self.pp)}
        stride = np.ones(len(self), dtype=np.int64)
        for name in self.axis_order:
            if name == axis:
                return stride
            stride = stride * sizes.get(name, 1)
        raise KeyError(axis)

    def take(self, rows: Ints | NDArray[np.bool_]) -> Self:
        """The chosen rows."""
        arrays = [*COLUMNS, *(n for n in STAGE_COLUMNS if getattr(self, n) is not None)]
        taken = {name: getattr(self, name)[rows] for name in arrays}
        chunks = None if self.chunks is None else self.chunks.take(rows)
        return dataclasses.replace(self, chunks=chunks, **taken)

    def parts(self, most: int) -> Iterator[Self]:
        """All rows in order, at most so many at once."""
        for start in range(0, len(self), most):
            yield self.take(np.arange(start, min(start + most, len(self))))

    def by_chunk(self) -> Self:
        """The same plans with one column per chunk, in the order of the pipeline: [N, pp * vpp].

        Unless a plan says otherwise, the chunks of a rank hold equal numbers of layers, the first
        ones one more where they cannot.
        """
        if self.vpp == 1 or self.chunk is not None:
            return self
        if self.chunks is not None:
            return self.chunks
        ranks = np.array(rank_of_stage(self.schedule, self.pp, self.vpp))
        chunk = np.repeat(np.arange(self.vpp), self.pp)
        held = {n: getattr(self, n) for n in STAGE_COLUMNS if getattr(self, n) is not None}
        dealt: dict[str, Any] = {
            name: _dealt(layers, ranks, chunk, self.vpp) for name, layers in held.items()
        }
        if "kinds" in dealt:
            dealt["counts"] = dealt["kinds"].sum(axis=2)
        return dataclasses.replace(self, stage=ranks, chunk=chunk, **dealt)

    def layout(self, row: int) -> Layout:
        """One row as a Layout."""
        shard = int(self.shard[row])
        return Layout(
            dp=int(self.dp[row]),
            tp=int(self.tp[row]),
            pp=self.pp,
            vpp=self.vpp,
            cp=int(self.cp[row]),
            ep=int(self.ep[row]),
            etp=int(self.etp[row]),
            shard=shard or None,
            cp_style=CONTEXT_STYLES[int(self.style[row])],
            sync=SYNCHRONISATIONS[int(self.sync[row])],
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
    def of_plan(
        cls,
        layout: Layout,
        stages: tuple[Stage, ...],
        global_batch: int,
        model: ModelSpec | None = None,
    ) -> Self:
        """One plan as a table of one row. Chunk i of the stages lies on the rank that the schedule
        gives it. model: to tell the kinds of layers apart where it has several."""

        ranks = rank_of_stage(layout.schedule, layout.pp, layout.vpp)
        apart = [_places(stage) for stage in stages]
        own = [
            [
                place
                for rank, held in zip(ranks, apart, strict=True)
                if rank == each
                for place in held
            ]
            for each in range(layout.pp)
        ]
        whole = cls._of_places(layout, own, global_batch, model)
        if layout.vpp == 1:
            return whole
        by_chunk = cls._of_places(layout, apart, global_batch, model)
        chunk = np.repeat(np.arange(layout.vpp), layout.pp)
        by_chunk = dataclasses.replace(by_chunk, stage=np.array(ranks), chunk=chunk)
        return dataclasses.replace(whole, chunks=by_chunk)

    @classmethod
    def _of_places(
        cls,
        layout: Layout,
        places: list[list[tuple[int, LayerChoice]]],
        global_batch: int,
        model: ModelSpec | None,
    ) -> Self:
        """A table of one row from the layers of every column."""

        def column(value: int) -> Ints:
            return np.array([value], dtype=np.int64)

        layers = sum(len(held) for held in places)
        kinds = list(model.order) if model is not None else [(0, 0)] * layers
        distinct = list(dict.fromkeys(kinds))
        modes: set[Recompute] = {choice.recompute for held in places for _, choice in held}
        strongest: Recompute = max(modes, key=RECOMPUTES.index)

        def tally(wanted: set[Recompute]) -> Ints:
            def held(rank: list[tuple[int, LayerChoice]], kind: tuple[int, int]) -> int:
                return sum(kinds[i] == kind and c.recompute in wanted for i, c in rank)

            found = [[held(rank, kind) for kind in distinct] for rank in places]
            return np.array([found], dtype=np.int64)

        every = tally(set(RECOMPUTES))
        several = len(distinct) > 1
        again = tally(set() if strongest == "none" else {strongest})
        weaker = tally({"selective"} if strongest == "full" else set())
        return cls(
            pp=layout.pp,
            schedule=layout.schedule,
            recompute=strongest,
            axis_order=layout.axis_order,
            dp=column(layout.dp),
            tp=column(layout.tp),
            micro_batch=column(layout.micro_batch),
            microbatches=column(layout.microbatches(global_batch)),
            zero=column(layout.zero),
            counts=every.sum(axis=2),
            recomputed=again if several else again.sum(axis=2),
            selective=weaker if several else weaker.sum(axis=2),
            kinds=every if several else None,
            vpp=layout.vpp,
            cp=column(layout.cp),
            ep=column(layout.ep),
            etp=column(layout.etp),
            shard=column(layout.shard or 0),
            style=column(CONTEXT_STYLES.index(layout.cp_style)),
            sync=column(SYNCHRONISATIONS.index(layout.sync)),
        )


def _dealt(layers: Ints, ranks: Ints, chunk: Ints, chunks: int) -> Ints:
    """Layers of ranks, [N, pp, ...], dealt out to their chunks, [N, pp * vpp, ...]."""
    place = chunk.reshape(-1, *(1,) * (layers.ndim - 2))
    dealt: Ints = layers[:, ranks] // chunks + (place < layers[:, ranks] % chunks)
    return dealt


def _places(stage: Stage) -> list[tuple[int, LayerChoice]]:
    """The layers of a stage: place in the model, and what each chooses."""
    return [(stage.first_layer + i, choice) for i, choice in enumerate(stage.layers)]
