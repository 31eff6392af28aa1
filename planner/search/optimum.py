"""Optimum: the search that fits the cluster."""

import math

from planner.cost.blocks import Blocks
from planner.search.exact import rank_exactly
from planner.search.ranking import Ranking
from planner.search.tabulated import search as tabulated
from planner.search.wishes import Wishes
from planner.spec.asked import Objective
from planner.spec.documents import InputError


def rank(
    blocks: Blocks,
    objective: Objective = "time",
    top_k: int = 5,
    allow_at_risk: bool = False,
    wishes: Wishes | None = None,
    throughput: float | None = None,
) -> Ranking:
    """The best plans: exactly where every rank has a device of its own, by table where ranks share
    cores. throughput: tokens per second, for objective "devices". Raises NoPlanError, and
    InputError for an unknown price or a wish that cannot be kept."""
    if (objective == "devices") != (throughput is not None):
        raise InputError("--objective devices and --throughput N (tokens/s) need each other")
    if throughput is not None and not 0 < throughput < math.inf:
        raise InputError(f"--throughput {throughput}: choose a number above 0")
    if objective == "cost" and blocks.cluster.accelerator.price_usd_per_hour is None:
        name = blocks.cluster.accelerator.name
        raise InputError(
            f"accelerator {name!r} has no price_usd_per_hour; --objective cost needs one in the "
            f"cluster file"
        )
    if blocks.cluster.shared_cores is None:
        (wishes or Wishes()).check(blocks.runtime)
        return rank_exactly(blocks, objective, top_k, allow_at_risk, wishes, throughput)
    if throughput is not None:
        raise InputError("--objective devices needs ranks with devices of their own, not local")
    if wishes is not None and wishes != Wishes():
        raise InputError(
            "--fix, --forbid, --memory-limit, --memory-headroom and --time-limit need a cluster "
            "whose ranks have devices of their own; leave them out for local"
        )
    return tabulated.rank(blocks, objective, top_k, allow_at_risk=allow_at_risk)
