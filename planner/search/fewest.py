"""Fewest devices that reach a throughput.

    minimise   D    such that a plan on D devices has    tokens / step >= throughput

Sizes D are tried from below: divisors of a node, then numbers of whole nodes, every one up to
EVERY nodes and beyond that those whose prime factors are 2, 3 and 5. Throughput need not grow with
D (batch and heads must divide), so no size is skipped. A size is searched with the step
T = tokens / throughput as the best known: choices whose bound is no better are bounded away, so a
size that cannot reach it costs little more than its bounds. The first size with a plan is the
answer, its fastest plan the plan.

No plan on fewer devices of these sizes reaches the throughput, but where an inner problem of a
smaller size stayed open below T (`open_sizes`) or a schedule is searched in a family.
"""

import time
from dataclasses import dataclass

from planner.cost.blocks import Blocks
from planner.search.inner.problem import RELATIVE
from planner.search.outer.relaxed_space import Space, relaxed_space
from planner.search.outer.search import Outcome, Search
from planner.search.outer.terms import Terms
from planner.search.wishes import Wishes
from planner.spec.divisors import divisors

EVERY = 64
"""Numbers of nodes up to which every one is tried. Assumed: beyond it few others divide a batch."""


@dataclass(frozen=True, slots=True)
class Fewest:
    """The smallest size that reaches a throughput. outcome: None where none does. tried: sizes that
    were searched; open_sizes: smaller ones that may reach it after all."""

    space: Space
    outcome: Outcome | None
    tried: tuple[int, ...]
    open_sizes: tuple[int, ...]
    enumerated: int


def sizes_of(blocks: Blocks) -> tuple[int, ...]:
    """The numbers of devices that are tried, ascending."""
    cluster = blocks.cluster
    nodes = [n for n in range(1, cluster.nodes + 1) if n <= EVERY or _smooth(n)]
    inside = divisors(cluster.devices_per_node)[:-1]
    return (*inside, *(cluster.devices_per_node * n for n in nodes))


def _smooth(n: int) -> bool:
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n == 1


def fewest_devices(blocks: Blocks, throughput: float, limit_bytes: float, wishes: Wishes) -> Fewest:
    """Search the sizes from below. throughput: tokens per second."""
    target = blocks.workload.tokens / throughput
    tried: list[int] = []
    unsure: list[int] = []
    enumerated, begun = 0, time.process_time()
    for devices in sizes_of(blocks):
        terms = Terms(limit_bytes, wishes=wishes, sizes=(devices,))
        space = relaxed_space(blocks, terms, target, kept=1.0)
        enumerated += space.enumerated
        tried.append(devices)
        outcome = Search(blocks, space, wishes.seconds_left(begun)).run()
        if outcome.solved and outcome.solved[0].value <= target * (1 + RELATIVE):
            return Fewest(space, outcome, tuple(tried), tuple(unsure), enumerated)
        if outcome.lower_bound <= target:
            unsure.append(devices)
    return Fewest(space, None, tuple(tried), tuple(unsure), enumerated)
