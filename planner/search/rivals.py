"""Rivals: why the best plan is best, what its neighbours lose, and what would change the decision.

A neighbour differs from the best in one choice; of each choice the best rejected one is named. For
the degrees everything else is free; for microbatch, ZeRO, schedule and chunks the mesh is kept. A
neighbour is solved like the best (planner.search.outer), but with a schedule of one chunk or the
best's own, and after TRIES inner problems the best so far is taken: its loss is at most what is
printed. One that has none by then, or is slower
than KEPT times the best, is not named.

Shadow prices: the search is repeated with more memory per device, a faster network between nodes
and twice the batch, and says what that would save.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.estimate import EXACT
from planner.search.exact import plan_of
from planner.search.outer import Search, Solved
from planner.search.reasons import opening
from planner.search.relaxed_space import KEPT, Space, relaxed_space
from planner.spec.plan import AT_RISK, Plan
from planner.spec.units import format_bytes, format_seconds

TRIES = 200
"""Inner problems per neighbour. Measured on llama3.1-8b, 16 devices: with 12 or 40 the first that
fit recompute much and took 17 to 20 s; with 150 all were within 6 % of the best, in less time."""
DEGREES = ("tp", "pp", "dp", "cp", "ep")
MORE_MEMORY_BYTES = 4 * 2**30

Flags = NDArray[np.bool_]
Differs = Callable[[Candidates], Flags]


def why(best: Plan, rivals: Sequence[Plan]) -> tuple[str, ...]:
    """The reasons for a plan against its neighbours, as sentences."""
    return (*opening(best), *(_loses(plan, best) for plan in rivals))


def explained(blocks: Blocks, plan: Plan) -> tuple[str, ...]:
    """The same for a plan at hand, and what would change the decision."""
    space = relaxed_space(blocks, _limit(plan))
    return (*why(plan, neighbours(blocks, space, plan)), *_prices(blocks, plan))


def _limit(plan: Plan) -> float:
    assert plan.predicted is not None
    share = 1.0 if plan.predicted.at_risk else AT_RISK
    return share * plan.cluster.memory_bytes


def neighbours(blocks: Blocks, space: Space, best: Plan) -> tuple[Plan, ...]:
    """The best plan that differs in each choice, nearest first, each once."""
    assert best.predicted is not None
    step = best.predicted.step_seconds
    slowest = KEPT * (best.predicted.usd_per_step or 0.0 if space.dollars else step)
    solved = (_best_of(blocks, space, differs, slowest) for differs in _choices(best))
    found = {plan.title: plan for each in solved if each and (plan := plan_of(blocks, each))}
    return tuple(sorted(found.values(), key=lambda plan: value_of(plan, space.dollars)))


def value_of(plan: Plan, dollars: bool) -> float:
    """Seconds of a plan's step, or its dollars."""
    assert plan.predicted is not None
    return (plan.predicted.usd_per_step or 0.0) if dollars else plan.predicted.step_seconds


def _loses(plan: Plan, best: Plan) -> str:
    assert plan.predicted is not None
    assert best.predicted is not None
    slower = plan.predicted.step_seconds / best.predicted.step_seconds - 1
    taken = format_seconds(plan.predicted.step_seconds)
    same = abs(slower) < 5e-4
    return f"{plan.title} is as fast." if same else f"{plan.title} takes {taken}, {slower:+.1%}."


def _choices(best: Plan) -> Iterator[Differs]:
    layout = best.layout
    for name in DEGREES:
        value = getattr(layout, name)

        def other(table: Candidates, name: str = name, value: int = value) -> Flags:
            return np.asarray((_column(table, name) != value) & _usual(table, best))

        yield other
    for name in ("micro_batch", "zero"):
        value = getattr(layout, name)

        def beside(table: Candidates, name: str = name, value: int = value) -> Flags:
            others = _same_mesh(table, best) & _usual(table, best)
            return np.asarray(others & (_column(table, name) != value))

        yield beside
    yield (
        lambda table: (
            _same_mesh(table, best) & ((table.schedule, table.vpp) != (layout.schedule, layout.vpp))
        )
    )


def _usual(table: Candidates, best: Plan) -> bool:
    """Whether neighbours in degrees are sought under its schedule: an exact one, or the best's."""
    own = best.layout.schedule, best.layout.vpp
    return table.schedule in EXACT or (table.schedule, table.vpp) == own


def _column(table: Candidates, name: str) -> NDArray[np.int64]:
    return np.broadcast_to(np.asarray(getattr(table, name)), (len(table),))


def _same_mesh(table: Candidates, best: Plan) -> Flags:
    same = np.ones(len(table), dtype=bool)
    for name in DEGREES:
        same &= _column(table, name) == getattr(best.layout, name)
    return same


def _best_of(blocks: Blocks, space: Space, differs: Differs, slowest: float) -> Solved | None:
    """The best choice that differs, of those whose bounds come first."""
    kept = np.concatenate([differs(table)[_rows(space, i)] for i, table in enumerate(space.tables)])
    places = np.flatnonzero(kept & np.isfinite(space.bound))
    places = places[np.argsort(space.bound[places], kind="stable")]
    if not len(places):
        return None
    some = replace(
        space,
        owner=space.owner[places],
        row=space.row[places],
        bound=space.bound[places],
        least_bytes=space.least_bytes[places],
        known=slowest,
    )
    found = Search(blocks, some, tries=TRIES).run()
    return found.solved[0] if found.solved else None


def _rows(space: Space, owner: int) -> NDArray[np.int64]:
    return np.asarray(space.row[space.owner == owner])


def _prices(blocks: Blocks, best: Plan) -> Iterator[str]:
    assert best.predicted is not None
    step = best.predicted.step_seconds
    limit = _limit(best)
    more = _best(blocks, limit + MORE_MEMORY_BYTES)
    if more is not None:
        saved = 1 - more.value / step
        said = f"would save {saved:.1%}" if saved > 5e-4 else "would change nothing"
        yield f"{format_bytes(MORE_MEMORY_BYTES)} more memory per device {said}."
    if len(blocks.cluster.tiers) > 1:
        outer = blocks.cluster.tiers[-1]
        faster = outer.replace(bandwidth_bytes_per_second=2 * outer.bandwidth_bytes_per_second)
        cluster = blocks.cluster.replace(tiers=(*blocks.cluster.tiers[:-1], faster))
        yield _changed(
            f"Twice the bandwidth of {outer.name}", _again(blocks, cluster=cluster), limit, best
        )
    work = blocks.workload.replace(global_batch=2 * blocks.workload.global_batch)
    yield _changed("Twice the batch", _again(blocks, workload=work), limit, best, batches=2)


def _again(blocks: Blocks, **changes: Any) -> Blocks:
    parts: dict[str, Any] = {
        name: changes.get(name, getattr(blocks, name))
        for name in ("model", "cluster", "workload", "runtime", "profile")
    }
    return Blocks(**parts, graphs=blocks.graphs, calibration=blocks.calibration)


def _changed(what: str, blocks: Blocks, limit: float, best: Plan, batches: int = 1) -> str:
    assert best.predicted is not None
    found = _best(blocks, limit)
    if found is None:
        return f"{what}: no plan fits."
    saved = 1 - found.value / batches / best.predicted.step_seconds
    other = plan_of(blocks, found)
    same = (other.layout, other.layer_counts) == (best.layout, best.layer_counts)
    per = "per sequence " if batches > 1 else ""
    decision = "and keep this plan" if same else f"with {other.title}"
    return f"{what} would save {saved:.1%} {per}{decision}."


def _best(blocks: Blocks, limit: float) -> Solved | None:
    found = Search(blocks, relaxed_space(blocks, limit)).run()
    return found.solved[0] if found.solved else None
