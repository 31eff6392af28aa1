"""The search: proven by its bound, monotone in memory, clear when nothing fits."""

import dataclasses
import re

import numpy as np
import pytest

from planner.cost.blocks import Blocks
from planner.cost.estimate import estimate
from planner.search import exact, optimum, planning, ranking, told_layout
from planner.search.outer.relaxed_space import Space, relaxed_space
from planner.search.outer.terms import Terms
from planner.search.ranking import OutOfTimeError
from planner.search.tabulated import space as tabulated_space
from planner.search.wishes import Wishes
from planner.simulator.replay import replay
from planner.spec.documents import InputError
from planner.spec.workload import Workload
from tests.examples import blocks, cpu_cluster, gpt2_like, gpu_cluster, llama_like


@pytest.mark.parametrize("model", [llama_like(layers=6), gpt2_like(layers=3)])
def test_the_best_is_the_best_of_all_replays(model) -> None:  # type: ignore[no-untyped-def]
    """Oracle: replay every fitting row of the space."""
    asked = blocks(model, gpu_cluster(per_node=4), Workload(seq_len=32, global_batch=8))
    steps = []
    for table in tabulated_space.legal(
        asked.model, asked.cluster, asked.workload, asked.runtime, 4
    ):
        estimates = estimate(asked, table)
        steps += [replay(asked, table, estimates, row).step_seconds for row in range(len(table))]
    ranked = optimum.rank(asked)
    assert ranked.plans[0].predicted is not None
    # the exact search has cuts that the table has not
    assert ranked.plans[0].predicted.step_seconds <= min(steps) * (1 + 1e-9)
    assert ranked.proven
    assert ranked.gap == 0.0


def test_a_time_limit_leaves_an_honest_gap() -> None:
    asked = blocks(llama_like(layers=8), gpu_cluster(nodes=4))
    full = optimum.rank(asked, top_k=1)
    cut = optimum.rank(asked, top_k=1, wishes=Wishes(time_limit_seconds=0.0))
    assert full.outcome is not None
    assert cut.outcome is not None
    assert not full.outcome.tally.stopped
    assert cut.outcome.tally.stopped
    best, early = full.plans[0].predicted, cut.plans[0].predicted
    assert best is not None
    assert early is not None
    assert cut.lower_bound_seconds is not None
    assert cut.lower_bound_seconds <= best.step_seconds * (1 + 1e-12)
    assert early.step_seconds >= best.step_seconds * (1 - 1e-12)


def test_a_time_limit_before_the_first_plan_claims_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(asked: Blocks, terms: Terms) -> Space:
        return dataclasses.replace(relaxed_space(asked, terms), known=np.inf)

    monkeypatch.setattr(exact, "relaxed_space", unknown)
    asked = blocks(llama_like(layers=8), gpu_cluster(nodes=4))
    with pytest.raises(OutOfTimeError, match=r"within --time-limit 0: \d+ of \d+ choices were not"):
        planning.choose(asked, wishes=Wishes(time_limit_seconds=0.0))


def test_no_bound_is_claimed_on_shared_cores() -> None:
    asked = blocks(
        cluster=cpu_cluster(4), workload=Workload(seq_len=32, global_batch=8, dtype="fp32")
    )
    ranked = optimum.rank(asked)
    assert ranked.gap is None
    assert ranked.lower_bound_seconds is None
    assert not ranked.proven


def test_more_memory_never_turns_a_feasible_space_infeasible() -> None:
    sizes = ["0.00002GiB", "0.0001GiB", "0.001GiB", "1GiB"]
    fitting = []
    for size in sizes:
        try:
            fitting.append(optimum.rank(blocks(cluster=gpu_cluster(memory=size))).fitting)
        except ranking.NoPlanError:
            fitting.append(0)
    assert fitting == sorted(fitting)
    assert fitting[0] == 0
    assert fitting[-1] > 0


def test_nothing_fits_names_the_limit_and_what_helps() -> None:
    asked = blocks(cluster=gpu_cluster(memory="10kB"))
    with pytest.raises(ranking.NoPlanError, match="device memory is the limit"):
        optimum.rank(asked)
    with pytest.raises(ranking.NoPlanError, match=r"The closest plan is .*What would help, each"):
        planning.choose(asked)


def test_no_legal_division_names_the_rules() -> None:
    asked = blocks(
        llama_like(layers=1), gpu_cluster(per_node=3), Workload(seq_len=32, global_batch=8)
    )
    with pytest.raises(ranking.NoPlanError, match=r"dp=3 does not divide global_batch=8"):
        optimum.rank(asked)


def test_cost_prefers_fewer_devices() -> None:
    """Speed-up is less than linear here, so one node is cheapest; time uses all devices."""
    asked = blocks(cluster=gpu_cluster(nodes=4))
    by_cost, by_time = (optimum.rank(asked, objective).plans[0] for objective in ("cost", "time"))
    assert by_cost.predicted is not None
    assert by_time.predicted is not None
    assert by_cost.predicted.usd_per_step <= by_time.predicted.usd_per_step
    assert by_cost.layout.devices == 8
    assert by_time.layout.devices == 32


def test_reasons_name_neighbours_with_numbers() -> None:
    asked = blocks(llama_like(layers=8), gpu_cluster(nodes=2))
    _, plans = planning.choose(asked)
    text = "\n".join(plans[0].why)
    assert "The step takes" in text
    assert "The fullest stage holds" in text
    assert re.search(r"takes [\d.]+ (s|ms|us), \+[\d.]+%", text)
    assert plans[0].title not in text


def test_a_prediction_adds_up() -> None:
    for cluster in (gpu_cluster(nodes=2), cpu_cluster(8)):
        dtype = "bf16" if cluster.backend == "nccl" else "fp32"
        asked = blocks(cluster=cluster, workload=Workload(seq_len=32, global_batch=16, dtype=dtype))
        for plan in optimum.rank(asked, top_k=8).plans:
            promised = plan.predicted
            assert promised is not None
            assert sum(promised.breakdown.values()) == pytest.approx(promised.step_seconds)
            assert promised.safe_peak_bytes is not None
            assert promised.run_out_probability is not None
            assert promised.safe_peak_bytes > promised.peak_bytes
            room = promised.capacity_bytes / promised.safe_peak_bytes
            assert (promised.run_out_probability > 0.01) == (room < 1)
            assert sum(promised.memory.values()) == pytest.approx(promised.peak_bytes)
            shares = promised.provenance
            assert shares.measured + shares.fitted + shares.assumed == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("dp=3", "dp\\*micro_batch=3 does not divide global_batch=16"),
        ("tp=16", "needs 16 devices, the cluster has 8"),
        ("tp=8", "tp=8 does not divide kv_heads=4"),
        ("cp=2", "cp=2: runtime 'plain' does not divide over cp"),
        ("zero=3", "zero=3 is not offered by runtime 'plain'"),
        ("pp=2 stages=1,2", "must be 2 numbers"),
        ("dp=two", "dp: 'two'"),
        ("microbatch=2", "did you mean 'micro_batch'"),
        ("dp", "is not key=value"),
    ],
)
def test_an_illegal_layout_is_explained(layout: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        told_layout.plan_of_layout(blocks(), layout)


def test_an_estimate_is_the_plan_of_the_search() -> None:
    asked = blocks()
    best = optimum.rank(asked).plans[0]
    stages = ",".join(map(str, best.layer_counts))
    again = told_layout.plan_of_layout(asked, f"{best.layout} stages={stages}")
    assert again.predicted == best.predicted
