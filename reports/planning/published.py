"""Published: layouts that people tuned by hand, beside what the search finds for the same question.

A configuration is a question (model, devices, batch, sequence, dtype, runtime) with a layout. Its
measured steps may be several (two releases of one software). Both steps, the published layout's
and the found plan's, are replays under the row's own runtime and calibration, so

    gain = published / found - 1

is a claim of the cost model: it says nothing that the model does not know.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from planner.calibration.case_tables import problem
from planner.calibration.chosen import chosen_calibration
from planner.cost.blocks import Blocks
from planner.cost.stage_split import usual_counts
from planner.search.legality import mesh_problems, runtime_problems
from planner.search.optimum import rank
from planner.search.ranking import Ranking
from planner.search.wishes import Wishes
from planner.simulator.prediction import predict
from planner.spec import catalog
from planner.spec.calibration import calibrate
from planner.spec.layout import make_stages
from planner.spec.plan import Plan
from planner.spec.runs.case import Case, make_cases
from planner.spec.runs.run import read_runs
from planner.spec.version import VERSION

FILES = ("megatron_sc21_table1", "nemo_2407")
FINE_TUNED = r"\bsft\b|\blora\b|\bpeft\b"
FINE_TUNING = "fine-tuning on packed sequences, not a step of the model's full sequence"


@dataclass(frozen=True, slots=True)
class Configuration:
    """One case, and every step that was measured with the same question and layout."""

    case: Case
    measured_seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """A configuration with its estimate and what the search found.

    outside: why the search could not have found the published layout; empty if it could.
    """

    configuration: Configuration
    blocks: Blocks
    published: Plan
    ranking: Ranking
    outside: tuple[str, ...]

    @property
    def found(self) -> Plan:
        """The best plan."""
        return self.ranking.plans[0]

    @property
    def gain(self) -> float:
        """published / found - 1, both predicted."""
        assert self.published.predicted is not None
        assert self.found.predicted is not None
        return self.published.predicted.step_seconds / self.found.predicted.step_seconds - 1

    @property
    def same(self) -> bool:
        """Whether the published plan was found."""
        ours, theirs = self.found, self.published
        return (ours.layout, ours.layer_counts) == (theirs.layout, theirs.layer_counts)


def configurations(
    files: Iterable[str] = FILES,
) -> tuple[list[Configuration], Mapping[str, int]]:
    """Every pre-training configuration of the catalog's files; rows left out, by reason."""
    runs = [run for name in files for run in read_runs(catalog.FOLDER / "runs" / f"{name}.csv")]
    tuned = [run for run in runs if re.search(FINE_TUNED, (run.model or "").lower())]
    made = make_cases(run for run in runs if run not in tuned)
    skipped = Counter(made.skipped) + Counter({FINE_TUNING: len(tuned)})
    alike: dict[tuple[object, ...], list[Case]] = {}
    for case in made.cases:
        if (reason := problem(case)) is not None:
            skipped[reason] += 1
            continue
        key = (case.run.file, case.run.model, case.run.n_gpus, case.workload, case.layout)
        alike.setdefault(key, []).append(case)
    found = [
        Configuration(cases[0], tuple(c.step_seconds for c in cases if c.step_seconds))
        for cases in alike.values()
    ]
    return found, dict(skipped)


def compared(configuration: Configuration, time_limit_seconds: float | None = None) -> Compared:
    """The published layout predicted, and the search of its question."""
    blocks = blocks_of(configuration.case)
    published = published_plan(blocks, configuration.case)
    wishes = Wishes(time_limit_seconds=time_limit_seconds)
    ranking = rank(blocks, top_k=1, wishes=wishes)
    return Compared(configuration, blocks, published, ranking, tuple(_outside(blocks, published)))


def blocks_of(case: Case) -> Blocks:
    """The question of a case, with the calibration of its device and runtime."""
    cluster, runtime = case.cluster, case.runtime
    calibration = chosen_calibration(None, cluster, runtime)
    if calibration is not None:
        cluster, runtime = calibrate(calibration, cluster, runtime)
    return Blocks(case.model, cluster, case.workload, runtime, None, calibration=calibration)


def published_plan(blocks: Blocks, case: Case) -> Plan:
    """The layout of a case as its runtime cuts it, predicted by replay."""
    layout = case.layout
    if layout.vpp > 1:
        layout = layout.replace(schedule="interleaved")
    counts = usual_counts(case.model, case.runtime, layout.pp * layout.vpp)
    plan = Plan(
        model=blocks.model,
        cluster=blocks.cluster,
        workload=blocks.workload,
        runtime=blocks.runtime,
        profile=None,
        calibration=blocks.calibration,
        layout=layout,
        stages=make_stages(layout, counts),
        version=VERSION,
    )
    return plan.replace(predicted=predict(blocks, plan))


def _outside(blocks: Blocks, plan: Plan) -> Iterable[str]:
    layout, runtime = plan.layout, blocks.runtime
    assert plan.predicted is not None
    yield from mesh_problems(blocks.model, blocks.workload, runtime, layout)
    yield from runtime_problems(runtime, layout)
    if plan.predicted.at_risk:
        yield f"its predicted peak is at risk, {plan.predicted.peak_bytes / 2**30:.0f} GiB"
