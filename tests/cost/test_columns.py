"""Many divisions at once cost what each costs alone."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.cost.blocks import NUMBERS, Blocks
from planner.cost.column import MixedError, column, larger, smaller
from planner.cost.divisions import Division, Divisions
from planner.spec import catalog
from planner.spec.model import ModelSpec
from planner.spec.workload import Workload
from tests.cost.drawn import runtimes, wide, with_experts
from tests.examples import gpt2_like, gpu_cluster, llama_like

DRAWN = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def latent() -> ModelSpec:
    """Dense and expert layers with latent attention."""
    return catalog.find_model("deepseek-v3")


MODELS = [gpt2_like(layers=2), wide(), with_experts(llama_like(layers=2)), latent()]


@st.composite
def divisions(draw: st.DrawFn, experts: bool) -> Divisions:
    """Rows of Division's fields that every model here can be divided into."""
    powers = st.sampled_from([1, 2, 4])
    rows = []
    for _ in range(draw(st.integers(1, 12))):
        tp, cp, ep = draw(powers), draw(powers), draw(powers) if experts else 1
        etp = draw(st.sampled_from([1, 2])) if experts else 1
        sizes = {
            "tp": tp,
            "micro_batch": draw(st.integers(1, 9)),
            "stride": draw(st.sampled_from([1, 4])),
            "groups": 1,
            "cp": cp,
            "ep": ep,
            "cp_stride": tp,
            "ep_stride": etp,
            "etp": etp,
            "cp_style": draw(st.sampled_from([0, 2])) if cp > 1 else 0,
        }
        rows.append([sizes[name] for name in Division._fields])
    return Divisions(np.unique(np.array(rows, dtype=np.int64), axis=0))


@DRAWN
@given(st.sampled_from(MODELS), runtimes(), st.data())
def test_a_column_of_divisions_costs_what_each_costs(
    model: ModelSpec, runtime: object, data: st.DataObject
) -> None:
    experts = any(k.feed_forward.__class__.__name__ == "Experts" for k in model.main.kinds)
    if experts:
        runtime = runtime.replace(sequence_parallel=True)  # type: ignore[attr-defined]
    drawn = data.draw(divisions(experts))
    work = Workload(seq_len=64, global_batch=64)
    blocks = Blocks(model, gpu_cluster(nodes=8), work, runtime, None)  # type: ignore[arg-type]
    blocks.many = 1
    for block in (*blocks.kinds, "embedding", "head"):
        for name in NUMBERS:
            together = blocks.costs(block, drawn, name)  # type: ignore[arg-type]
            alone = [
                getattr(blocks.cost(block, drawn.one(row)), name)  # type: ignore[arg-type]
                for row in range(len(drawn.rows))
            ]
            assert together == pytest.approx(alone, rel=1e-12, abs=1e-18), (block, name)


def test_a_column_is_one_number_or_none() -> None:
    few, many = column(np.array([1, 2])), column(np.array([8, 9]))
    assert few < many
    assert not few >= many
    assert list(larger(few, 2)) == [2, 2]
    assert list(smaller(many, 8)) == [8, 8]
    with pytest.raises(MixedError):
        bool(few > 1)
