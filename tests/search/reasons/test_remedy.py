"""Where nothing fits: the least memory against every plan there is, and remedies that hold."""

import numpy as np
import pytest

from planner.cost.blocks import Blocks
from planner.search import planning
from planner.search.exact import rank_exactly
from planner.search.outer.terms import Terms
from planner.search.ranking import NoPlanError
from planner.search.reasons.remedy import Remedy, remedies
from planner.search.wishes import Wishes
from planner.spec.workload import Workload
from tests.examples import blocks, gpu_cluster, llama_like, plain_runtime
from tests.search import brute_force

WIDE = llama_like(layers=2, vocab=32_000, hidden=512, heads=4, kv_heads=4, head_dim=128, ffn=512)


def check_least(seed: int) -> None:
    asked = brute_force.drawn(seed)
    peaks = [
        brute_force.play(asked, one).peak_bytes.min() for one in brute_force.outer_choices(asked)
    ]
    if not peaks:
        return
    least = float(min(peaks))
    limit = 0.7 * least
    with pytest.raises(NoPlanError):
        rank_exactly(brute_force.with_memory(asked, limit))
    found = {each.kind: each for each in remedies(asked, Terms(limit))}
    promised = found["memory"].plan.predicted
    assert promised is not None
    assert least * (1 - 1e-9) <= promised.peak_bytes <= least * 1.011


@pytest.mark.parametrize("seed", range(2))
def test_the_closest_plan_needs_the_least_memory_of_all(seed: int) -> None:
    check_least(seed)


@pytest.mark.slow
def test_the_closest_plan_needs_the_least_memory_of_all_in_many_cases() -> None:
    for seed in range(400, 460):
        check_least(seed)


def asked(nodes: int = 2, seq: int = 64, batch: int = 32) -> Blocks:
    work = Workload(seq_len=seq, global_batch=batch)
    return blocks(WIDE, gpu_cluster(nodes, 4), work, plain_runtime())


def by_kind(question: Blocks, terms: Terms) -> dict[str, Remedy]:
    found = list(remedies(question, terms))
    for each in found:
        assert each.plan.predicted is not None
        if each.kind != "memory":
            assert each.plan.predicted.peak_bytes <= terms.limit_bytes
    return {each.kind: each for each in found}


def test_every_remedy_is_the_smallest_of_its_kind() -> None:
    least = next(remedies(asked(), Terms(1e6))).plan.predicted
    assert least is not None
    limit = f"{0.9 * least.peak_bytes:.0f}B"
    found = by_kind(asked(), Terms(0.9 * least.peak_bytes))
    assert {"memory", "nodes"} <= set(found)
    tight = Wishes.of(memory_limit=limit)
    nodes = found["nodes"].plan.cluster.nodes
    for fewer in range(2, nodes):
        with pytest.raises(NoPlanError):
            rank_exactly(asked(nodes=fewer), wishes=tight)
    assert rank_exactly(asked(nodes=nodes), wishes=tight).plans


def test_a_wish_that_stands_in_the_way_is_named() -> None:
    best = rank_exactly(asked()).plans[0].predicted
    assert best is not None
    wishes = Wishes.of(fix=("tp=1", "pp=1"), forbid=("zero=1",))
    limit = 0.5 * _least(asked(), wishes)
    named = {each.what for each in remedies(asked(), Terms(limit, wishes=wishes))}
    lifted = {what for what in named if what.startswith("no --")}
    for wish in wishes.choices:
        without = Wishes(choices=tuple(w for w in wishes.choices if w != wish))
        option = f"no {'--fix' if wish.wanted else '--forbid'} {wish.text}"
        assert (option in lifted) == (_least(asked(), without) <= limit)


def _least(question: Blocks, wishes: Wishes) -> float:
    found = [
        brute_force.play(question, one).peak_bytes.min()
        for one in brute_force.outer_choices(question)
        if wishes.keep(one).all()
    ]
    return float(np.min(found))


def test_the_message_says_which_stage_breaks_and_what_helps() -> None:
    tight = brute_force.with_memory(asked(), 3e7)
    with pytest.raises(NoPlanError) as caught:
        planning.choose(tight)
    text = str(caught.value)
    assert "stage" in text
    assert "too much" in text
    assert "of memory per device (no plan fits in" in text
