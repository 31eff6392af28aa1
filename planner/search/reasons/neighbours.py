"""Neighbours: along every axis the best plan that decides it otherwise, and why it was rejected.

An axis is one decision. Along a degree of the mesh (tp, pp, dp, cp, ep, etp) everything else is
free; along the others (ZeRO stage and its sharding, microbatch, schedule and chunks, placement,
context style, synchronisation, recomputation) the mesh is kept. With V_a the plans of the space
whose value on axis a differs from the best plan's,

    loss_a = min over V_a / best - 1          how much it costs to decide a otherwise

All axes are sought in one search (planner.search.outer.search): the relaxed space of the best plan
is used again, each choice serves the axes on which it differs, and is solved only if its bound is
below the best plan known of one of them. It stops where nothing is left, or after `tries` inner
problems; then the least bound of what is left says how much smaller the loss may be. Choices that
are over SLOWEST times as slow are not sought.

Where an axis has no other plan, it may be for memory: of the choices that differ only there (and
in what cannot be kept) the leanest bound tells by how many bytes it exceeds the limit; a choice
whose bound is below the best plan would save at most what it says if there were that memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.memory import stage_memory
from planner.cost.relaxation import least_bytes, least_seconds
from planner.search.inner.stage_tables import modes
from planner.search.outer import space as legal_space
from planner.search.outer.relaxed_space import KEPT, Space
from planner.search.outer.search import Search, Solved
from planner.search.solved_plan import plan_of
from planner.spec.divisors import divisors
from planner.spec.layout import Layout
from planner.spec.plan import Plan
from planner.spec.runtime import CONTEXT_STYLES, SYNCHRONISATIONS
from planner.spec.units import format_bytes, format_seconds

MESH = ("tp", "pp", "dp", "cp", "ep", "etp")
BESIDE = ("zero", "micro_batch", "schedule", "placement", "cp_style", "sync")
RECOMPUTE = "recompute"
SLOWEST = KEPT
"""Neighbours that are slower by more are not named."""
TRIES = 400
"""Inner problems for all axes together. Measured: llama3.1-8b on 64 H100 takes some 1.5 CPU s."""

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The best plan that decides one axis otherwise.

    plan: None where there is none. loss: how much worse than the best, as a share; least_loss: no
    plan along this axis loses less. over_bytes: what the leanest choice of the axis needs above the
    limit, where none fits; saves: at most what a choice that does not fit would save.
    """

    axis: str
    plan: Plan | None = None
    loss: float | None = None
    least_loss: float | None = None
    over_bytes: float | None = None
    saves: float | None = None

    @property
    def proven(self) -> bool:
        """Whether no plan along the axis is better than this one."""
        loss, least = self.loss, self.least_loss
        return loss is not None and least is not None and loss <= least

    @property
    def reason(self) -> str:
        """Why it was rejected."""
        parts = []
        if self.loss is not None:
            parts.append("as good" if abs(self.loss) < 5e-4 else f"{self.loss:+.1%}")
            if not self.proven and self.least_loss is not None:
                parts[-1] += f" (at least {max(self.least_loss, 0.0):+.1%})"
        if self.over_bytes is not None:
            parts.append(self.lacks)
        return "; ".join(parts)

    @property
    def lacks(self) -> str:
        """What a choice needs that does not fit."""
        if self.over_bytes is None:
            return ""
        over = f"over memory by {format_bytes(self.over_bytes)}"
        if self.saves is not None:
            return f"one that would save up to {self.saves:.1%} is {over}"
        return f"the leanest is {over}"


def neighbours(
    blocks: Blocks, space: Space, best: Plan, tries: int = TRIES
) -> tuple[Neighbour, ...]:
    """One per axis on which the space has another choice, the nearest first."""
    value = space.terms.value(best)
    search = _searched(blocks, space, best, value, tries)
    found = [_found(blocks, search, goal, axis, value) for goal, axis in enumerate(_axes())]
    found.append(_recomputing(blocks, space, best, value, tries))
    lacking = _lacking(blocks, space, best, value)
    made = [_joined(each, lacking.get(each.axis)) for each in found if each is not None]
    kept = [each for each in made if each is not None]
    return tuple(sorted(kept, key=lambda each: (each.loss is None, each.loss or 0.0)))


def rows(found: Sequence[Neighbour]) -> list[dict[str, str]]:
    """The same for people."""
    return [
        {
            "axis": each.axis,
            "best plan that differs": each.plan.title if each.plan else "",
            "step": _seconds(each.plan),
            "rejected because": each.reason,
        }
        for each in found
    ]


def _seconds(plan: Plan | None) -> str:
    return format_seconds(plan.predicted.step_seconds) if plan and plan.predicted else ""


def _axes() -> tuple[str, ...]:
    return (*MESH, *BESIDE)


def _searched(blocks: Blocks, space: Space, best: Plan, value: float, tries: int) -> Search:
    parts = [_differing(table, best.layout) for table in space.tables]
    goals = np.concatenate(
        [part[:, space.row[space.places(i)]] for i, part in enumerate(parts)]
        or [np.zeros((len(_axes()), 0), dtype=bool)],
        axis=1,
    )
    known = np.full(len(goals), SLOWEST * value)
    search = Search(blocks, space, tries=tries, goals=goals, known=known)
    search.run()
    return search


def _differing(table: Candidates, own: Layout) -> Flags:
    """Which rows differ along each axis, [axes, rows]."""
    mesh = {name: _column(table, name) != getattr(own, name) for name in MESH}
    same = ~np.asarray(np.stack(list(mesh.values())).any(axis=0))
    shard, order = own.shard or 0, "-".join(table.axis_order) != "-".join(own.axis_order)
    style, sync = CONTEXT_STYLES.index(own.cp_style), SYNCHRONISATIONS.index(own.sync)
    beside: dict[str, Flags | bool] = {
        "zero": (table.zero != own.zero) | (table.shard != shard),
        "micro_batch": table.micro_batch != own.micro_batch,
        "schedule": (table.schedule, table.vpp) != (own.schedule, own.vpp),
        "placement": order,
        "cp_style": (table.style != style) & (own.cp > 1),
        "sync": table.sync != sync,
    }
    return np.array([mesh[n] for n in MESH] + [same & beside[n] for n in BESIDE])


def _column(table: Candidates, name: str) -> NDArray[np.int64]:
    return np.broadcast_to(np.asarray(getattr(table, name)), (len(table),))


def _found(blocks: Blocks, search: Search, goal: int, axis: str, value: float) -> Neighbour | None:
    """What a search says of one axis; None where the space has no other choice there."""
    if not search.serves[goal].any():
        return Neighbour(axis)
    return _neighbour(blocks, axis, search.found.get(goal), float(search.left[goal]), value)


def _neighbour(
    blocks: Blocks, axis: str, solved: Solved | None, left: float, value: float
) -> Neighbour:
    if solved is None:
        return Neighbour(axis)
    loss = solved.value / value - 1
    least = min(loss, left / value - 1)
    return Neighbour(axis, plan_of(blocks, solved), loss, least)


def _recomputing(
    blocks: Blocks, space: Space, best: Plan, value: float, tries: int
) -> Neighbour | None:
    """The best plan of the same mesh that recomputes otherwise."""
    others = [mode for mode in modes(blocks.runtime) if mode != best.layout.recompute]
    if not any(space.allows(mode) for mode in others):
        return None
    kept = []
    for i, table in enumerate(space.tables):
        other = np.asarray(_differing(table, best.layout)[: len(MESH)].any(axis=0))
        kept.append(~other[space.row[space.places(i)]])
    some = space.take(np.flatnonzero(np.concatenate(kept or [np.zeros(0, dtype=bool)])))
    terms = space.terms.forbidding(best.layout.recompute)
    some = replace(some, known=SLOWEST * value, terms=terms)
    search = Search(blocks, some, tries=tries)
    search.run()
    return _neighbour(blocks, RECOMPUTE, search.found.get(0), float(search.left[0]), value)


@dataclass(frozen=True, slots=True)
class _Lacking:
    """What a choice that does not fit needs above the limit, and how much it may save."""

    over_bytes: float
    saves: float | None


def _lacking(blocks: Blocks, space: Space, best: Plan, value: float) -> dict[str, _Lacking]:
    """Of every axis beside the mesh: the most promising choice among those that do not fit."""
    found: dict[str, _Lacking] = {}
    for table in _beside(blocks, best):
        size, bound = least_bytes(blocks, table), least_seconds(blocks, table)
        bound = bound * space.terms.weight(blocks, table)
        differs = _differing(table, best.layout)
        for axis, flags in zip(_axes(), differs, strict=True):
            over = np.flatnonzero(flags & (size > space.limit_bytes))
            if not len(over):
                continue
            place = int(over[np.lexsort((size[over], np.maximum(bound[over], value)))[0]])
            saves = 1 - float(bound[place]) / value
            lacks = float(size[place]) - space.limit_bytes
            found[axis] = _Lacking(lacks, saves if saves > 5e-4 else None)
    if best.layout.recompute != "none":
        lacks = _peak_without(blocks, best) - space.limit_bytes
        if lacks > 0:
            found[RECOMPUTE] = _Lacking(lacks, None)
    return found


def _beside(blocks: Blocks, best: Plan) -> Iterator[Candidates]:
    """The choices of the same mesh under the same schedule that differ in one more decision."""
    layout = best.layout
    parts = blocks.model, blocks.cluster, blocks.workload, blocks.runtime
    asked = legal_space.Question(*parts, layout.devices)
    bare = legal_space.states(asked, layout.pp)
    if not len(bare):
        return
    sizes = divisors(blocks.workload.global_batch // layout.dp)
    every = [np.insert(bare, bare.shape[1], size, axis=1) for size in sizes]
    whole = legal_space.table(
        asked, layout.pp, layout.schedule, layout.vpp, layout.axis_order, np.concatenate(every)
    )
    differs = _differing(whole, layout)
    one = ~differs[: len(MESH)].any(axis=0) & (differs[len(MESH) :].sum(axis=0) == 1)
    if one.any():
        yield whole.take(np.flatnonzero(one))


def _peak_without(blocks: Blocks, best: Plan) -> float:
    """The peak of the best plan if no layer recomputed."""
    stages = tuple(
        stage.replace(layers=tuple(choice.replace(recompute="none") for choice in stage.layers))
        for stage in best.stages
    )
    batch = blocks.workload.global_batch
    rows = Candidates.of_plan(best.layout, stages, batch, blocks.model)
    return float(stage_memory(BlockTables(blocks, rows)).total.max())


def _joined(found: Neighbour | None, lacking: _Lacking | None) -> Neighbour | None:
    """A neighbour with what memory keeps from it; None where there is nothing to say."""
    if found is None or lacking is None:
        return None if found is None or found.plan is None else found
    if found.plan is not None and lacking.saves is None:
        return found
    return replace(found, over_bytes=lacking.over_bytes, saves=lacking.saves)
