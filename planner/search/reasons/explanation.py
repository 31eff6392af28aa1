"""Explanation: why a plan is best, what its neighbours lose, what binds it, what would change it.

A plan is judged by the question that it carries (planner.spec.asked): its memory limit, its
wishes, its objective. One that somebody wrote is judged by the usual ones.
"""

from dataclasses import dataclass
from typing import Any

from planner.cost.blocks import Blocks
from planner.search.answer import plan_json
from planner.search.outer.relaxed_space import Space, relaxed_space
from planner.search.outer.search import Search
from planner.search.outer.terms import Terms
from planner.search.reasons.changes import MORE_MEMORY_BYTES, WORTH_SAYING, Change, changes
from planner.search.reasons.neighbours import Neighbour, neighbours
from planner.search.reasons.tabulated import opening
from planner.search.solved_plan import plan_of
from planner.spec.asked import Asked
from planner.spec.plan import AT_RISK, Plan
from planner.spec.units import format_bytes, format_seconds


@dataclass(frozen=True, slots=True)
class Explanation:
    """better: the best plan of the question, where the plan at hand is not; it has the neighbours.

    binding: what keeps the best plan from being better. why: everything in sentences.
    """

    plan: Plan
    better: Plan | None
    neighbours: tuple[Neighbour, ...]
    binding: tuple[str, ...]
    changes: tuple[Change, ...]
    why: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """The `explanation/1` value."""
        return {
            "schema": "explanation/1",
            "why": list(self.why),
            "better": plan_json(self.better) if self.better else None,
            "binding": list(self.binding),
            "neighbours": [_neighbour_json(each) for each in self.neighbours],
            "changes": [
                {
                    "kind": each.kind,
                    "what": each.what,
                    "saved": each.saved,
                    "plan": each.plan.title if each.plan else None,
                }
                for each in self.changes
            ],
            **plan_json(self.plan),
        }


def _neighbour_json(each: Neighbour) -> dict[str, Any]:
    return {
        "axis": each.axis,
        "plan": each.plan.title if each.plan else None,
        "loss": each.loss,
        "least_loss": each.least_loss,
        "over_bytes": each.over_bytes,
        "saves": each.saves,
    }


def asked_of(plan: Plan) -> Asked:
    """The question of a plan; the usual one where it carries none."""
    if plan.asked is not None:
        return plan.asked
    assert plan.predicted is not None
    share = 1.0 if plan.predicted.at_risk else AT_RISK
    return Asked(limit_bytes=share * plan.cluster.memory_bytes)


def explained(blocks: Blocks, plan: Plan) -> Explanation:
    """Search the question of a plan, its neighbours, and the questions around it."""
    asked = asked_of(plan)
    terms = Terms.of_asked(asked, plan)
    space = relaxed_space(blocks, terms, terms.value(plan))
    better = _better(blocks, space, plan)
    best = better or plan
    near = neighbours(blocks, space, best)
    changed = tuple(changes(blocks, best, terms))
    binding = tuple(_binding(best, asked, near, changed))
    lines = [*opening(plan), *_beaten(better, plan, terms), *loses(near)]
    lines += [f"What binds: {'; '.join(binding) or 'nothing that was tried'}."]
    lines += [each.sentence for each in changed]
    return Explanation(plan, better, near, binding, changed, tuple(lines))


def loses(near: tuple[Neighbour, ...]) -> tuple[str, ...]:
    """What the neighbours lose, in sentences; a plan that serves several axes is said once."""
    axes: dict[str, list[str]] = {}
    first: dict[str, Neighbour] = {}
    for each in near:
        if each.plan is not None:
            axes.setdefault(each.plan.title, []).append(each.axis)
            first.setdefault(each.plan.title, each)
    lines = []
    for title, each in first.items():
        plan, loss = each.plan, each.loss
        assert plan is not None
        assert plan.predicted is not None
        assert loss is not None
        best = "the best" if each.proven else "the best found"
        serves = f"{best} with another {', '.join(axes[title])}"
        if abs(loss) < WORTH_SAYING:
            lines.append(f"{title} is as good ({serves}).")
        else:
            taken = format_seconds(plan.predicted.step_seconds)
            lines.append(f"{title} takes {taken}, {loss:+.1%} ({serves}).")
    lacking = [each for each in near if each.over_bytes is not None]
    return (*lines, *(f"Another {each.axis}: {each.lacks}." for each in lacking))


def _better(blocks: Blocks, space: Space, plan: Plan) -> Plan | None:
    """The best plan of the question, if it is better than the one at hand."""
    found = Search(blocks, space).run().solved
    if not found or found[0].value >= space.terms.value(plan) * (1 - WORTH_SAYING):
        return None
    return plan_of(blocks, found[0])


def _beaten(better: Plan | None, plan: Plan, terms: Terms) -> list[str]:
    if better is None:
        return []
    saved = 1 - terms.value(better) / terms.value(plan)
    return [f"It is not the best: {better.title} would save {saved:.1%}. About that one:"]


def _binding(
    best: Plan, asked: Asked, near: tuple[Neighbour, ...], changed: tuple[Change, ...]
) -> list[str]:
    """What keeps the best plan from being better."""
    assert best.predicted is not None
    found = []
    gained = [c for c in changed if c.saved is not None and c.saved > WORTH_SAYING]
    free = format_bytes(max(0.0, asked.limit_bytes - best.predicted.peak_bytes))
    limit = f"the memory limit of {format_bytes(asked.limit_bytes)} ({free} of it free)"
    wider = next((c for c in gained if c.kind == "memory"), None)
    if wider is not None:
        assert wider.saved is not None
        price = wider.saved / (MORE_MEMORY_BYTES / 2**30)
        found.append(f"{limit}: {price:.2%} of the step per GiB")
    elif any(each.saves is not None for each in near):
        found.append(f"{limit}, for some of its neighbours")
    wishes = [each.what for each in gained if each.kind == "wish"]
    found += [what.removeprefix("Without ").removesuffix(" it") for what in wishes]
    chunks = best.runtime.chunks
    if best.layout.vpp == chunks > 1:
        found.append(f"the {chunks} chunks that runtime {best.runtime.name!r} has at most")
    if best.layout.micro_batch == 1 and best.layout.pp > 1:
        found.append("the microbatch of one sequence (no smaller one would fill the pipeline)")
    return found
