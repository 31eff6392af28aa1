"""The exact search against every plan there is, on small questions."""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.estimate import EXACT as SOLVED
from planner.cost.estimate import estimate
from planner.cost.relaxation import least_bytes, least_seconds
from planner.search.exact import rank_exactly
from planner.search.inner.chunked import with_chunks
from planner.search.inner.family import family
from planner.search.inner.stage_tables import modes
from planner.search.outer import space
from planner.search.outer.refined import refined_bound
from planner.search.ranking import NoPlanError
from planner.simulator.replay import replay
from planner.spec.workload import Workload
from tests.cost.drawn import with_experts
from tests.examples import gpt2_like, gpu_cluster, llama_like, plain_runtime

Played = tuple[Candidates, int, float, float]
"""Table, row, step seconds, peak bytes."""

QUESTIONS: list[dict[str, Any]] = [
    {"model": llama_like(layers=3), "devices": 4, "recompute_layers": "same"},
    {"model": gpt2_like(layers=2), "devices": 2, "recompute_layers": "any"},
    {"model": llama_like(layers=4), "devices": 2, "chunks": 2},
    {"model": llama_like(layers=2), "devices": 2, "zero_stages": (0, 1, 2, 3), "hybrid": True},
    {"model": llama_like(layers=4), "devices": 4},
    {"model": llama_like(layers=5), "devices": 4, "recompute_layers": "same"},
    {"model": gpt2_like(layers=3), "devices": 6, "recompute_layers": "any"},
    {"model": llama_like(layers=4), "devices": 4, "zero_stages": (0, 1, 2, 3), "hybrid": True},
    {"model": llama_like(layers=4), "devices": 4, "chunks": 2},
    {"model": with_experts(llama_like(layers=3)), "devices": 4, "experts": True},
]
SMALL = 4
NUMBERS = [
    *range(SMALL),
    *(pytest.param(n, marks=pytest.mark.slow) for n in range(SMALL, len(QUESTIONS))),
]


def asked(
    model: Any,
    devices: int,
    memory: str,
    recompute_layers: str = "all",
    zero_stages: tuple[int, ...] = (0, 1),
    hybrid: bool = False,
    chunks: int = 1,
    experts: bool = False,
) -> Blocks:
    runtime = plain_runtime(
        axes=("tp", "cp", "dp", "pp", *(("ep",) if experts else ())),
        context_styles=("ring", "all_to_all"),
        recompute_layers=recompute_layers,
        zero_stages=zero_stages,
        pipeline_zero_stages=zero_stages,
        hybrid_sharding=hybrid,
        chunks=chunks,
        schedules=("gpipe", "1f1b", *(("interleaved",) if chunks > 1 else ())),
        overlaps_dp=devices == 6,
        straggler_spread=0.01,
        other_axis_orders=(("tp", "cp", "ep", "pp", "dp"),),
    )
    cluster = gpu_cluster(nodes=2, per_node=devices // 2, memory=memory)
    return Blocks(model, cluster, Workload(seq_len=32, global_batch=3 * devices), runtime, None)


def question_of(blocks: Blocks) -> space.Question:
    return space.Question(
        blocks.model, blocks.cluster, blocks.workload, blocks.runtime, blocks.cluster.devices
    )


def compositions(layers: int, parts: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        yield (layers,)
        return
    for first in range(layers + 1):
        yield from ((first, *rest) for rest in compositions(layers - first, parts - 1))


def recomputed(blocks: Blocks, counts: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "none", (0,) * len(counts)
    rule = blocks.runtime.recompute_layers
    for mode in modes(blocks.runtime)[1:]:
        if rule == "all":
            yield mode, counts
        elif rule == "same":
            yield from ((mode, tuple(min(k, n) for n in counts)) for k in range(1, max(counts) + 1))
        else:
            yield from (
                (mode, again) for again in itertools.product(*(range(n + 1) for n in counts))
            )


def every_plan(blocks: Blocks) -> Iterator[Played]:
    """All plans of the space with their replay."""
    for table in space.legal(question_of(blocks)):
        chunked = table.schedule not in SOLVED
        cuts = list(compositions(blocks.model.layers, table.pp))
        if chunked:
            cuts = family(blocks.model.layers, table.pp * table.vpp)
        for row in range(len(table)):
            one = table.take(np.array([row]))
            for counts in cuts:
                for mode, again in recomputed(blocks, counts):
                    plan = with_chunks(blocks, one, counts, mode, again)  # type: ignore[arg-type]
                    made = estimate(blocks, plan)
                    step = replay(blocks, plan, made, 0).step_seconds
                    yield table, row, step, float(made.peak_bytes[0])


@functools.cache
def all_plans(number: int) -> list[Played]:
    return list(every_plan(asked(**QUESTIONS[number], memory="80GiB")))


@pytest.mark.parametrize("number", NUMBERS)
def test_the_search_finds_the_best_plan_of_all(number: int) -> None:
    plans = all_plans(number)
    peaks = np.array([peak for *_, peak in plans])
    steps = np.array([step for _, _, step, _ in plans])
    for share in (0.0, 0.02, 0.3, 1.0):
        limit = float(np.quantile(peaks, share)) if share else peaks.min() * 0.99
        blocks = asked(**QUESTIONS[number], memory=f"{limit * (1 + 1e-9)}B")
        if not share:
            with pytest.raises(NoPlanError, match="device memory is the limit"):
                rank_exactly(blocks, allow_at_risk=True)
            continue
        found = rank_exactly(blocks, allow_at_risk=True)
        best = found.plans[0].predicted
        optimum = steps[peaks <= limit].min()
        assert best is not None
        assert found.lower_bound_seconds is not None
        assert found.lower_bound_seconds <= optimum * (1 + 1e-9)
        assert best.step_seconds <= optimum * (1 + 1e-9 + (found.gap or 0.0))
        if found.gap == 0.0:
            assert best.step_seconds == pytest.approx(optimum, rel=1e-9)
        assert best.peak_bytes <= limit * (1 + 1e-6)
        assert found.outcome is not None
        assert found.outcome.solved[0].value == pytest.approx(best.step_seconds, rel=1e-9)


@pytest.mark.parametrize("number", NUMBERS)
def test_no_cut_beats_the_bounds_of_its_choice(number: int) -> None:
    blocks = asked(**QUESTIONS[number], memory="80GiB")
    fastest: dict[tuple[int, int], float] = {}
    leanest: dict[tuple[int, int], float] = {}
    tables: dict[int, Candidates] = {}
    for table, row, step, peak in all_plans(number):
        key = id(table), row
        tables[id(table)] = table
        fastest[key] = min(step, fastest.get(key, np.inf))
        leanest[key] = min(peak, leanest.get(key, np.inf))
    for number_of, table in tables.items():
        seconds, size = least_seconds(blocks, table), least_bytes(blocks, table)
        for row in range(len(table)):
            assert seconds[row] <= fastest[number_of, row] * (1 + 1e-9)
            assert size[row] <= leanest[number_of, row] * (1 + 1e-9)
        if table.pp > 1 and table.schedule in SOLVED:
            upper = np.array([fastest[number_of, row] * 1.01 for row in range(len(table))])
            bound = refined_bound(blocks, table, blocks.cluster.memory_bytes, upper)
            for row in range(len(table)):
                assert bound[row] <= fastest[number_of, row] * (1 + 1e-9)
