"""Planning: from a question to explained plans; what the command line and notebooks call."""

from planner.cost.blocks import Blocks
from planner.search import optimum
from planner.search.exact import memory_limits
from planner.search.front import Front, front
from planner.search.outer.search import Tally
from planner.search.outer.terms import Terms
from planner.search.ranking import NoPlanError, OutOfTimeError, Ranking
from planner.search.reasons import remedy
from planner.search.reasons import tabulated as tabulated_reasons
from planner.search.reasons.explanation import Explanation, explained, loses
from planner.search.reasons.neighbours import neighbours
from planner.search.tabulated import search as tabulated
from planner.search.wishes import Wishes
from planner.simulator.prediction import predict
from planner.spec.asked import Objective
from planner.spec.documents import InputError
from planner.spec.plan import AT_RISK, Plan

TRIES = 80
"""Inner problems for the neighbours of a plan just found. Measured: 0.5 to 2 CPU s; explain takes
more."""


def choose(
    blocks: Blocks,
    objective: str = "time",
    top_k: int = 5,
    allow_at_risk: bool = False,
    wishes: Wishes | None = None,
    throughput: float | None = None,
) -> tuple[Ranking, tuple[Plan, ...]]:
    """The ranking and up to top_k plans, the best one with its reasons. Behind it, an exact search
    has what was solved on the way and the best neighbours. allow_at_risk: also plans whose peak is
    above AT_RISK of the device's memory. throughput: of objective "devices", tokens per second.

    Raises InputError for an unknown objective, NoPlanError when nothing fits.
    """
    asked = _objective(objective)
    try:
        ranked = optimum.rank(blocks, asked, top_k, allow_at_risk, wishes, throughput)
    except OutOfTimeError:
        raise
    except NoPlanError as error:
        raise _helped(error, blocks, asked, wishes) from None
    best = ranked.plans[0]
    if ranked.space is None:
        why = tabulated_reasons.why(blocks, ranked.tables, best)
        return ranked, (best.replace(why=why), *ranked.plans[1:top_k])
    near = neighbours(blocks, ranked.space, best, TRIES)
    found = [each.plan.replace(asked=best.asked) for each in near if each.plan is not None]
    others = {plan.title: plan for plan in (*ranked.plans[1:], *found)}
    value = ranked.space.terms.value
    behind = sorted(others.values(), key=value)
    why = (*tabulated_reasons.opening(best), *loses(near))
    return ranked, (best.replace(why=why), *behind[: top_k - 1])


def _helped(
    error: NoPlanError, blocks: Blocks, objective: Objective, wishes: Wishes | None
) -> NoPlanError:
    """The error with what would make a plan fit, found by searches (not on shared cores, nor where
    a throughput was asked for)."""
    if blocks.cluster.shared_cores is not None or objective == "devices":
        return error
    wishes = wishes or Wishes()
    limit = wishes.memory_bytes(blocks.cluster.memory_bytes)
    return NoPlanError(error.limit, remedy.told(blocks, Terms(limit, objective == "cost", wishes)))


def _objective(text: str) -> Objective:
    if text == "time":
        return "time"
    if text == "cost":
        return "cost"
    if text == "devices":
        return "devices"
    raise InputError(f"--objective: {text!r} is unknown; choose time, cost or devices")


def pareto(blocks: Blocks, allow_at_risk: bool = False, wishes: Wishes | None = None) -> Front:
    """The front of step time, memory left free and cost. Raises NoPlanError when nothing fits,
    InputError on shared cores and for a wish that cannot be kept."""
    wishes = wishes or Wishes()
    if blocks.cluster.shared_cores is not None:
        raise InputError("--pareto needs a cluster whose ranks have devices of their own")
    wishes.check(blocks.runtime)
    for limit in memory_limits(blocks, wishes, allow_at_risk):
        found = front(blocks, limit, wishes)
        if found.points:
            return found
    choose(blocks, "time", 1, allow_at_risk, wishes)  # says why nothing fits
    raise AssertionError("a plan of all devices fits, but the front is empty")


def explain(plan: Plan) -> Explanation:
    """The plan with a fresh prediction and its reasons against the space of its question."""
    blocks = Blocks.of_plan(plan)
    plan = plan.replace(predicted=predict(blocks, plan))
    if blocks.cluster.shared_cores is None:
        return explained(blocks, plan)
    tables = tuple(tabulated.tables_of(blocks, "time"))
    return Explanation(plan, None, (), (), (), why=tabulated_reasons.why(blocks, tables, plan))


def headline(blocks: Blocks, ranked: Ranking) -> str:
    """What was asked and how it was searched, in one line."""
    proof = "proven best of the space" if ranked.proven else "no bound on shared cores"
    calibration = blocks.calibration.title if blocks.calibration else "none"
    if ranked.gap:
        proof = f"within {ranked.gap:.2%} of the best of the space"
    if ranked.outcome is not None:
        proof += _family(ranked.outcome.tally)
        proof += f"; {ranked.claim}" if ranked.claim else ""
        return (
            f"{_asked(blocks)}: {_became(ranked)}, gap {ranked.gap or 0.0:.2%}, {proof}; "
            f"calibration {calibration}"
        )
    return (
        f"{_asked(blocks)}: {ranked.candidates} plans, "
        f"{_memory(ranked)}, {ranked.replayed} replayed, {proof}; calibration {calibration}"
    )


def _asked(blocks: Blocks) -> str:
    cluster = blocks.cluster
    return (
        f"{blocks.model.name} on {cluster.name} ({cluster.devices} x {cluster.accelerator.name}), "
        f"seq {blocks.workload.seq_len}, batch {blocks.workload.global_batch}, "
        f"{blocks.workload.dtype}, runtime {blocks.runtime.name}"
    )


def _became(ranked: Ranking) -> str:
    assert ranked.outcome is not None
    tally = ranked.outcome.tally
    return (
        f"{tally.enumerated} outer choices, {tally.impossible} over memory, {tally.bounded} "
        f"bounded away, {tally.solved} solved, {tally.replayed} cuts replayed"
    )


def _family(tally: Tally) -> str:
    """To what the proof refers."""
    early = ", stopped at the time limit" if tally.stopped else ""
    if tally.family:
        return f" (chunked schedules: of nearly even chunks){early}"
    return early


def _memory(ranked: Ranking) -> str:
    if not ranked.safe:
        return f"{ranked.fitting} fit, all of them at risk (peak above {AT_RISK:.0%} of the memory)"
    return f"{ranked.fitting} fit, {ranked.fitting - ranked.safe} of them at risk"
