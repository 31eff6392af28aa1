"""Drawn questions for the laws: runtimes, clusters and tables of candidates of every trait."""

import numpy as np
from hypothesis import strategies as st

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.spec.cluster import ClusterSpec
from planner.spec.layer import MLP, Experts
from planner.spec.layout import even_counts
from planner.spec.model import ModelSpec
from planner.spec.runtime import Runtime
from planner.spec.workload import Workload
from tests.examples import gpt2_like, gpu_cluster, llama_like, plain_runtime

SEQ = 64
TRAITS = {
    "overlaps_dp": st.booleans(),
    "overlaps_tp": st.booleans(),
    "prefetches_parameters": st.booleans(),
    "overlap_slowdown": st.sampled_from([0.0, 0.2, 1.0]),
    "sequence_parallel": st.booleans(),
    "keeps_gathered_inputs": st.booleans(),
    "copies_keys_values": st.booleans(),
    "flash_attention": st.booleans(),
    "recompute_stops_early": st.booleans(),
    "scatters_in_place": st.booleans(),
    "keeps_low_precision_gradients": st.booleans(),
    "selective": st.sampled_from(["core", "products"]),
    "sends_tokens_once": st.booleans(),
    "overlaps_experts": st.booleans(),
    "splits_hops": st.booleans(),
    "expert_host_seconds": st.sampled_from([0.0, 1e-5]),
    "waits_for_counts": st.booleans(),
    "fused_expert_bias": st.booleans(),
    "quantizes_inputs": st.booleans(),
    "layer_host_seconds": st.sampled_from([0.0, 1e-4]),
    "microbatch_seconds": st.sampled_from([0.0, 1e-4]),
    "stage_floor_seconds": st.sampled_from([0.0, 1e-4]),
    "straggler_spread": st.sampled_from([0.0, 0.05]),
    "step_seconds": st.sampled_from([0.0, 1e-3]),
    "loss_passes": st.sampled_from([2.0, 6.0]),
}


@st.composite
def runtimes(draw: st.DrawFn, **fixed: object) -> Runtime:
    """A runtime with drawn traits, but for the fixed ones."""
    traits = {name: draw(values) for name, values in TRAITS.items() if name not in fixed}
    return plain_runtime(**traits, **fixed)


def models() -> st.SearchStrategy[ModelSpec]:
    """Models of 8 layers that every drawn table divides."""
    return st.sampled_from([gpt2_like(layers=8), llama_like(layers=8), wide()])


def wide() -> ModelSpec:
    """A model large enough for its bandwidths to count."""
    sizes = {"hidden": 1024, "heads": 16, "kv_heads": 8, "head_dim": 64, "ffn": 4096}
    return llama_like(layers=8, vocab=32_000, **sizes)


def with_experts(model: ModelSpec) -> ModelSpec:
    """Every MLP replaced by 8 gated experts of width 512, two per token."""
    expert = MLP(ffn=512, gated=True, activation="silu")
    layer = model.layer.replace(feed_forward=Experts(experts=8, per_token=2, expert=expert))
    return model.replace(stacks=(model.main.replace(kinds=(layer,)),))


@st.composite
def tables(draw: st.DrawFn, model: ModelSpec, **fixed: int | str) -> Candidates:
    """A few rows of one pipeline depth for a model of 8 layers and a batch of 64."""
    pp = int(fixed.get("pp", draw(st.sampled_from([1, 2, 4]))))
    cp = int(fixed.get("cp", draw(st.sampled_from([1, 2]))))
    vpp = int(fixed.get("vpp", draw(st.sampled_from([1, 2])) if pp > 1 else 1))
    recompute = fixed.get("recompute", draw(st.sampled_from(["none", "selective", "full"])))
    schedule = fixed.get(
        "schedule", draw(st.sampled_from(["gpipe", "1f1b"])) if vpp == 1 else "1f1b"
    )
    rows = draw(st.lists(_rows(**fixed), min_size=1, max_size=3))
    dp, tp, micro_batch, zero = np.array(rows, dtype=np.int64).T
    counts = np.array([even_counts(model.layers, pp)] * len(rows), dtype=np.int64)
    return Candidates(
        pp=pp,
        schedule=schedule,
        recompute=recompute,
        axis_order=("tp", "cp", "ep", "dp", "pp"),
        dp=dp,
        tp=tp,
        micro_batch=micro_batch,
        microbatches=64 // (dp * micro_batch),
        zero=zero,
        counts=counts,
        recomputed=counts if recompute != "none" else np.zeros_like(counts),
        vpp=vpp,
        cp=cp,
    )


@st.composite
def _rows(draw: st.DrawFn, **fixed: int | str) -> tuple[int, int, int, int]:
    ways = {"dp": [1, 2, 4], "tp": [1, 2, 4], "micro_batch": [1, 2], "zero": [0, 1, 2, 3]}
    dp, tp, batch, zero = (
        int(fixed.get(name, draw(st.sampled_from(values)))) for name, values in ways.items()
    )
    return dp, tp, batch, zero


@st.composite
def questions(draw: st.DrawFn, **fixed: int | str) -> tuple[Blocks, Candidates]:
    """A model on 64 devices in nodes of 8, and a table of its divisions."""
    model = draw(models())
    return asked(model, gpu_cluster(nodes=8), draw(runtimes())), draw(tables(model, **fixed))


def asked(model: ModelSpec, cluster: ClusterSpec, runtime: Runtime, seq: int = SEQ) -> Blocks:
    """Blocks of one question in bf16."""
    return Blocks(model, cluster, Workload(seq_len=seq, global_batch=64), runtime, None)


def again(blocks: Blocks, **changes: object) -> Blocks:
    """The same question with another model, cluster, workload or runtime; graphs are shared."""
    names = ("model", "cluster", "workload", "runtime")
    parts = {name: changes.get(name, getattr(blocks, name)) for name in names}
    graphs = blocks.graphs if parts["model"] is blocks.model else None
    return Blocks(**parts, profile=blocks.profile, graphs=graphs)


def with_traits(blocks: Blocks, **traits: object) -> Blocks:
    """The same question under a runtime of other traits."""
    return again(blocks, runtime=blocks.runtime.replace(**traits))


def replaced(table: Candidates, **arrays: object) -> Candidates:
    """The same table with other columns or degrees."""
    fields = {name: getattr(table, name) for name in table.__dataclass_fields__}
    return Candidates(**(fields | arrays))  # type: ignore[arg-type]


def one_row(model: ModelSpec) -> Candidates:
    """One device, one microbatch."""
    counts = np.array([[model.layers]], dtype=np.int64)
    one = np.array([1], dtype=np.int64)
    return Candidates(
        pp=1,
        schedule="1f1b",
        recompute="none",
        axis_order=("tp", "cp", "ep", "dp", "pp"),
        dp=one,
        tp=one,
        micro_batch=one,
        microbatches=one,
        zero=0 * one,
        counts=counts,
        recomputed=0 * counts,
    )
