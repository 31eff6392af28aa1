"""Tabulated search, where ranks share cores: the space costed row by row, the best replayed.

On shared cores a stage slows the others down, so no bound of planner.search.outer.search holds; the
space is that of planner.search.tabulated.space.

1. the memory of every row of the legal space is estimated (vectorised); rows over a device's
   memory are set aside, and so are rows at risk (over AT_RISK of it) unless they are allowed or
   nothing else fits;
2. the time of the others is estimated in closed form, with a lower bound;
3. rows are replayed by the event engine in the order of their bound (of their estimate where
   cores are shared), until the next bound is no better than the best replay, or until the
   budget of actions is spent. The budget is a count, not a clock: results do not depend on the
   machine's mood;
4. ties go to the simpler plan: fewer stages, less tp, even stages, larger microbatches.

The result is proven best in the tabulated space when the loop ended by its bound; otherwise the
smallest bound not replayed gives the gap. On shared cores no bound is known: the gap is None.
"""

import time

import numpy as np

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.estimate import estimate
from planner.cost.memory import stage_memory
from planner.search.leanest import nothing_fits
from planner.search.ranking import NoPlanError, Ranking
from planner.search.tabulated import space
from planner.search.tabulated.table import Table
from planner.simulator.prediction import planned
from planner.spec.asked import Objective
from planner.spec.divisors import divisors
from planner.spec.layout import make_stages
from planner.spec.plan import AT_RISK, Plan

CHUNK = 20_000
"""Rows estimated at once: bounds the memory of a search, not its result."""


def rank(
    blocks: Blocks,
    objective: Objective = "time",
    top_k: int = 5,
    action_budget: int = 600_000,
    allow_at_risk: bool = False,
) -> Ranking:
    """Search the legal space. Raises NoPlanError."""
    wall, cpu = time.perf_counter(), time.process_time()
    price = blocks.cluster.accelerator.price_usd_per_hour
    scale = None if objective == "time" else (price or 0.0) / 3600
    tables = tuple(tables_of(blocks, objective))
    capacity = blocks.cluster.memory_bytes
    fitting, safe = (_within(tables, limit) for limit in (capacity, AT_RISK * capacity))
    limit = AT_RISK * capacity if safe and not allow_at_risk else capacity
    queue = _queue(blocks, tables, scale, limit)
    if not queue:
        raise _nothing_fits(blocks, tables)
    plans, bound = _replayed(blocks, tables, queue, scale, top_k, action_budget)
    best = _value(plans[0], scale)
    known = blocks.cluster.shared_cores is None
    return Ranking(
        plans=tuple(plans),
        tables=tables,
        candidates=sum(len(table.candidates) for table in tables),
        fitting=fitting,
        safe=safe,
        replayed=len(plans),
        lower_bound_seconds=_seconds(min(bound, best), plans[0], scale) if known else None,
        gap=max(0.0, 1.0 - bound / best) if known else None,
        space=None,
        outcome=None,
        wall_seconds=time.perf_counter() - wall,
        cpu_seconds=time.process_time() - cpu,
    )


def _within(tables: tuple[Table, ...], limit: float) -> int:
    return sum(int((table.peak_bytes <= limit).sum()) for table in tables)


def tables_of(blocks: Blocks, objective: Objective) -> list[Table]:
    """The whole legal space, estimated. Objective "cost" adds smaller numbers of nodes."""
    sizes = [blocks.cluster.devices]
    if objective == "cost":
        per_node = blocks.cluster.devices_per_node
        sizes = [per_node * n for n in divisors(blocks.cluster.nodes)]
    found = []
    for devices in sizes:
        for candidates in space.legal(
            blocks.model, blocks.cluster, blocks.workload, blocks.runtime, devices
        ):
            found += [_table(blocks, part) for part in candidates.parts(CHUNK)]
    return found


def _table(blocks: Blocks, candidates: Candidates) -> Table:
    """Memory of every row; times of those that fit, infinite for the others."""
    peak = stage_memory(BlockTables(blocks, candidates)).total.max(axis=1)
    fitting = np.flatnonzero(peak <= blocks.cluster.memory_bytes)
    step, bound = np.full(len(peak), np.inf), np.full(len(peak), np.inf)
    if len(fitting):
        made = estimate(blocks, candidates.take(fitting))
        step[fitting], bound[fitting] = made.step_seconds, made.bound_seconds
    return Table(candidates, step, bound, peak)


def _queue(
    blocks: Blocks, tables: tuple[Table, ...], scale: float | None, limit: float
) -> list[tuple[float, int, int]]:
    """(bound, table, row) of every row within the limit of memory, in the order to replay; shared
    cores: bound 0."""
    shared = blocks.cluster.shared_cores is not None
    keys, bounds, owners, rows = [], [], [], []
    for index, table in enumerate(tables):
        fitting: Ints = np.flatnonzero(table.peak_bytes <= limit)
        chosen = table.candidates
        devices = chosen.dp * chosen.tp * chosen.pp
        unit = (np.ones(len(chosen)) if scale is None else scale * devices)[fitting]
        bounds.append(table.bound_seconds[fitting] * unit)
        keys.append((table.step_seconds if shared else table.bound_seconds)[fitting] * unit)
        owners.append(np.full(len(fitting), index))
        rows.append(fitting)
    if not keys:
        return []
    order = np.argsort(np.concatenate(keys), kind="stable")
    columns = (np.concatenate(column)[order].tolist() for column in (bounds, owners, rows))
    return list(zip(*columns, strict=True))


def _replayed(
    blocks: Blocks,
    tables: tuple[Table, ...],
    queue: list[tuple[float, int, int]],
    scale: float | None,
    top_k: int,
    action_budget: int,
) -> tuple[list[Plan], float]:
    """Replayed plans, best first, and the smallest bound of the rows left out."""
    plans: list[Plan] = []
    best, spent, bound = np.inf, 0, np.inf
    for bound, table, row in queue:
        if len(plans) >= top_k and (bound >= best or spent > action_budget):
            break
        plan = plan_of_row(blocks, tables[table], row)
        plans.append(plan)
        best = min(best, _value(plan, scale))
        spent += 4 * plan.microbatches * plan.layout.pp
    else:
        bound = np.inf
    return sorted(plans, key=lambda plan: _order(plan, scale)), float(bound)


def _value(plan: Plan, scale: float | None) -> float:
    """Seconds of a step, or its dollars when a scale (dollars per device second) is given."""
    assert plan.predicted is not None
    seconds = plan.predicted.step_seconds
    return seconds if scale is None else seconds * scale * plan.layout.devices


def plan_of_row(blocks: Blocks, table: Table, row: int) -> Plan:
    """One row of a table as a Plan, predicted by replay."""
    one = table.candidates.take(np.array([row]))
    layout = one.layout(0)
    return planned(blocks, layout, make_stages(layout, one.layer_counts(0)))


def _seconds(value: float, plan: Plan, scale: float | None) -> float:
    return value if scale is None else value / (scale * plan.layout.devices)


def _order(plan: Plan, scale: float | None) -> tuple[float, ...]:
    """Best first; among equals the simpler plan."""
    layout, counts = plan.layout, plan.layer_counts
    return (
        float(f"{_value(plan, scale):.9g}"),
        layout.pp,
        layout.tp,
        max(counts) - min(counts),
        layout.recompute != "none",
        layout.zero,
        -layout.micro_batch,
        layout.schedule == "gpipe",
    )


def _nothing_fits(blocks: Blocks, tables: tuple[Table, ...]) -> NoPlanError:
    devices, capacity = blocks.cluster.devices, blocks.cluster.memory_bytes
    if not tables:
        reasons = space.why_empty(blocks.model, blocks.workload, blocks.runtime, devices)
        return NoPlanError(
            f"no legal way to divide {blocks.model.name} over {devices} devices: "
            + "; ".join(reasons)
            + ". Change --global-batch, --seq-len or the number of devices."
        )
    table = min(tables, key=lambda t: float(t.peak_bytes.min()))
    leanest = table.candidates.take(np.array([int(table.peak_bytes.argmin())]))
    return nothing_fits(blocks, leanest, sum(len(t.candidates) for t in tables), capacity)
