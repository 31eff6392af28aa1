"""Sequences cut over ranks, in every style: the same training as in one process."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from executor.parallel import flash
from executor.sequence_cut import SequenceCut, cut_of
from planner.spec.layout import Layout
from tests.executor.plans import GLOBAL_BATCH, make_plan
from tests.executor.pool import Pool
from tests.executor.test_equality import check, micro_batch_of, name_of

STYLES = ("ring", "all_gather", "all_to_all")
BACKWARDS = "dp-cp-tp-ep-pp"
CASES = [
    ("gpt2", "ring", {"cp": 4, "recompute": "selective"}),
    ("gpt2", "ring", {"cp": 2, "tp": 2, "dp": 2, "zero": 1, "recompute": "full"}),
    ("llama", "ring", {"cp": 2, "pp": 2, "tp": 2, "axis_order": "cp-tp-ep-pp-dp"}),
    ("llama", "all_gather", {"cp": 4, "tp": 2, "recompute": "selective"}),
    ("gpt2", "all_to_all", {"cp": 4, "pp": 2}),
    ("llama", "all_to_all", {"cp": 2, "tp": 2, "dp": 2, "zero": 3, "recompute": "selective"}),
]
MORE = [
    ("llama", "ring", {"cp": 8}),
    ("gpt2", "all_gather", {"cp": 2, "dp": 2, "zero": 1}),
    ("llama", "all_to_all", {"cp": 2, "pp": 2, "vpp": 2, "schedule": "zbv", "recompute": "full"}),
    (
        "gpt2",
        "ring",
        {"cp": 2, "dp": 2, "pp": 2, "schedule": "zb-h1", "axis_order": BACKWARDS},
    ),
]
"""Slow."""


def params(cases: list[Any], *marks: Any) -> list[Any]:
    return [
        pytest.param(*case, id=f"{case[0]}-{case[1]}-{name_of(case[2])}", marks=marks)
        for case in cases
    ]


def compare(pool: Pool, name: str, style: str, layout: dict[str, Any]) -> None:
    fewest = 2 * layout.get("pp", 1)
    micro_batch = micro_batch_of(GLOBAL_BATCH // layout.get("dp", 1), fewest)
    check(pool, name, make_plan(name, cp_style=style, micro_batch=micro_batch, **layout))


@pytest.mark.parametrize(
    ("name", "style", "layout"), params(CASES) + params(MORE, pytest.mark.slow)
)
def test_cut_sequences_equal_single_process(
    pool: Pool, name: str, style: str, layout: dict[str, Any]
) -> None:
    compare(pool, name, style, layout)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("zero", [0, 1])
@pytest.mark.parametrize(
    "degrees", [(c, t, p, d) for c in (2, 4) for t, p, d in ((1, 1, 2), (2, 1, 1), (1, 2, 1))]
)
def test_every_style_with_every_axis(
    pool: Pool, name: str, style: str, recompute: str, zero: int, degrees: tuple[int, ...]
) -> None:
    layout = dict(zip(("cp", "tp", "pp", "dp"), degrees, strict=True))
    if style == "all_to_all" and layout["cp"] * layout["tp"] > 4:  # kv heads
        layout["cp"] = 2
    compare(pool, name, style, layout | {"zero": zero, "recompute": recompute})


@given(ranks=st.integers(1, 5), chunk=st.integers(1, 3), style=st.sampled_from(STYLES))
def test_cuts_of_all_ranks_are_the_sequence(ranks: int, chunk: int, style: Any) -> None:
    layout, seq_len = Layout(cp=ranks, cp_style=style), 2 * ranks * chunk
    tokens = torch.arange(2 * seq_len).view(2, seq_len)
    cuts = [cut_of(layout, seq_len, rank) for rank in range(ranks)]
    assert sorted(p for cut in cuts for p in cut.positions().tolist()) == list(range(seq_len))
    for cut in cuts:
        assert torch.equal(cut.of(tokens), tokens[:, cut.positions()])
        assert torch.equal(cut.positions(), cut.positions().sort().values)


@given(ranks=st.integers(2, 6), chunk=st.integers(1, 4))
def test_halves_give_every_rank_as_many_pairs(ranks: int, chunk: int) -> None:
    seq_len = 2 * ranks * chunk
    seen = {
        int((SequenceCut(seq_len, rank, ranks, halves=True).positions() + 1).sum())
        for rank in range(ranks)
    }
    assert len(seen) == 1


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_written_out_attention_is_the_kernel(causal: bool, kv_heads: int) -> None:
    """What runs in fp32 on CUDA, beside the CPU's kernel."""
    generator = torch.Generator().manual_seed(0)
    q, grad = torch.randn(2, 2, 4, 6, 8, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, 2, kv_heads, 6, 8, generator=generator, dtype=torch.float64)
    output, lse = flash.forward(q, k, v, causal)
    for found, expected in zip(flash._forward(q, k, v, causal), (output, lse), strict=True):
        assert torch.allclose(found, expected, rtol=1e-12)
    again = (grad, q, k, v, output, lse, causal)
    for found, expected in zip(flash._backward(*again), flash.backward(*again), strict=True):
        assert torch.allclose(found, expected, rtol=1e-10)
