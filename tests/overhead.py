"""What the executor costs over loops written by hand with torch's own parallelism, in one run.

Two ranks train one model on one batch in turn: a step by hand, one by the executor, one by the
executor with a Timeline, in an order that turns from round to round, so that a drift of the machine
meets all of them. Per round r and programme p, w[r, p] is the slowest rank's time of its step:

    overhead        median over r of w[r, executor] / w[r, by hand] - 1
    timeline adds   median over r of w[r, recorded] / w[r, executor] - 1

Each with the interval that holds the true median at 95 %, from signs alone: the k-th and the k-th
last of n ratios, the largest k with P(Binomial(n, 1/2) < k) <= 2.5 %. CPU seconds (of both ranks
and all their threads) are judged the same way: others disturb them less, but waiting costs none.

What a Timeline adds is far below what steps differ by, so its own work is also measured alone: a
recorder and its marks over the actions of the step, many times, with nothing between them. All else
that recording could cost would be the caches that these few thousand instructions disturb.

Memory is measured apart: each programme alone in processes of its own, by how much the most that a
process ever held (ru_maxrss) grew since before the model was built.

    python -m tests.overhead
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing as mp

from executor import data
from executor.apply import apply
from executor.parallel.collectives import barrier
from executor.parallel.mesh import Mesh, make_mesh
from executor.processes.progress import Progress, create
from executor.recorder import Recorder, make_clock
from executor.runner import Runner
from executor.train import resident_bytes
from planner.schedule import lowering
from planner.schedule.action import Action
from planner.spec import printing
from planner.spec.plan import Plan
from profiler.machine import rank_environment
from tests.examples import llama_like
from tests.executor import plans
from tests.executor.by_hand import PROGRAMMES
from tests.executor.plans import LEARNING_RATE, SEED

RANKS = 2
TITLE = "The executor beside loops written by hand, 2 ranks"
KINDS = ("by hand", "executor", "recorded")
ROUNDS, WARMUP, LONE_STEPS, MARKED_STEPS = 30, 3, 4, 1000
CPU = torch.device("cpu")
TIMEOUT = timedelta(seconds=60)
"""How long a rank waits for the other."""
LIMIT_SECONDS = 400.0
"""Of one job, whose ranks are killed then."""
TOKENS, SEQUENCES, MICRO_BATCH = 256, 8, {"dp": 2, "tp": 4}
"""Two microbatches for every rank."""
MODEL = llama_like(
    hidden=256, heads=8, kv_heads=8, head_dim=32, ffn=1024, vocab=4096, max_positions=TOKENS
)
BEYOND = 0.025
"""Chance that the true median lies beyond one end of an interval."""

Step = Callable[[], Any]


class Silent:
    """Observes nothing."""

    def before(self, action: Action) -> None:
        """Nothing."""

    def after(self, action: Action) -> None:
        """Nothing."""


def make_plan(name: str) -> Plan:
    """What the executor does beside a loop by hand."""
    layout = PROGRAMMES[name][1]
    micro_batch = MICRO_BATCH["tp" if "tp" in layout else "dp"]
    plan = plans.make_plan(MODEL, dtype="fp32", micro_batch=micro_batch, **layout)
    work = {"seq_len": TOKENS, "global_batch": SEQUENCES}
    return plan.replace(workload=plan.workload.replace(**work))


def steps(name: str, mesh: Mesh, kinds: Sequence[str], progress: Progress) -> dict[str, Step]:
    """The programmes of one rank; both of the executor share one model."""
    plan = make_plan(name)
    batch = data.microbatches(plan, mesh.place, SEED, 0, CPU)
    made: dict[str, Step] = {}
    if "by hand" in kinds:
        by_hand = PROGRAMMES[name][0](plan, mesh)
        made["by hand"] = lambda: by_hand(batch)
    if "executor" in kinds:
        runner = Runner(plan, mesh, apply(plan, mesh, CPU, SEED, LEARNING_RATE), CPU)
        made["executor"] = lambda: runner.step(batch, Silent())
        made["recorded"] = lambda: _recorded(runner, batch, progress)
    return {kind: made[kind] for kind in kinds}


def _recorded(runner: Runner, batch: data.Microbatches, progress: Progress) -> None:
    """As executor.train's."""
    recorder = Recorder(make_clock(CPU), progress.mark)
    runner.step(batch, recorder)
    recorder.spans()


def recording_seconds(name: str) -> float:
    """CPU seconds per step of a Timeline's own work, without the actions between its marks."""
    plan = make_plan(name)
    layout = plan.layout
    order_of_rank = lowering.lower(layout.schedule, layout.pp, plan.microbatches, layout.vpp)[0]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "progress"
        create(file, 1)
        progress = Progress(file, 0)
        start = time.process_time()
        for _ in range(MARKED_STEPS):
            recorder = Recorder(make_clock(CPU), progress.mark)
            for action in order_of_rank:
                recorder.before(action)
                recorder.after(action)
            recorder.spans()
        return (time.process_time() - start) / MARKED_STEPS


def time_steps(rank: int, folder: str, name: str, rounds: int) -> None:
    """Seconds and CPU seconds, [round, kind], to a file of rank 0."""
    mesh, progress = _join(rank, folder, name)
    made = steps(name, mesh, KINDS, progress)
    for step in made.values():
        for _ in range(WARMUP):
            step()
    seconds = torch.zeros(2, rounds, len(KINDS), dtype=torch.float64)
    for turn in range(rounds):
        for kind in order(turn):
            barrier(mesh.everyone, CPU)
            wall, cpu = time.perf_counter(), time.process_time()
            made[KINDS[kind]]()
            seconds[:, turn, kind] = torch.tensor(
                [time.perf_counter() - wall, time.process_time() - cpu]
            )
    dist.all_reduce(seconds[0], op=dist.ReduceOp.MAX)
    dist.all_reduce(seconds[1])
    _answer(rank, folder, seconds.tolist())


def order(turn: int) -> list[int]:
    """Kinds take turns at the beginning, and go both ways round."""
    kinds = [(turn // 2 + i) % len(KINDS) for i in range(len(KINDS))]
    return kinds[::-1] if turn % 2 else kinds


def hold(rank: int, folder: str, name: str, kind: str) -> None:
    """By how much one programme alone makes a process grow, to a file of rank 0."""
    mesh, progress = _join(rank, folder, name)
    before = resident_bytes()
    made = steps(name, mesh, [kind], progress)
    for _ in range(LONE_STEPS):
        made[kind]()
    grown = torch.tensor(resident_bytes() - before, dtype=torch.float64)
    dist.all_reduce(grown, op=dist.ReduceOp.MAX)
    _answer(rank, folder, grown.item())


def _join(rank: int, folder: str, name: str) -> tuple[Mesh, Progress]:
    torch.set_num_threads(1)
    store = f"file://{Path(folder) / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=RANKS, timeout=TIMEOUT)
    mesh = make_mesh(make_plan(name).layout, rank, "gloo", TIMEOUT)
    assert mesh is not None
    return mesh, Progress(Path(folder) / "progress", rank)


def _answer(rank: int, folder: str, value: Any) -> None:
    if rank == 0:
        (Path(folder) / "answer").write_text(json.dumps(value))
    dist.barrier()


def job(work: Callable[..., None], *args: Any) -> Any:
    """What rank 0 answers. A rank that fails ends the others, and the job by its error."""
    os.environ.update(rank_environment())
    with tempfile.TemporaryDirectory() as folder:
        create(Path(folder) / "progress", RANKS)
        ranks = mp.start_processes(
            work, (folder, *args), nprocs=RANKS, join=False, daemon=True, start_method="spawn"
        )
        try:
            end = time.monotonic() + LIMIT_SECONDS
            while not ranks.join(timeout=1.0):
                if time.monotonic() > end:
                    raise TimeoutError(f"{work.__name__}{args} took over {LIMIT_SECONDS:.0f} s")
        finally:
            for process in ranks.processes:
                process.kill()
        return json.loads((Path(folder) / "answer").read_text())


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, and the ends of the interval that signs allow."""
    found, n = sorted(values), len(values)
    k, below = 0, 0.5**n
    while below <= BEYOND and k < n // 2:
        k += 1
        below += math.comb(n, k) * 0.5**n
    return statistics.median(found), found[max(k - 1, 0)], found[n - max(k, 1)]


def compared(seconds: list[list[float]], above: str, below: str) -> str:
    """How much longer one kind takes than another, round by round."""
    up, down = KINDS.index(above), KINDS.index(below)
    middle, low, high = median_interval([each[up] / each[down] - 1 for each in seconds])
    return f"{middle:+.1%} ({low:+.1%} .. {high:+.1%})"


def rows(names: Sequence[str], rounds: int) -> Iterator[dict[str, Any]]:
    """Two rows per way of dividing: wall and CPU seconds."""
    for name in names:
        marks = recording_seconds(name)
        for clock, seconds in zip(("wall", "CPU"), job(time_steps, name, rounds), strict=True):
            medians = [statistics.median(each) for each in zip(*seconds, strict=True)]
            # both ranks mark at once on one clock, one after another on the other
            share = (marks if clock == "wall" else RANKS * marks) / medians[1]
            yield {
                "by hand": name,
                "clock": clock,
                **{f"{kind}, ms": f"{x * 1e3:.0f}" for kind, x in zip(KINDS, medians, strict=True)},
                "overhead": compared(seconds, "executor", "by hand"),
                "timeline adds": compared(seconds, "recorded", "executor"),
                "its marks alone": f"{share:.3%}",
            }


def memory_rows(names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One row per way of dividing."""
    for name in names:
        grown = {kind: job(hold, name, kind) / 2**20 for kind in KINDS[:2]}
        yield {
            "by hand": name,
            **{f"{kind}, MiB": f"{x:.0f}" for kind, x in grown.items()},
            "more": f"{grown['executor'] / grown['by hand'] - 1:+.1%}",
        }


def show(names: Sequence[str] = tuple(PROGRAMMES), rounds: int = ROUNDS) -> None:
    """Measure and print both tables."""
    printing.print_table(list(rows(names, rounds)), TITLE)
    printing.print_table(list(memory_rows(names)), "Memory of the same, growth of a process")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(PROGRAMMES))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    show(given.only or tuple(PROGRAMMES), given.rounds)
