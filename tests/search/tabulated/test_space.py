"""The legal space: exactly the divisions that the rules allow."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.cost.estimate import estimate
from planner.search.tabulated import space
from planner.spec.workload import Workload
from tests.examples import blocks, llama_like


@given(st.integers(1, 40), st.integers(1, 12))
def test_partitions_hold_all_layers_and_contain_the_even_split(layers: int, pp: int) -> None:
    if pp > layers:
        return
    splits = space.partitions(layers, pp)
    assert (splits.sum(axis=1) == layers).all()
    assert (splits >= 0).all()
    assert (splits.max(axis=1) - splits.min(axis=1)).min() <= 1
    assert len(np.unique(splits, axis=0)) == len(splits)


@pytest.mark.parametrize("pp", [2, 3, 4])
def test_no_composition_beats_the_partitions_that_are_tried(pp: int) -> None:
    """Oracle: every composition of 8 layers into pp stages, costed by the same estimate."""
    asked = blocks(llama_like(layers=8, vocab=4096))
    table = next(
        t
        for t in space.legal(asked.model, asked.cluster, asked.workload, asked.runtime, pp)
        if t.pp == pp and t.recompute == "none"
    )
    row = table.take(np.array([0]))
    every = [
        c for c in itertools.product(range(9), repeat=pp) if sum(c) == 8 and min(c[1:-1], default=1)
    ]
    counts = np.array(every, dtype=np.int64)
    many = row.take(np.zeros(len(counts), dtype=np.int64))
    oracle = type(many)(
        **{
            f: getattr(many, f)
            for f in many.__dataclass_fields__
            if f not in ("counts", "recomputed")
        },
        counts=counts,
        recomputed=np.zeros_like(counts),
    )
    tried = table.take(
        (table.dp == row.dp)
        & (table.tp == row.tp)
        & (table.micro_batch == row.micro_batch)
        & (table.zero == row.zero)
    )
    best = estimate(asked, tried).bound_seconds.min()
    assert best == pytest.approx(estimate(asked, oracle).bound_seconds.min(), rel=1e-12)


def test_every_row_is_legal() -> None:
    asked = blocks(llama_like(layers=6), workload=Workload(seq_len=32, global_batch=24))
    seen = 0
    for table in space.legal(asked.model, asked.cluster, asked.workload, asked.runtime, 8):
        seen += len(table)
        assert (table.dp * table.tp * table.pp == 8).all()
        assert (table.dp * table.micro_batch * table.microbatches == 24).all()
        assert (asked.model.layer.attention.kv_heads % table.tp == 0).all()
        assert ((table.zero == 0) | (table.dp > 1)).all()
        assert (table.counts.sum(axis=1) == 6).all()
    assert seen > 100
