"""What a plan predicts of a rank's memory is above what the rank holds, also in shards.

As tests/test_promises.py, on the pool: every ZeRO stage alone, under tp, pipelines and chunks.
"""

from typing import Any

import pytest
import torch

from executor.options import RunOptions
from executor.parallel.mesh import close_mesh, make_mesh
from executor.processes.progress import Progress
from executor.train import Trainer, peak_bytes
from planner.cost.blocks import Blocks
from planner.search import told_layout
from planner.spec import catalog
from planner.spec.plan import Plan
from planner.spec.workload import Workload
from tests.examples import cpu_cluster, gpt2_like, gpu_cluster, llama_like
from tests.executor.pool import TIMEOUT, Pool

GPT2 = gpt2_like(hidden=64, heads=4, kv_heads=4, head_dim=16, ffn=256, vocab=515)
LLAMA = llama_like(hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=176, vocab=512)
WIDE = llama_like(hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=64, vocab=8192)
LEAST = 0.4
"""Of its promise every peak reaches this much: a bound without it would be worth little."""

CASES = [
    (GPT2, "dp=2 micro_batch=2 zero=2"),
    (LLAMA, "dp=4 micro_batch=2 zero=3 recompute=full"),
    (LLAMA, "dp=2 tp=2 micro_batch=2 zero=3 recompute=selective"),
    (GPT2, "dp=2 pp=2 micro_batch=1 zero=2 stages=3,1"),
    (WIDE, "dp=2 pp=2 micro_batch=1 zero=3 schedule=gpipe"),
    (LLAMA, "dp=4 micro_batch=1 zero=3 dtype=bf16"),
    (WIDE, "dp=4 micro_batch=1 sync=parameter_server"),
    (GPT2, "dp=2 tp=2 micro_batch=1 sync=parameter_server"),
    (GPT2, "dp=2 pp=2 vpp=2 micro_batch=1 zero=3 schedule=interleaved"),
]


def peak(rank: int, plan: Plan) -> float | None:
    mesh = make_mesh(plan.layout, rank, "gloo", TIMEOUT)
    if mesh is None:
        return None
    options = RunOptions(steps=1, warmup=0)
    trainer = Trainer(plan, mesh, torch.device("cpu"), options, Progress(None, rank))
    result = trainer.train()
    close_mesh(mesh)
    return peak_bytes(result)


@pytest.mark.parametrize(("model", "layout"), CASES, ids=[f"{m.name} {x}" for m, x in CASES])
def test_peak_keeps_the_promise(pool: Pool, model: Any, layout: str) -> None:
    words, _, dtype = layout.partition(" dtype=")
    work = {"seq_len": 64, "global_batch": 16, "dtype": dtype or "fp32"}
    workload = Workload.model_validate(work)
    cluster = gpu_cluster() if dtype else cpu_cluster(8)
    blocks = Blocks(model, cluster, workload, catalog.find_runtime("native"), None)
    plan = told_layout.plan_of_layout(blocks, words)
    assert plan.predicted is not None
    for rank, found in enumerate(pool.run(peak, plan)):
        if found is not None:
            stage = plan.layout.coordinates(rank)["pp"]
            promised = plan.predicted.stage_peak_bytes[stage]
            assert LEAST * promised <= found <= promised, f"rank {rank} of {layout}"
