"""Laws of memory: monotone in what is asked, and every trait moves its own term."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.memory import StageMemory, stage_memory
from planner.cost.pipeline import in_flight
from planner.cost.stages import stage_parameters
from planner.ledger.messages import predicted_ledger
from planner.schedule.orders import SPLIT
from planner.search import told_layout
from planner.spec import catalog
from planner.spec.workload import Workload
from tests.cost.drawn import (
    SEQ,
    again,
    asked,
    one_row,
    questions,
    replaced,
    wide,
    with_experts,
    with_traits,
)
from tests.examples import gpu_cluster, plain_runtime

DRAWN = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
Question = tuple[Blocks, Candidates]
SLACK = 1 + 1e-12
STATES = ("weights", "gradients", "optimizer")


def memory_of(blocks: Blocks, table: Candidates) -> StageMemory:
    return stage_memory(BlockTables(blocks, table))


def others_alike(one: StageMemory, other: StageMemory, *but: str) -> None:
    """Only the named purposes (and the slack on all of them) may differ."""
    for name in set(StageMemory.PURPOSES) - {*but, "runtime"}:
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-12), name


@DRAWN
@given(questions())
def test_larger_microbatches_never_hold_less(question: Question) -> None:
    """At the same number of microbatches: every sequence more keeps its activations."""
    blocks, table = question
    larger = replaced(table, micro_batch=2 * table.micro_batch)
    before, after = memory_of(blocks, table), memory_of(blocks, larger)
    for name in StageMemory.PURPOSES:
        assert (getattr(after, name) >= getattr(before, name)).all(), name
    assert (after.total > before.total).any()


@DRAWN
@given(questions())
def test_more_microbatches_never_hold_less(question: Question) -> None:
    blocks, table = question
    more = replaced(table, microbatches=2 * table.microbatches)
    before, after = memory_of(blocks, table), memory_of(blocks, more)
    assert (after.total >= before.total).all()
    if table.schedule == "1f1b" and table.microbatches.min() >= 2 * table.pp:
        # but for the step's own tokens
        assert np.array_equal(after.activations, before.activations)
        tokens = table.microbatches * table.micro_batch * blocks.workload.seq_len / table.cp
        indices = (len(blocks.model.stacks) + 1) * 8 * tokens[:, None]
        assert after.buffers - before.buffers == pytest.approx(np.repeat(indices, table.pp, 1))


@DRAWN
@given(questions(), st.integers(0, 3))
def test_a_layer_more_never_holds_less(question: Question, stage: int) -> None:
    blocks, table = question
    stage %= table.pp
    order = blocks.model.main.order
    deeper = blocks.model.replace(stacks=(blocks.model.main.replace(order=(*order, order[0])),))
    counts = table.counts.copy()
    counts[:, stage] += 1
    recomputed = counts if table.recompute != "none" else 0 * counts
    before = memory_of(blocks, table)
    after = memory_of(
        again(blocks, model=deeper), replaced(table, counts=counts, recomputed=recomputed)
    )
    for name in StageMemory.PURPOSES:
        assert (getattr(after, name) >= getattr(before, name)).all(), name
    assert (after.total[:, stage] > before.total[:, stage]).all()


@DRAWN
@given(questions())
def test_a_longer_sequence_never_holds_less(question: Question) -> None:
    blocks, table = question
    longer = again(blocks, workload=Workload(seq_len=2 * SEQ, global_batch=64))
    before, after = memory_of(blocks, table), memory_of(longer, table)
    for name in StageMemory.PURPOSES:
        assert (getattr(after, name) >= getattr(before, name)).all(), name


@DRAWN
@given(questions())
def test_a_higher_zero_stage_never_holds_more_states(question: Question) -> None:
    blocks, table = question
    by_zero = [memory_of(blocks, replaced(table, zero=0 * table.zero + z)) for z in range(4)]
    sharded = (None, "optimizer", "gradients", "weights")
    many = table.dp * table.cp > 1
    for stage in (1, 2, 3):
        less, more = by_zero[stage], by_zero[stage - 1]
        for name in STATES:
            mine, before = getattr(less, name), getattr(more, name)
            assert (mine <= before).all()
            assert ((mine < before).all(axis=1) == (many & (name == sharded[stage]))).all()
        others_alike(less, more, *STATES, "buffers")


@DRAWN
@given(questions(zero=3))
def test_states_divided_over_more_ranks_never_grow(question: Question) -> None:
    blocks, table = question
    before, after = memory_of(blocks, table), memory_of(blocks, replaced(table, dp=2 * table.dp))
    for name in STATES:
        assert (getattr(after, name) <= getattr(before, name)).all(), name


@DRAWN
@given(questions())
def test_recomputation_keeps_less(question: Question) -> None:
    """full <= selective <= none per microbatch; full makes a layer again beside the inputs kept."""
    blocks, table = question
    none, selective, full = (
        memory_of(
            blocks, replaced(table, recompute=mode, recomputed=table.counts * (mode != "none"))
        )
        for mode in ("none", "selective", "full")
    )
    assert (selective.activations <= none.activations * SLACK).all()
    assert (selective.per_microbatch <= none.per_microbatch * SLACK).all()
    assert (full.per_microbatch <= selective.per_microbatch * SLACK).all()
    tables = BlockTables(blocks, table)
    inputs = np.max([tables.column(kind, "checkpoint_bytes") for kind in blocks.kinds], axis=0)
    held = in_flight(table.schedule, table.pp, table.microbatches, table.vpp)
    bound = none.activations + inputs[:, None] * held * table.counts
    assert (full.activations <= bound * SLACK).all()
    for less in (selective, full):
        others_alike(less, none, "activations")


@DRAWN
@given(questions())
def test_flash_attention_leaves_nothing_for_selective_recomputation(question: Question) -> None:
    """Of the core but the statistics of its softmax."""
    blocks, table = question
    blocks = with_traits(blocks, flash_attention=True, selective="core")
    none, selective = (
        memory_of(
            blocks, replaced(table, recompute=mode, recomputed=table.counts * (mode != "none"))
        )
        for mode in ("none", "selective")
    )
    assert (selective.activations >= none.activations * 0.8).all()


@DRAWN
@given(questions(), st.floats(1, 1e10))
def test_context_is_added_and_slack_is_a_share(question: Question, context: float) -> None:
    blocks, table = question
    before = memory_of(blocks, table)
    traits = {"context_bytes": context, "allocator_slack": 0.1}
    after = memory_of(with_traits(blocks, **traits), table)
    assert after.total == pytest.approx(1.1 * before.total + context, rel=1e-9)
    others_alike(before, after)


@DRAWN
@given(questions(), st.floats(4, 40))
def test_bytes_per_logit_replace_what_the_head_keeps(question: Question, each: float) -> None:
    blocks, table = question
    logits = table.micro_batch * SEQ // table.cp * np.ceil(blocks.model.vocab / table.tp)
    found = memory_of(with_traits(blocks, logit_bytes=each), table)
    assert found.logits[:, -1] == pytest.approx(each * logits, rel=1e-9)
    assert (found.logits[:, :-1] == 0).all()
    others_alike(found, memory_of(blocks, table), "logits", "activations")


@DRAWN
@given(questions(), st.sampled_from(["scatters_in_place", "keeps_low_precision_gradients"]))
def test_gradient_traits_move_their_own_term(question: Question, trait: str) -> None:
    blocks, table = question
    off, on = (memory_of(with_traits(blocks, **{trait: v}), table) for v in (False, True))
    if trait == "scatters_in_place":
        others_alike(off, on, "buffers")
        assert (on.buffers <= off.buffers).all()
    else:
        others_alike(off, on, "gradients")
        assert on.gradients == pytest.approx(off.gradients * 6 / 4)


@DRAWN
@given(questions(), st.floats(0.5, 2), st.floats(0, 1))
def test_scales_of_activations_move_activations_only(
    question: Question, scale: float, share: float
) -> None:
    blocks, table = question
    before = memory_of(with_traits(blocks, gathered_share=1.0), table)
    scaled = memory_of(with_traits(blocks, gathered_share=1.0, activation_scale=scale), table)
    shared = memory_of(with_traits(blocks, gathered_share=share), table)
    others_alike(before, scaled, "activations")
    others_alike(before, shared, "activations")
    assert (shared.activations <= before.activations * SLACK).all()
    assert ((scaled.activations >= before.activations / SLACK) == (scale >= 1 / SLACK)).all() or (
        table.recompute == "full"
    )


@DRAWN
@given(questions(zero=0))
def test_stages_hold_the_whole_model_between_them(question: Question) -> None:
    """Without tensor parallelism the weights of all stages are those of one stage, and a tied
    matrix once more."""
    blocks, table = question
    table = replaced(table, tp=0 * table.tp + 1)
    whole = replaced(
        table,
        pp=1,
        vpp=1,
        counts=table.counts.sum(axis=1, keepdims=True),
        recomputed=table.recomputed.sum(axis=1, keepdims=True),
    )
    tied = blocks.model.tied_embeddings and table.pp > 1
    matrix = blocks.model.vocab * blocks.model.hidden * 2 if tied else 0
    together, alone = (memory_of(blocks, each).weights.sum(axis=1) for each in (table, whole))
    assert together == pytest.approx(alone + matrix, rel=1e-12)


@DRAWN
@given(questions())
def test_a_table_is_its_rows(question: Question) -> None:
    blocks, table = question
    together = memory_of(blocks, table)
    for row in range(len(table)):
        alone = memory_of(blocks, table.take(np.array([row])))
        for name in (*StageMemory.PURPOSES, "per_microbatch"):
            assert np.array_equal(getattr(alone, name)[0], getattr(together, name)[row]), name


def test_states_by_hand() -> None:
    """bf16 weights, fp32 gradients, fp32 master and moments: 18 bytes per parameter, 6 + 12/8 with
    ZeRO 1, 2 + 16/8 with ZeRO 2, 18/8 with ZeRO 3 on 8 ranks."""
    blocks = asked(wide(), gpu_cluster(nodes=8), plain_runtime())
    rows = one_row(blocks.model).take(np.zeros(4, dtype=np.int64))
    table = replaced(rows, dp=8 * rows.dp, zero=np.arange(4))
    memory = memory_of(blocks, table)
    states = (memory.weights + memory.gradients + memory.optimizer)[:, 0]
    parameters = memory.weights[0, 0] / 2
    expected = [18, 6 + 12 / 8, 2 + 16 / 8, 18 / 8]
    assert states / parameters == pytest.approx(expected, rel=1e-5)


def test_narrow_products_keep_the_states_of_16_bits() -> None:
    """fp8 weights stand in for 16-bit ones; those of fp4 (4.5 bits, twice) stand beside them."""
    bf16, fp8, fp4 = (
        memory_of(asked_in(dtype), one_row(wide())) for dtype in ("bf16", "fp8", "fp4")
    )
    others_alike(bf16, fp8)
    others_alike(bf16, fp4, "weights")
    assert fp4.weights == pytest.approx(bf16.weights * (2 + 2 * 4.5 / 8) / 2)


def asked_in(dtype: str) -> Blocks:
    peaks = dict.fromkeys(("bf16", "fp8", "fp4"), "100TFLOP/s")
    blocks = asked(wide(), gpu_cluster(nodes=8, peak_flops=peaks), plain_runtime())
    return blocks.changed(workload=blocks.workload.replace(dtype=dtype))


@pytest.mark.parametrize(("tp", "ep", "copies"), [(1, 4, 2), (2, 4, 4), (1, 8, 1), (2, 1, 16)])
def test_experts_are_divided_over_the_ranks_that_have_copies(tp: int, ep: int, copies: int) -> None:
    """8 experts, dp=8: dp*tp/ep ranks hold the same experts, dp ranks the same dense weights."""
    model = with_experts(wide())
    blocks = asked(model, gpu_cluster(nodes=8), plain_runtime())
    table = replaced(one_row(model), dp=np.array([8]), tp=np.array([tp]), ep=ep)
    held = stage_parameters(BlockTables(blocks, table))
    experts, dense = held.experts[0, 0], held.dense[0, 0]
    assert experts == 8 * 8 / ep * 3 * 1024 * 512
    assert held.own[0, 0] == np.ceil(dense / 8) + np.ceil(experts / copies)
    memory = memory_of(blocks, replaced(table, zero=np.array([1])))
    assert memory.optimizer[0, 0] == 12 * held.own[0, 0]


@st.composite
def split_layouts(draw: st.DrawFn) -> str:
    """Layouts of 16 layers whose backward is split, in every mode of recomputation."""
    schedule = draw(st.sampled_from(sorted(SPLIT)))
    pp, tp, dp = (draw(st.sampled_from(ways)) for ways in ([2, 4], [1, 2, 8], [1, 2]))
    vpp = {"zb-h1": 1, "interleaved-zb": draw(st.sampled_from([2, 4]))}.get(schedule, 2)
    mode = draw(st.sampled_from(["none", "selective", "full"]))
    some = [draw(st.integers(0, 16 // (pp * vpp))) for _ in range(pp * vpp)]
    own = (
        f" recomputed={','.join(map(str, some))}" if mode != "none" and draw(st.booleans()) else ""
    )
    degrees = f"dp={dp} tp={tp} pp={pp} vpp={vpp} micro_batch={draw(st.sampled_from([1, 2]))}"
    zero = draw(st.integers(0, 3))
    return f"{degrees} zero={zero} schedule={schedule} recompute={mode}{own}"


@settings(DRAWN, max_examples=25)
@given(split_layouts(), st.booleans())
def test_split_backwards_keep_their_promise(layout: str, mixed: bool) -> None:
    """What the actions of a rank hold moment by moment, as the ledger records it."""
    kind = (with_experts(wide()) if mixed else wide()).layer
    deep = wide().replace(stacks=(wide().main.replace(kinds=(kind,), order=(0,) * 16),))
    blocks = asked(deep, gpu_cluster(nodes=8), catalog.find_runtime("native"), seq=2048)
    plan = told_layout.plan_of_layout(blocks, layout)
    assert plan.predicted is not None
    firsts = {plan.layout.coordinates(rank)["pp"]: rank for rank in range(plan.layout.devices)}
    for place, rank in firsts.items():
        held = predicted_ledger(blocks, plan, rank).peak_bytes
        assert held <= plan.predicted.stage_peak_bytes[place], f"rank {rank} of {layout}"


def test_what_lies_between_two_halves_counts_where_layers_recompute() -> None:
    """ZB-H1 on four ranks: rank i puts i + 1 weight gradients off. Nothing is left of 1F1B."""
    blocks, two = asked(wide(), gpu_cluster(nodes=8), plain_runtime()), np.array([[2, 2, 2, 2]])
    table = replaced(one_row(wide()), pp=4, counts=two, recomputed=two, microbatches=np.array([8]))
    table = replaced(table, recompute="full", schedule="zb-h1")
    tables = BlockTables(blocks, table)
    left = 2 * tables.column(blocks.kinds[0], "checkpoint_left_bytes")[0]
    assert left > 0
    less = in_flight("zb-h1", 4, table.microbatches) - in_flight("1f1b", 4, table.microbatches)
    split, whole = (memory_of(blocks, replaced(table, schedule=s)) for s in ("zb-h1", "1f1b"))
    more = split.activations - whole.activations - less * split.per_microbatch
    assert more[0] == pytest.approx(left * np.arange(1, 5))
