"""Exact search: from the outer search's solved choices to plans with their predictions.

First among the plans that are not at risk (peak below AT_RISK of the memory); if there is none, or
if the user allows it, up to the whole memory. The first plan is the best of the space within
`Ranking.gap`; the ones behind it were solved on the way and need not be the next best.
"""

import time
from dataclasses import replace

import numpy as np

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.search.fewest import Fewest, fewest_devices
from planner.search.leanest import nothing_fits
from planner.search.outer import space
from planner.search.outer.depths import depths
from planner.search.outer.relaxed_space import Space, relaxed_space
from planner.search.outer.search import Outcome, Search
from planner.search.outer.terms import Terms
from planner.search.ranking import NoPlanError, OutOfTimeError, Ranking
from planner.search.solved_plan import plan_of
from planner.search.wishes import Wishes
from planner.spec.asked import Objective
from planner.spec.plan import AT_RISK


def rank_exactly(
    blocks: Blocks,
    objective: Objective = "time",
    top_k: int = 5,
    allow_at_risk: bool = False,
    wishes: Wishes | None = None,
    throughput: float | None = None,
) -> Ranking:
    """Search the whole space. throughput: tokens per second that the fewest devices must reach.
    Raises NoPlanError where nothing fits."""
    wall, cpu = time.perf_counter(), time.process_time()
    wishes = wishes or Wishes()
    capacity = wishes.memory_bytes(blocks.cluster.memory_bytes)
    limits = memory_limits(blocks, wishes, allow_at_risk)
    if throughput is None:
        made, outcome = _first_that_fits(blocks, objective, wishes, limits)
        claim = ""
    else:
        made, outcome, claim = _with_fewest(blocks, throughput, wishes, limits)
    asked = wishes.asked(objective, made.limit_bytes, throughput)
    plans = tuple(plan_of(blocks, solved, asked) for solved in outcome.solved[:top_k])
    scale = outcome.solved[0].value / outcome.solved[0].cut.step_seconds
    tally = outcome.tally
    safe = int((made.least_bytes <= AT_RISK * capacity).sum())
    return Ranking(
        plans=plans,
        tables=(),
        candidates=tally.enumerated,
        fitting=len(made),
        safe=safe,
        replayed=tally.replayed,
        lower_bound_seconds=outcome.lower_bound / scale,
        gap=outcome.gap,
        space=made,
        outcome=outcome,
        wall_seconds=time.perf_counter() - wall,
        cpu_seconds=time.process_time() - cpu,
        claim=claim,
    )


def memory_limits(blocks: Blocks, wishes: Wishes, allow_at_risk: bool) -> list[float]:
    """What a plan may use of a device, and what it may use where nothing fits that."""
    capacity = wishes.memory_bytes(blocks.cluster.memory_bytes)
    if allow_at_risk or wishes.sets_memory:
        return [capacity]
    return [AT_RISK * capacity, capacity]


def _first_that_fits(
    blocks: Blocks, objective: Objective, wishes: Wishes, limits: list[float]
) -> tuple[Space, Outcome]:
    begun = time.process_time()
    for limit in limits:
        made = relaxed_space(blocks, Terms(limit, objective == "cost", wishes))
        outcome = Search(blocks, made, wishes.seconds_left(begun)).run()
        if outcome.solved:
            return made, outcome
        if outcome.tally.stopped:
            raise OutOfTimeError(
                f"no plan found within --time-limit {wishes.time_limit_seconds:g}: "
                f"{outcome.tally.bounded} of {outcome.tally.enumerated} choices were not tried. "
                "Give more seconds, or leave the limit out: then the search finds a plan or proves "
                "that none fits."
            )
    raise _nothing_fits(blocks, made)


def _with_fewest(
    blocks: Blocks, throughput: float, wishes: Wishes, limits: list[float]
) -> tuple[Space, Outcome, str]:
    """The fewest devices; at risk only where no number of devices does without."""
    for limit in limits:
        found = fewest_devices(blocks, throughput, limit, wishes)
        if found.outcome is not None:
            return found.space, found.outcome, _fewest_claim(found, throughput)
    outcome = _first_that_fits(blocks, "time", wishes, limits)[1]
    step = outcome.solved[0].value
    reached = blocks.workload.tokens / step
    title = plan_of(blocks, outcome.solved[0]).title
    raise NoPlanError(
        f"no plan reaches {throughput:,.0f} tokens/s on up to {blocks.cluster.devices} devices "
        f"({len(found.tried)} numbers of devices searched): all {blocks.cluster.devices} reach "
        f"{reached:,.0f} with {title}. What would help: more nodes; a larger --global-batch; a "
        f"lower --throughput."
    )


def _fewest_claim(found: Fewest, throughput: float) -> str:
    fewer = len(found.tried) - 1
    least = f"{found.tried[-1]} devices reach {throughput:,.0f} tokens/s"
    smaller = f"of {fewer} smaller numbers (parts of a node, whole nodes)"
    left = f"{len(found.open_sizes)} stayed open" if found.open_sizes else "none does"
    return f"{least}; {smaller} {left}"


def _nothing_fits(blocks: Blocks, made: Space) -> NoPlanError:
    if made.leanest is None:
        asked = space.Question(
            blocks.model, blocks.cluster, blocks.workload, blocks.runtime, blocks.cluster.devices
        )
        wishes = made.terms.wishes.choices
        if wishes and depths(asked, Wishes()):
            reasons = [f"no choice keeps {' and '.join(each.option for each in wishes)}"]
        else:
            reasons = space.why_empty(asked)
        return NoPlanError(
            f"no legal way to divide {blocks.model.name} over {blocks.cluster.devices} devices: "
            + "; ".join(reasons)
            + ". Change --global-batch, --seq-len, --fix or --forbid, or the number of devices."
        )
    leanest = _leanest(blocks, made.leanest.one)
    return nothing_fits(blocks, leanest, made.enumerated, made.limit_bytes)


def _leanest(blocks: Blocks, one: Candidates) -> Candidates:
    """An even cut of a choice that recomputes all it can."""
    base, extra = divmod(blocks.model.layers, one.pp)
    counts = np.array([[base + (i >= one.pp - extra) for i in range(one.pp)]], dtype=np.int64)
    mode = blocks.runtime.recompute[-1]
    again = counts if mode != "none" else np.zeros_like(counts)
    return replace(one, counts=counts, recomputed=again, recompute=mode)
