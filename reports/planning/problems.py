"""Problems: the standard questions that a search is timed on, and what one search takes.

Each is searched in a process of its own, so that its peak memory is its own; the interpreter and
the imported modules are in it (`base_bytes` tells how much). Seconds are CPU seconds of the search
alone, without reading the question and without the reasons.
"""

import multiprocessing
import resource
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from planner.cost.blocks import Blocks
from planner.search.optimum import rank
from planner.search.question import ask
from planner.search.ranking import NoPlanError
from planner.search.scaling import resized
from planner.search.wishes import Wishes
from planner.spec import catalog
from planner.spec.model import ModelSpec

TIME_LIMIT_SECONDS = 60.0
"""CPU seconds after which a search stops with what it has."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A question. devices: of the cluster's first node alone, None for all."""

    model: str | ModelSpec
    cluster: str
    seq_len: int
    global_batch: int
    memory_limit: str | None = None
    devices: int | None = None

    @property
    def title(self) -> str:
        """The question in words."""
        name = self.model if isinstance(self.model, str) else self.model.name
        devices = self.devices or catalog.find_cluster(self.cluster).devices
        memory = f", {self.memory_limit}" if self.memory_limit else ""
        device = self.cluster.partition(":")[0]
        work = f"batch {self.global_batch:,}, seq {self.seq_len:,}"
        return f"{name}, {devices:,} {device}{memory}, {work}"

    def asked(self) -> Blocks:
        """The question with its calibration."""
        cluster = catalog.find_cluster(self.cluster)
        if self.devices is not None:
            cluster = resized(cluster, self.devices)
        return ask(self.model, cluster, self.seq_len, self.global_batch)


PROBLEMS = (
    Problem("llama2-7b", "a100-80:1", 2048, 64, memory_limit="38GB"),
    Problem("llama2-7b", "a100-80:1", 2048, 64, memory_limit="80GB"),
    Problem("gpt3-1.3b", "v100-16:1", 2048, 512, devices=4),
    Problem("gpt3-1.3b", "v100-16:1", 2048, 512),
    Problem("llama3.1-8b", "h100-sxm:8", 8192, 1024),
    Problem("llama3.1-70b", "h100-sxm:32", 8192, 1024),
    Problem("llama3.1-405b", "h100-sxm:2048", 8192, 2048),
    Problem("gpt-1t", "a100-80:384", 2048, 3072),
    Problem("mixtral-8x7b", "h100-sxm:8", 4096, 1024),
    Problem("deepseek-v3", "h100-sxm:256", 4096, 15360),
)


@dataclass(frozen=True, slots=True)
class Effort:
    """What one search took and found. plan: empty where none fits."""

    cpu_seconds: float
    peak_bytes: float
    base_bytes: float
    plan: str = ""
    step_seconds: float = 0.0
    gap: float = 0.0
    enumerated: int = 0
    impossible: int = 0
    bounded: int = 0
    solved: int = 0
    stopped: bool = False


def effort(problem: Problem) -> Effort:
    """One search in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_search, problem).result()


def _search(problem: Problem) -> Effort:
    asked, base = problem.asked(), _peak_bytes()
    wishes = Wishes(memory_limit=problem.memory_limit, time_limit_seconds=TIME_LIMIT_SECONDS)
    try:
        found = rank(asked, top_k=1, wishes=wishes)
    except NoPlanError:
        return Effort(0.0, _peak_bytes(), base)
    best, outcome = found.plans[0], found.outcome
    assert best.predicted is not None
    assert outcome is not None
    tally = outcome.tally
    return Effort(
        cpu_seconds=found.cpu_seconds,
        peak_bytes=_peak_bytes(),
        base_bytes=base,
        plan=best.title,
        step_seconds=best.predicted.step_seconds,
        gap=found.gap or 0.0,
        enumerated=tally.enumerated,
        impossible=tally.impossible,
        bounded=tally.bounded,
        solved=tally.solved,
        stopped=tally.stopped,
    )


def _peak_bytes() -> float:
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
