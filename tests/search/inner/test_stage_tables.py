"""Every entry of the stage tables is the cost of that stage in a whole plan, priced by itself."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.estimate import EXACT as SOLVED
from planner.cost.estimate import wait_share
from planner.cost.memory import stage_memory
from planner.cost.stages import stage_times
from planner.search.inner.recompute_tables import recompute_tables
from planner.search.inner.stage_tables import Way, modes, stage_tables
from planner.spec.runtime import Recompute
from tests.search import brute_force
from tests.search.problems import seeds

Place = tuple[int, int, int]
"""Stage, its first layer, its layers."""
NAMES = ("forward", "backward", "reduce", "update", "peak_bytes")


def around(layers: int, stages: int, place: Place) -> tuple[int, ...]:
    """A cut whose stage i holds exactly those layers; what is left lies beside it."""
    i, u, n = place
    counts = [0] * stages
    counts[i] = n
    if i:
        counts[i - 1] = u
    if i < stages - 1:
        counts[i + 1] = layers - u - n
    return tuple(counts)


def places(layers: int, stages: int) -> list[Place]:
    """Every stage that a cut can have."""
    return [
        (i, u, n)
        for i in range(stages)
        for u in range(1 if i == 0 else layers + 1)
        for n in range(layers - u + 1)
        if i < stages - 1 or u + n == layers
    ]


def prices(
    blocks: Blocks, one: Candidates, mode: Recompute, asked: list[tuple[Place, int]]
) -> dict[str, np.ndarray]:
    """Seconds and bytes of stages with so many layers that recompute, [asked] each."""
    plans = []
    for place, again in asked:
        counts = around(blocks.model.layers, one.pp, place)
        plans.append((counts, mode, tuple(again * (i == place[0]) for i in range(one.pp))))
    table = brute_force.whole_plans(blocks, one, mode, plans)
    tables = BlockTables(blocks, table)
    times, rank = stage_times(tables), np.array([place[0] for place, _ in asked])
    at = np.arange(len(asked)), rank
    hop, later = times.hop, 1 + wait_share(blocks, table)
    return {
        "forward": (times.forward[at] + hop * (rank > 0)) * later,
        "backward": (times.backward[at] + hop * (rank < one.pp - 1)) * later,
        "reduce": times.reduce[at] * later,
        "update": times.optimizer[at],
        "peak_bytes": stage_memory(tables).total[at],
    }


def check(seed: int, share: float) -> None:
    blocks = brute_force.drawn(seed)
    rows = [
        one
        for one in brute_force.outer_choices(blocks)
        if one.pp > 1 and one.vpp == 1 and one.schedule in SOLVED
    ]
    assume(rows)
    one, layers = rows[seed % len(rows)], blocks.model.layers
    for mode in modes(blocks.runtime):
        asked = [
            (place, again)
            for place in places(layers, one.pp)
            for again in range(1 if mode == "none" else place[2] + 1)
        ]
        priced = prices(blocks, one, mode, asked)
        limit = float(np.quantile(priced["peak_bytes"], share)) * (1 + 1e-9)
        check_all(blocks, one, mode, limit, asked, priced)
        check_cheapest(blocks, one, mode, limit, asked, priced)


def check_all(
    blocks: Blocks,
    one: Candidates,
    mode: Recompute,
    limit: float,
    asked: list[tuple[Place, int]],
    priced: dict[str, np.ndarray],
) -> None:
    """Recompute tables hold each of them, and infinity where more recompute than are there."""
    tables = recompute_tables(blocks, one, mode, limit, blocks.model.layers)
    kinds = tables.forward.shape[1] > 1
    for name in NAMES:
        table = getattr(tables, name)
        found = [table[i, u if kinds else 0, n, again] for (i, u, n), again in asked]
        assert found == pytest.approx(priced[name], rel=1e-9, abs=1e-15)
        assert np.isinf(table[:, :, 0, 1:]).all()


def check_cheapest(
    blocks: Blocks,
    one: Candidates,
    mode: Recompute,
    limit: float,
    asked: list[tuple[Place, int]],
    priced: dict[str, np.ndarray],
) -> None:
    """Stage tables hold the cheapest that fits, and infinity exactly where none does."""
    fewest = stage_tables(blocks, one, Way(mode, None), limit, blocks.model.layers)
    one_each = stage_tables(blocks, one, Way(mode, 1), limit, blocks.model.layers)
    kinds, rows = len(blocks.kinds) > 1, np.array([place for place, _ in asked])
    found = {name: fewest.spread(name, 0) for name in (*NAMES[:-1], "again")}
    single_backward = one_each.spread("backward", 0)
    again = np.array([number for _, number in asked])
    fits = priced["peak_bytes"] <= limit
    for place in dict.fromkeys(map(tuple, rows.tolist())):
        i, u, n = place
        at = (i, u if kinds else 0, n)
        own = (rows == place).all(axis=1)
        backward = priced["backward"][own & fits].min(initial=np.inf)
        assert found["backward"][at] == pytest.approx(backward, rel=1e-9)
        if np.isfinite(backward):
            chosen = own & (again == found["again"][at])
            assert fits[chosen].all()
            for name in ("forward", "reduce", "update"):
                assert found[name][at] == pytest.approx(
                    priced[name][chosen][0], rel=1e-9, abs=1e-15
                )
        single = own & (again == min(n, 1 if mode != "none" else 0))
        least = priced["backward"][single & fits].min(initial=np.inf)
        assert single_backward[at] == pytest.approx(least, rel=1e-9)


@settings(max_examples=15)
@given(seeds, st.sampled_from([0.1, 0.4, 0.8, 1.0]))
def test_an_entry_is_the_price_of_its_stage(seed: int, share: float) -> None:
    check(seed, share)


@pytest.mark.slow
@settings(max_examples=400)
@given(seeds, st.sampled_from([0.1, 0.4, 0.8, 1.0]))
def test_an_entry_is_the_price_of_its_stage_in_many_cases(seed: int, share: float) -> None:
    check(seed, share)
