"""Changes: what would change the decision, each found by a search of the changed question.

    memory      some GiB more or less per device: the shadow price of memory
    network     the outermost tier twice or half as fast
    batch       twice or half as many sequences per step, judged per sequence
    wishes      each --fix and --forbid dropped

The plan at hand, valued under the change, is where each search begins: what is not better is
bounded away, so a change that changes nothing costs little more than the bounds of its choices.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from planner.cost.blocks import Blocks
from planner.search.outer.relaxed_space import Space, relaxed_space
from planner.search.outer.search import Search, Solved
from planner.search.outer.terms import Terms
from planner.search.solved_plan import plan_of
from planner.simulator.prediction import planned
from planner.spec.plan import Plan
from planner.spec.units import format_bytes

MORE_MEMORY_BYTES = 4 * 2**30
"""Chosen: what a shadow price is told for."""
WORTH_SAYING = 5e-4
"""Assumed: shares of a step that are smaller are nothing."""


@dataclass(frozen=True, slots=True)
class Change:
    """A changed question. saved: share of the step (or its dollars) that its best plan saves, per
    sequence; None where no plan fits. plan: that plan, None where the decision stays.
    kind: memory, network, batch or wish."""

    kind: str
    what: str
    saved: float | None
    plan: Plan | None

    @property
    def sentence(self) -> str:
        """The same in words."""
        if self.saved is None:
            return f"{self.what}: no plan fits."
        per = " per sequence" if self.kind == "batch" else ""
        with_plan = f"with {self.plan.title}" if self.plan else "and keep this plan"
        if abs(self.saved) <= WORTH_SAYING:
            return f"{self.what} would change {'little, ' + with_plan if self.plan else 'nothing'}."
        verb = "save" if self.saved > 0 else "cost"
        return f"{self.what} would {verb} {abs(self.saved):.1%}{per}, {with_plan}."


def changes(blocks: Blocks, best: Plan, terms: Terms) -> Iterator[Change]:
    """What would change the decision for `best`, the best plan on these terms."""
    yield from _memory(blocks, best, terms)
    yield from _network(blocks, best, terms)
    yield from _batch(blocks, best, terms)
    for wish in terms.wishes.choices:
        what = f"Without {'--fix' if wish.wanted else '--forbid'} {wish.text} it"
        yield _researched(blocks, "wish", what, best, terms.without(wish))


def _memory(blocks: Blocks, best: Plan, terms: Terms) -> Iterator[Change]:
    size, limit = format_bytes(MORE_MEMORY_BYTES), terms.limit_bytes
    for words, other in (("more", limit + MORE_MEMORY_BYTES), ("less", limit - MORE_MEMORY_BYTES)):
        if other > 0:
            what = f"{size} {words} memory per device"
            yield _researched(blocks, "memory", what, best, terms.within(other))


def _network(blocks: Blocks, best: Plan, terms: Terms) -> Iterator[Change]:
    *inner, outer = blocks.cluster.tiers
    for factor, words in ((2.0, "Twice"), (0.5, "Half")):
        speed = factor * outer.bandwidth_bytes_per_second
        tiers = (*inner, outer.replace(bandwidth_bytes_per_second=speed))
        changed = blocks.changed(cluster=blocks.cluster.replace(tiers=tiers))
        what = f"{words} the bandwidth of {outer.name}"
        yield _researched(changed, "network", what, best, terms)


def _batch(blocks: Blocks, best: Plan, terms: Terms) -> Iterator[Change]:
    batch = blocks.workload.global_batch
    for size, words in ((2 * batch, "Twice"), (batch // 2, "Half")):
        if size and (size > batch or batch % 2 == 0):
            changed = blocks.changed(workload=blocks.workload.replace(global_batch=size))
            yield _researched(changed, "batch", f"{words} the batch", best, terms, batch / size)


def _researched(
    changed: Blocks, kind: str, what: str, best: Plan, terms: Terms, per: float = 1.0
) -> Change:
    """The search of a changed question, from the plan at hand where it can still run."""
    same = _valued(changed, best, terms.limit_bytes)
    known = np.inf if same is None else terms.value(same)
    space = relaxed_space(changed, terms, known, kept=1.0)
    return _change(changed, kind, what, space, best, same, per)


def _valued(changed: Blocks, best: Plan, limit: float) -> Plan | None:
    """The plan at hand under a changed question; None where it cannot run there."""
    layout = best.layout
    if changed.workload.global_batch % (layout.dp * layout.micro_batch):
        return None
    if layout.schedule not in ("gpipe", "1f1b") and changed.workload != best.workload:
        return None  # its rounds of microbatches may no longer be whole
    found = planned(changed, layout, best.stages)
    assert found.predicted is not None
    return found if found.predicted.peak_bytes <= limit else None


def _change(
    blocks: Blocks,
    kind: str,
    what: str,
    space: Space,
    best: Plan,
    same: Plan | None,
    per: float = 1.0,
) -> Change:
    """What the best plan of a space saves against the best plan at hand. same: that plan under the
    change; the decision stays where nothing beats it."""
    found = _best(blocks, space)
    value = space.terms.value(best)
    kept = None if same is None else space.terms.value(same)
    if kept is not None and (found is None or found.value >= kept * (1 - WORTH_SAYING / 10)):
        return Change(kind, what, 1 - kept * per / value, None)
    if found is None:
        return Change(kind, what, None, None)
    return Change(kind, what, 1 - found.value * per / value, plan_of(blocks, found))


def _best(blocks: Blocks, space: Space) -> Solved | None:
    found = Search(blocks, space).run()
    return found.solved[0] if found.solved else None
