"""Benchmarks, side by side in one run: `make bench`. Seconds are shown, never asserted."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import meshwright as mw
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.estimate import estimate
from planner.cost.pipeline import pipeline_seconds
from planner.cost.relaxation import layer_seconds, least_bytes, relax
from planner.cost.survey import survey
from planner.schedule import lowering
from planner.schedule.orders import orders
from planner.search import question
from planner.search.inner.cut import Inner
from planner.search.inner.integer_programme import Form, Solution, solve
from planner.search.inner.recompute_tables import recompute_tables
from planner.search.inner.stage_tables import modes
from planner.search.outer import space as outer_space
from planner.search.outer.relaxed_space import Choice, Space, relaxed_space
from planner.search.outer.terms import Terms
from planner.search.tabulated import space
from planner.simulator import engine
from planner.simulator.ends import makespan, one_pass, wavefront
from planner.simulator.engine import Task
from planner.simulator.script import compiled, script
from planner.spec import printing
from planner.spec.layout import even_counts
from planner.spec.plan import AT_RISK
from reports.planning.problems import PROBLEMS, effort
from tests import overhead
from tests.simulator.orders import heap_ends


def best_of(work: Callable[[], Any], repeats: int = 3) -> float:
    """The fastest of some runs, in seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def row(what: str, seconds: float, count: float, unit: str) -> dict[str, Any]:
    return {
        "what": what,
        "seconds": f"{seconds:.3f}",
        "rate": f"{count / seconds:,.0f} {unit}/s" if unit else "",
    }


def replays() -> list[dict[str, Any]]:
    """The event engine beside the closed form on one large 1F1B step."""
    stages, m = 16, 256
    grid = lowering.lower("1f1b", stages, m)
    flat = [action for order in grid for action in order]
    made, seconds = script("1f1b", stages, m), np.ones((4, stages))
    tasks = [Task(action.stage, 1.0) for action in flat]
    ones, counts = np.ones((1, stages)), np.array([m])
    closed = best_of(lambda: pipeline_seconds("1f1b", ones, ones, counts, np.zeros(1)))
    return [
        row(
            "build 16 x 256 1F1B",
            best_of(lambda: lowering.lower("1f1b", stages, m)),
            len(flat),
            "actions",
        ),
        row("event engine, 16 x 256", best_of(lambda: engine.run(tasks)), len(flat), "actions"),
        row("replay, 16 x 256", best_of(lambda: makespan(made, seconds)), len(made), "actions"),
        row("closed form, 16 x 256", closed, 1, "plans"),
    ]


def interleaved_replays() -> list[dict[str, Any]]:
    """The same 64 ranks x 8 chunks x 512 microbatches, interleaved, by every evaluator."""
    asked = ("interleaved", 64, 512, 8)
    made = orders.__wrapped__(*asked)
    played = compiled(made)
    table = np.random.default_rng(0).random((1, 4 * played.stages))
    lags = np.full((1, played.stages), 1e-3)
    lags[:, -1] = 0.0
    one = (table, lags, np.zeros((1, played.stages + 1)))
    four = [column.repeat(4, axis=0) for column in one]
    n, latency = len(played), lags[0, :-1].tolist()
    slow = best_of(lambda: heap_ends(made, table.reshape(4, -1), latency), 1)
    return [
        row("orders, 64 x 8 x 512", best_of(lambda: orders.__wrapped__(*asked)), n, "actions"),
        row("script of them", best_of(lambda: compiled(made)), n, "actions"),
        row("wavefront in numpy", best_of(lambda: wavefront(played, *one)), n, "actions"),
        row(
            "wavefront, 4 candidates at once",
            best_of(lambda: wavefront(played, *four)),
            4 * n,
            "actions",
        ),
        row("one pass in Python", best_of(lambda: one_pass(played, *one)), n, "actions"),
        row("heap simulator", slow, n, "actions"),
    ]


def searches() -> list[dict[str, Any]]:
    """Estimates per second, and whole searches."""
    asked = question.ask("gpt3-175b", "a100-80:128", 2048, 1536)
    tables = list(
        space.legal(
            asked.model, asked.cluster, asked.workload, asked.runtime, asked.cluster.devices
        )
    )
    rows = sum(len(table) for table in tables)
    found = [
        row(
            "estimate gpt3-175b on 1024 GPUs",
            best_of(lambda: [estimate(asked, table) for table in tables]),
            rows,
            "plans",
        )
    ]
    for model, cluster, batch in (
        ("llama3.1-8b", "h100-sxm:2", 256),
        ("gpt-1t", "h100-sxm:2048", 16384),
    ):
        seconds = best_of(
            lambda m=model, c=cluster, b=batch: mw.plan(m, c, seq_len=2048, global_batch=b), 1
        )  # type: ignore[misc]
        found.append(row(f"search {model} on {cluster}", seconds, 1, ""))
    return found


Evaluator = Callable[[Blocks, list[Candidates]], Any]


def throughput() -> list[dict[str, Any]]:
    """Layouts per CPU second of every vectorised estimate, over all outer choices of a question."""
    found = []
    for model, cluster, seq_len, batch in (
        ("llama3.1-70b", "h100-sxm:32", 8192, 1024),
        ("gpt-1t", "a100-80:384", 2048, 3072),
    ):
        blocks = question.ask(model, cluster, seq_len, batch)
        parts = blocks.model, blocks.cluster, blocks.workload, blocks.runtime
        bare = list(outer_space.legal(outer_space.Question(*parts, blocks.cluster.devices)))
        cut = [evenly(table, blocks.model.layers) for table in bare]
        rows = sum(map(len, bare))
        stages = sum(len(table) * table.pp for table in cut) / rows
        estimates: list[tuple[str, Evaluator, list[Candidates]]] = [
            (f"estimate, {stages:.0f} stages each, all tables together", survey, cut),
            ("the same, table by table", each(estimate), cut),
            ("bound on the step", each(relax), bare),
            ("bound on the memory", each(least_bytes), bare),
            ("bound by layers alone", each(layer_seconds), bare),
        ]
        for name, work, tables in estimates:
            found.append(row(f"{name}: {model}", cpu_of(work, blocks, tables), rows, "layouts"))
        start = time.process_time()
        relaxed_space(blocks.changed(), Terms(AT_RISK * blocks.cluster.memory_bytes))
        taken = time.process_time() - start
        found.append(row(f"enumerated, costed, bounded: {model}", taken, rows, "layouts"))
    return found


def each(work: Callable[[Blocks, Candidates], Any]) -> Evaluator:
    """Table by table."""
    return lambda blocks, tables: [work(blocks, table) for table in tables]


def cpu_of(work: Evaluator, blocks: Blocks, tables: list[Candidates]) -> float:
    """CPU seconds over all tables, the least of three; what is costed once is costed before."""
    seconds = []
    for _ in range(4):
        start = time.process_time()
        work(blocks, tables)
        seconds.append(time.process_time() - start)
    return min(seconds[1:])


def evenly(table: Candidates, layers: int) -> Candidates:
    """Outer choices cut evenly."""
    counts = np.array([even_counts(layers, table.pp)] * len(table))
    return replace(table, counts=counts, recomputed=np.zeros_like(counts))


def problems() -> list[dict[str, Any]]:
    """The standard problems, each searched in a process of its own."""
    found = []
    for problem in PROBLEMS:
        took = effort(problem)
        found.append(
            {
                "problem": problem.title,
                "CPU s": f"{took.cpu_seconds:.2f}",
                "gap": f"{took.gap:.2%}" + (" (time limit)" if took.stopped else ""),
                "enumerated": f"{took.enumerated:,}",
                "over memory": f"{took.impossible:,}",
                "bounded": f"{took.bounded:,}",
                "solved": f"{took.solved:,}",
                "peak": f"{took.peak_bytes / 2**20:,.0f} MiB",
                "plan": took.plan,
            }
        )
    return found


INNER = ((3, 4), (4, 4), (8, 4), (5, 4), (5, 16), (7, 16))
"""Places in PROBLEMS and depths: an inner problem of each is solved by both programmes."""
LIMIT_SECONDS = 20.0
"""Of one integer programme."""


def by_labels(relaxed: Space, depth: int, blocks: Blocks) -> tuple[Choice, float, float]:
    """The most promising 1f1b choice of a depth that has a plan; its step and the CPU seconds."""
    for place in np.argsort(relaxed.bound, kind="stable").tolist():
        choice = relaxed.choice(place)
        if choice.table.pp != depth or choice.table.schedule != "1f1b":
            continue
        start = time.process_time()
        inner = Inner(blocks, choice.one, relaxed.limit_bytes)
        found = inner.solve(0, np.inf, blocks.model.layers)
        if found.best is not None:
            return choice, found.best.step_seconds, time.process_time() - start
    raise ValueError(f"no plan of {depth} stages")


def by_integers(relaxed: Space, choice: Choice, blocks: Blocks, form: Form) -> tuple[float, str]:
    """The step of the integer programme, and its CPU seconds or why they are none."""
    start, best, layers = time.process_time(), np.inf, blocks.model.layers
    found: list[Solution] = []
    for mode in modes(blocks.runtime):
        tables = recompute_tables(blocks, choice.one, mode, relaxed.limit_bytes, layers)
        rule = blocks.runtime.recompute_layers
        found.append(solve(tables, rule, best, form, LIMIT_SECONDS))
        best = min(best, found[-1].step_seconds)
    cut = " (cut)" if any(each.status == "stopped" for each in found) else ""
    return best, f"{time.process_time() - start:.2f}{cut}"


def inner_problems() -> list[dict[str, Any]]:
    """One outer choice of standard problems by label and by integer programme, tables included."""
    rows = []
    spaces: dict[int, tuple[Blocks, Space]] = {}
    for number, depth in INNER:
        if number not in spaces:
            blocks = PROBLEMS[number].asked()
            limit = AT_RISK * blocks.cluster.memory_bytes
            spaces[number] = blocks, relaxed_space(blocks, Terms(limit))
        blocks, relaxed = spaces[number]
        choice, step, seconds = by_labels(relaxed, depth, blocks)
        forms: tuple[Form, ...] = ("staircase", "events")
        found = {form: by_integers(relaxed, choice, blocks, form) for form in forms}
        m = int(choice.one.microbatches[0])
        rows.append(
            {
                "problem": PROBLEMS[number].title,
                "layers, stages, microbatches": f"{blocks.model.layers}, {depth}, {m}",
                "labels": f"{seconds:.2f}",
                **{form: text for form, (_, text) in found.items()},
                "steps agree to": "; ".join(f"{best / step - 1:.0e}" for best, _ in found.values()),
            }
        )
    return rows


def start_up() -> list[dict[str, Any]]:
    """`meshwright --help` beside a bare interpreter."""
    helps = [sys.executable, "-m", "meshwright", "--help"]
    bare = [sys.executable, "-c", "pass"]
    return [
        row(
            name,
            best_of(lambda c=command: subprocess.run(c, capture_output=True, check=True), 5),
            1,
            "",
        )  # type: ignore[misc]
        for name, command in (("python -c pass", bare), ("meshwright --help", helps))
    ]


if __name__ == "__main__":
    printing.print_table(replays() + interleaved_replays() + searches() + start_up(), "Benchmarks")
    printing.print_table(throughput(), "Layouts per second, one core")
    printing.print_table(inner_problems(), "CPU seconds of an inner problem, two programmes")
    printing.print_table(problems(), "The standard problems")
    overhead.show()
