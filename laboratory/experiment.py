"""Experiment: plans of one topology, predicted and measured.

profile     this machine's compute once, without a network; the links in the network
plan        the best plan of every mesh and of its variants (planner.search.variety)
run         every one of them by the executor, its ranks in the network
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from executor.processes.launch import run_plan
from laboratory import links, network
from laboratory.topology import Topology
from planner.search import planning, question, variety
from planner.spec.plan import Plan
from planner.spec.profile import Profile
from profiler import question as profiling
from profiler.session import take_profile

MODEL, SEQ_LEN, GLOBAL_BATCH = "tiny-gpt2", 128, 16
MICRO_BATCHES, DEGREES = "1,2,4,8,16", "1,2,4"
PROFILE_SECONDS = 90.0
"""Assumed: what a broad session of this model needs (it names what it leaves out)."""
WARMUP, STEPS = 2, 10

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Trial:
    """One plan on one topology, in seconds."""

    topology: str
    plan: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted / self.measured - 1


def compute_profile(ranks: int) -> Profile:
    """Operators of this machine under load, without a network."""
    asked = profiling.ask(MODEL, SEQ_LEN, MICRO_BATCHES, DEGREES, None)
    return take_profile(
        asked.requests,
        asked.message_sizes,
        max_ranks=ranks,
        budget_seconds=PROFILE_SECONDS,
        reference=asked.reference,
        command="python -m laboratory",
    )


def trials(topology: Topology, compute: Profile, count: int, say: Say) -> Iterator[Trial]:
    """Measure the links of a topology, then predict and run `count` plans there."""
    with network.joined(topology):
        say(f"{topology.name}: measuring its links")
        samples = tuple(links.measured(topology))
        profile = compute.replace(collectives=samples)
        cluster = topology.cluster(profile)
        blocks = question.ask(
            MODEL, cluster, SEQ_LEN, GLOBAL_BATCH, None, "native", profile.replace(fits=())
        )
        ranking, best = planning.choose(blocks, top_k=1)
        plans = _each_once((*best, *variety.unlike(blocks, ranking.tables, 2 * count)))[:count]
        for index, plan in enumerate(plans, start=1):
            say(f"{topology.name}: plan {index} of {len(plans)}: {plan.title}")
            yield _trial(topology, plan)


def _each_once(plans: Sequence[Plan]) -> list[Plan]:
    found: dict[object, Plan] = {}
    for plan in plans:
        found.setdefault((plan.layout, plan.layer_counts), plan)
    return list(found.values())


def _trial(topology: Topology, plan: Plan) -> Trial:
    assert plan.predicted is not None
    measured = run_plan(plan, steps=STEPS, warmup=WARMUP)
    return Trial(
        topology.name, plan.title, plan.predicted.step_seconds, measured.step_seconds.median
    )


@dataclass(frozen=True, slots=True)
class Summary:
    """How well a set of trials was predicted.

    median_error: of absolute errors. best_loss: what the predicted best takes longer than the
    measured best. rank_correlation: Spearman's, of predicted and measured steps.
    """

    name: str
    plans: int
    median_error: float
    best_loss: float
    rank_correlation: float


def summary(name: str, found: Sequence[Trial]) -> Summary:
    """Of the trials of one topology."""
    chosen = min(found, key=lambda trial: trial.predicted)
    fastest = min(trial.measured for trial in found)
    predicted, measured = (
        _ranks([getattr(trial, key) for trial in found]) for key in ("predicted", "measured")
    )
    return Summary(
        name,
        len(found),
        statistics.median(abs(trial.error) for trial in found),
        chosen.measured / fastest - 1,
        statistics.correlation(predicted, measured),
    )


def _ranks(values: Sequence[float]) -> list[float]:
    """The place of every value in their order, the mean place of equal ones."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) - 1) / 2 for value in values]
