"""Remedy: where no plan fits, the smallest changes with which one does, each found by a search.

    memory     the least memory per device, to RESOLUTION_BYTES: bisection between the least lower
               bound of any choice and the peak of a plan found; its plan is the closest there is
    nodes      more nodes, the fewest of those tried (NODES more at most, then multiples)
    batch      the largest of 1/2, 1/4, .. of the batch
    sequence   the same of the sequence
    wishes     each --fix or --forbid alone

Every one has a plan behind it; what has none is not named. A search here ends with the first plan.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from planner.cost.blocks import Blocks
from planner.cost.relaxation import least_bytes
from planner.search.outer.relaxed_space import relaxed_space
from planner.search.outer.search import Search
from planner.search.outer.terms import Terms
from planner.search.scaling import resized
from planner.search.solved_plan import plan_of
from planner.spec.documents import InputError
from planner.spec.plan import Plan
from planner.spec.units import format_bytes

RESOLUTION_BYTES = 1e8
"""Chosen: how closely the least memory is found."""
NODES = 16
"""Chosen: how many more nodes are tried one by one."""
HALVINGS = 6
"""Chosen: of batch and sequence, and doublings of the memory, before a remedy is given up."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change with which a plan fits, in words, and that plan."""

    kind: str
    what: str
    plan: Plan


def any_plan(blocks: Blocks, terms: Terms) -> Plan | None:
    """Some plan that fits; None where there is none."""
    space = relaxed_space(blocks, terms)
    found = Search(blocks, space, first=True).run()
    return plan_of(blocks, found.solved[0]) if found.solved else None


def remedies(blocks: Blocks, terms: Terms) -> Iterator[Remedy]:
    """What would make a plan fit, for a question without one on these terms."""
    for part in (_memory(blocks, terms), _nodes(blocks, terms), _less_work(blocks, terms)):
        yield from part
    for wish in terms.wishes.choices:
        found = any_plan(blocks, terms.without(wish))
        if found is not None:
            yield Remedy("wish", f"no {wish.option}", found)


def told(blocks: Blocks, terms: Terms) -> str:
    """The closest plan and the remedies, in sentences."""
    found = list(remedies(blocks, terms))
    if not found:
        return "What would help: nothing that was tried (memory, nodes, batch, sequence, wishes)."
    closest = next((each.plan for each in found if each.kind == "memory"), None)
    lines = [_breaks(closest, terms.limit_bytes)] if closest is not None else []
    listed = "; or ".join(each.what for each in found)
    return " ".join([*lines, f"What would help, each found by a search: {listed}."])


def _breaks(plan: Plan, limit_bytes: float) -> str:
    """Which rank of the closest plan breaks the limit, and with which bytes."""
    promised = plan.predicted
    assert promised is not None
    parts = sorted(promised.memory.items(), key=lambda item: -item[1])[:3]
    split = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts)
    stage = int(np.argmax(promised.stage_peak_bytes))
    peak, over = format_bytes(promised.peak_bytes), promised.peak_bytes - limit_bytes
    return (
        f"The closest plan is {plan.title}: stage {stage} needs {peak} of "
        f"{format_bytes(limit_bytes)} ({split}), {format_bytes(over)} too much."
    )


def _memory(blocks: Blocks, terms: Terms) -> Iterator[Remedy]:
    leanest = relaxed_space(blocks, terms).leanest
    if leanest is None:
        return
    low = max(terms.limit_bytes, float(least_bytes(blocks, leanest.one)[0]) * (1 - 1e-9))
    plan, high = None, low
    for _ in range(HALVINGS):
        high *= 2
        plan = any_plan(blocks, terms.within(high))
        if plan is not None:
            break
    if plan is None:
        return
    resolution = min(RESOLUTION_BYTES, 0.01 * low)
    high = _peak(plan)
    while high - low > resolution:
        middle = (low + high) / 2
        better = any_plan(blocks, terms.within(middle))
        if better is None:
            low = middle
        else:
            plan, high = better, _peak(better)
    what = f"{_size(high)} of memory per device (no plan fits in {_size(low)})"
    if terms.wishes.memory_limit is not None and high <= blocks.cluster.memory_bytes:
        what = f"--memory-limit {_size(high).replace(' ', '')} (no plan fits in {_size(low)})"
    yield Remedy("memory", what, plan)


def _peak(plan: Plan) -> float:
    assert plan.predicted is not None
    return plan.predicted.peak_bytes


def _size(size: float) -> str:
    return f"{np.ceil(size / 1e7) / 100:.2f} GB" if size > 1e8 else format_bytes(size)


def _nodes(blocks: Blocks, terms: Terms) -> Iterator[Remedy]:
    nodes, per_node = blocks.cluster.nodes, blocks.cluster.devices_per_node
    more = {nodes + k for k in range(1, NODES + 1)} | {nodes * factor for factor in (2, 3, 4, 8)}
    for count in sorted(more):
        try:
            cluster = resized(blocks.cluster, per_node * count)
        except InputError:  # one node that does not say what would join it to others
            return
        found = any_plan(blocks.changed(cluster=cluster), terms)
        if found is not None:
            yield Remedy("nodes", f"{count} nodes instead of {nodes}", found)
            return


def _less_work(blocks: Blocks, terms: Terms) -> Iterator[Remedy]:
    """The largest smaller batch, and the longest shorter sequence."""
    for field, option in (("global_batch", "--global-batch"), ("seq_len", "--seq-len")):
        whole = getattr(blocks.workload, field)
        for halving in range(1, HALVINGS + 1):
            size = whole >> halving
            if not size or size << halving != whole:
                break
            work = blocks.workload.replace(**{field: size})
            found = any_plan(blocks.changed(workload=work), terms)
            if found is not None:
                yield Remedy(field, f"{option} {size}", found)
                break
