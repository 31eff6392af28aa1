"""Brute force: every plan of a small question, played one by one; and such questions, drawn."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.estimate import EXACT as SOLVED
from planner.cost.estimate import estimate
from planner.cost.stage_split import usual_counts
from planner.search.inner import chunked
from planner.search.inner.family import family
from planner.search.inner.problem import Counts
from planner.search.inner.stage_tables import modes
from planner.search.outer import space
from planner.simulator.replay import replay
from planner.spec.model import ModelSpec
from planner.spec.runtime import Recompute, Runtime
from planner.spec.workload import Workload
from tests.cost.drawn import with_experts
from tests.examples import gpt2_like, gpu_cluster, llama_like, plain_runtime
from tests.search.problems import plans_of

Choice = tuple[Counts, Recompute, Counts]


@dataclass(frozen=True, slots=True)
class Played:
    """All plans of one outer choice: step_seconds, peak_bytes, both [plans]."""

    one: Candidates
    choices: list[Choice]
    step_seconds: np.ndarray
    peak_bytes: np.ndarray


def outer_choices(blocks: Blocks, devices: int | None = None) -> Iterator[Candidates]:
    """Every row of the space (on so many devices) as a table of its own."""
    parts = blocks.model, blocks.cluster, blocks.workload, blocks.runtime
    for table in space.legal(space.Question(*parts, devices or blocks.cluster.devices)):
        for row in range(len(table)):
            yield table.take(np.array([row]))


def cuts(blocks: Blocks, one: Candidates) -> list[Counts]:
    """Layers of every stage or chunk that the question lets a choice have."""
    layers, stages = blocks.model.layers, one.pp * one.vpp
    if not blocks.runtime.free_stages:
        return [usual_counts(blocks.model, blocks.runtime, stages)]
    if one.schedule not in SOLVED:
        return family(layers, stages)
    return [tuple(each) for each in plans_of(layers, stages).tolist()]


def recomputed(
    runtime: Runtime, counts: Counts, chunks: bool
) -> Iterator[tuple[Recompute, Counts]]:
    """Every way to recompute: a mode and how many layers from the front of every stage.

    Chunked schedules recompute the same number of every chunk, or all.
    """
    yield "none", (0,) * len(counts)
    for mode in modes(runtime):
        if mode == "none":
            continue
        if runtime.recompute_layers == "all":
            yield mode, counts
        elif runtime.recompute_layers == "same" or chunks:
            for k in range(1, max(counts) + 1):
                yield mode, tuple(min(k, n) for n in counts)
        else:
            for some in itertools.product(*(range(n + 1) for n in counts)):
                if any(some):
                    yield mode, some


def play(blocks: Blocks, one: Candidates) -> Played:
    """Estimate and replay every plan of a choice."""
    chunks = one.schedule not in SOLVED
    made = [
        (counts, mode, again)
        for counts in cuts(blocks, one)
        for mode, again in recomputed(blocks.runtime, counts, chunks)
    ]
    if chunks:
        tables = [chunked.with_chunks(blocks, one, *plan) for plan in made]
        found = [_played(blocks, table) for table in tables]
        steps, peaks = (np.concatenate(each) for each in zip(*found, strict=True))
        return Played(one, made, steps, peaks)
    steps, peaks = np.zeros(len(made)), np.zeros(len(made))
    for mode in {mode for _, mode, _ in made}:
        places = [i for i, plan in enumerate(made) if plan[1] == mode]
        table = whole_plans(blocks, one, mode, [made[i] for i in places])
        steps[places], peaks[places] = _played(blocks, table)
    return Played(one, made, steps, peaks)


def _played(blocks: Blocks, table: Candidates) -> tuple[np.ndarray, np.ndarray]:
    made = estimate(blocks, table)
    steps = [replay(blocks, table, made, row).step_seconds for row in range(len(table))]
    return np.array(steps), made.peak_bytes


def whole_plans(
    blocks: Blocks, one: Candidates, mode: Recompute, plans: list[Choice]
) -> Candidates:
    """Plans of one chunk per rank as one table."""
    counts, again = np.array([p[0] for p in plans]), np.array([p[2] for p in plans])
    starts, before = counts.cumsum(axis=1) - counts, blocks.kinds_before
    table = one.take(np.zeros(len(plans), dtype=np.int64))
    return replace(
        table,
        recompute=mode,
        counts=counts,
        kinds=before[starts + counts] - before[starts],
        recomputed=before[starts + again] - before[starts],
    )


def models(rng: np.random.Generator) -> ModelSpec:
    """A decoder of 2 to 5 layers: tied or not, grouped queries, experts, or several kinds."""
    layers = int(rng.integers(2, 6))
    sizes = {"hidden": 256, "heads": 8, "kv_heads": 4, "head_dim": 32, "ffn": 512}
    llama = llama_like(layers=layers, vocab=int(rng.choice([96, 32_000])), **sizes)
    which = int(rng.integers(0, 4))
    if which == 0:
        return gpt2_like(layers=layers, hidden=256, heads=8, kv_heads=8, head_dim=32, ffn=1024)
    if which == 1:
        return with_experts(llama)
    return mixed(llama) if which == 2 else llama


def mixed(model: ModelSpec) -> ModelSpec:
    """Every second layer has an MLP four times as wide."""
    layer = model.layer
    wide = layer.replace(feed_forward=layer.feed_forward.replace(ffn=2048))
    stack = model.main
    order = tuple(i % 2 for i in range(model.layers))
    return model.replace(stacks=(stack.replace(kinds=(layer, wide), order=order),))


TRAITS: dict[str, list[object]] = {
    "schedules": [("gpipe", "1f1b"), ("1f1b",)],
    "zero_stages": [(0, 1), (0, 1, 2, 3), (2, 3)],
    "recompute": [("none", "full"), ("none", "selective", "full"), ("none",)],
    "recompute_layers": ["all", "same", "any"],
    "axes": [("tp", "dp", "pp"), ("tp", "cp", "ep", "dp", "pp"), ("dp", "pp")],
    "hybrid_sharding": [False, True],
    "free_stages": [True, True, True, False],
    "pipeline_zero_stages": [None, (1,), (0, 1, 2, 3)],
    "overlaps_dp": [False, True],
    "prefetches_parameters": [False, True],
    "overlap_slowdown": [0.0, 0.2],
    "flash_attention": [False, True],
    "microbatch_seconds": [0.0, 1e-4],
    "stage_floor_seconds": [0.0, 1e-4],
    "straggler_spread": [0.0, 0.05],
    "step_seconds": [0.0, 1e-3],
}


def drawn(seed: int, **fixed: object) -> Blocks:
    """A small question: 2 to 8 devices in nodes of 2 to 4, a runtime of drawn traits."""
    rng = np.random.default_rng(seed)
    traits = {name: values[int(rng.integers(len(values)))] for name, values in TRAITS.items()}
    runtime = plain_runtime(**(traits | {"context_styles": ("ring",)} | fixed))
    per_node, nodes = ((2, 1), (4, 1), (2, 2), (4, 2))[int(rng.integers(4))]
    peak = {"bf16": str(rng.choice(["1TFLOP/s", "100TFLOP/s"]))}
    cluster = gpu_cluster(per_node and nodes, per_node, peak_flops=peak)
    batch = int(rng.choice([4, 8, 16]))
    work = Workload(seq_len=64, global_batch=batch)
    return Blocks(models(rng), cluster, work, runtime, None)


def with_memory(blocks: Blocks, limit_bytes: float) -> Blocks:
    """The same question on devices of another size."""
    accelerator = blocks.cluster.accelerator.replace(memory_bytes=limit_bytes)
    cluster = blocks.cluster.replace(accelerator=accelerator)
    return Blocks(blocks.model, cluster, blocks.workload, blocks.runtime, None, blocks.graphs)
