"""What the executor costs over loops written by hand with torch's own parallelism, in one run.

Two ranks train the same model on the same batches in turn: a few steps by the executor, a few by
a plain loop, again and again, so that a drift of the machine meets both.

    ddp        DistributedDataParallel            beside  dp=2
    fsdp2      fully_shard of every layer         beside  dp=2 zero=3
    dtensor    parallelize_module, sequence and   beside  tp=2
               loss parallel

Every loop makes the gradient norm and steps a fused AdamW. Shown are medians of a rank's steps, and
what a Timeline adds (executor.recorder).

    python -m tests.overhead
"""

import contextlib
import functools
import multiprocessing as mp
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

from executor import data
from executor.apply import apply
from executor.mesh import make_mesh
from executor.model import Transformer, meta_model
from executor.recorder import Recorder, make_clock
from executor.runner import Runner
from planner.schedule.action import Action
from planner.spec import printing
from planner.spec.plan import Plan
from profiler.machine import rank_environment
from tests.examples import llama_like
from tests.executor import plans

RANKS = 2
TITLE = "The executor beside loops written by hand, 2 ranks"
ROUNDS, STEPS, WARMUP = 10, 2, 2
CPU = torch.device("cpu")
TIMEOUT = timedelta(seconds=120)
MODEL = llama_like(
    layers=4, hidden=256, heads=8, kv_heads=8, head_dim=32, ffn=1024, vocab=4096, max_positions=256
)
Step = Callable[[], Any]


class Silent:
    """Observes nothing."""

    def before(self, action: Action) -> None:
        """Nothing."""

    def after(self, action: Action) -> None:
        """Nothing."""


def make_plan(**layout: Any) -> Plan:
    plan = plans.make_plan(MODEL, dtype="fp32", **layout)
    work = plan.workload.replace(seq_len=256, global_batch=8)
    return plan.replace(workload=work)


def by_executor(plan: Plan, recorded: bool) -> Step:
    mesh = make_mesh(plan.layout, dist.get_rank(), "gloo", TIMEOUT)
    assert mesh is not None
    runner = Runner(plan, mesh, apply(plan, mesh, CPU, 0, 1e-3), CPU)
    batch = data.microbatches(plan, mesh.place, 0, 0, CPU)

    def step() -> None:
        observer = Recorder(make_clock(CPU), lambda text: None) if recorded else Silent()
        runner.step(batch, observer)

    return step


def loop(
    plan: Plan,
    model: nn.Module,
    place: dict[str, int],
    within: Callable[[], Any] = contextlib.nullcontext,
    accumulating: Callable[[bool], Any] = lambda last: contextlib.nullcontext(),
) -> Step:
    """A training loop as it is written by hand."""
    batch = data.microbatches(plan, place, 0, 0, CPU)
    parameters = list(model.parameters())
    adamw = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    scale = 1 / len(batch)

    def step() -> None:
        adamw.zero_grad()
        for index, (tokens, targets) in enumerate(batch):
            with accumulating(index == len(batch) - 1), within():
                loss: Tensor = model(tokens, targets)
                (loss * scale).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1e9)
        adamw.step()

    return step


def whole_model() -> Transformer:
    model = meta_model(MODEL, 256).to_empty(device="cpu")
    model.rotary.fill()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)
    return model


def ddp(plan: Plan) -> Step:
    model = DistributedDataParallel(whole_model())
    later = model.no_sync
    return loop(
        plan,
        model,
        {"dp": dist.get_rank(), "cp": 0},
        accumulating=lambda last: contextlib.nullcontext() if last else later(),
    )


def fsdp2(plan: Plan) -> Step:
    model, mesh = whole_model(), init_device_mesh("cpu", (RANKS,))
    for layer in model.layers.values():
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return loop(plan, model, {"dp": dist.get_rank(), "cp": 0})


def dtensor(plan: Plan) -> Step:
    model, mesh = whole_model(), init_device_mesh("cpu", (RANKS,))
    columns, rows = ColwiseParallel, functools.partial(RowwiseParallel, output_layouts=Shard(1))
    gathered = functools.partial(PrepareModuleInput, use_local_output=True)
    for layer in model.layers.values():
        both = {"input_layouts": (Shard(1), None), "desired_input_layouts": (Replicate(), None)}
        one = {"input_layouts": (Shard(1),), "desired_input_layouts": (Replicate(),)}
        parallelize_module(
            layer,
            mesh,
            {
                "attention_norm": SequenceParallel(use_local_output=True),
                "attention": gathered(**both),
                **{f"attention.{name}": columns() for name in "qkv"},
                "attention.o": rows(),
                "mlp_norm": SequenceParallel(use_local_output=True),
                "mlp": gathered(**one),
                **{f"mlp.{name}": columns() for name in ("gate", "up")},
                "mlp.down": rows(),
            },
        )
    parallelize_module(
        model,
        mesh,
        {
            "embedding.tokens": rows(input_layouts=Replicate()),
            "head.norm": SequenceParallel(use_local_output=True),
            "head.projection": ColwiseParallel(
                input_layouts=Shard(1), output_layouts=Shard(-1), use_local_output=False
            ),
        },
    )
    return loop(plan, model, {"dp": 0, "cp": 0}, within=loss_parallel)


PAIRS: tuple[tuple[str, Callable[[Plan], Step], dict[str, int]], ...] = (
    ("ddp", ddp, {"dp": 2, "micro_batch": 2}),
    ("fsdp2", fsdp2, {"dp": 2, "micro_batch": 4, "zero": 3}),
    ("dtensor", dtensor, {"tp": 2, "micro_batch": 4}),
)


def measure(steps: dict[str, Step]) -> dict[str, float]:
    """Median seconds of each kind of step; the kinds take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(ROUNDS + 1):
        for name, step in steps.items():
            for _ in range(STEPS if turn else WARMUP):
                dist.barrier()
                begun = time.perf_counter()
                step()
                if turn:
                    seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(each) for name, each in seconds.items()}


def one_rank(rank: int, store: str, answers: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS, timeout=TIMEOUT
    )
    for name, by_hand, layout in PAIRS:
        plan = make_plan(**layout)
        steps = {
            "by hand": by_hand(plan),
            "executor": by_executor(plan, recorded=False),
            "with a timeline": by_executor(plan, recorded=True),
        }
        found = measure(steps)
        if rank == 0:
            answers.put((name, found))
        dist.barrier()


def rows() -> Iterator[dict[str, Any]]:
    """One row per way of dividing."""
    os.environ.update(rank_environment())
    context = mp.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        answers = context.Queue()
        arguments = (str(Path(folder) / "store"), answers)
        ranks = [context.Process(target=one_rank, args=(r, *arguments)) for r in range(RANKS)]
        for process in ranks:
            process.start()
        for _ in PAIRS:
            name, found = answers.get(timeout=600)
            hand = found["by hand"]
            yield {
                "beside": name,
                **{kind: f"{seconds * 1e3:.1f} ms" for kind, seconds in found.items()},
                "overhead": f"{found['executor'] / hand - 1:+.1%}",
                "timeline adds": f"{found['with a timeline'] / found['executor'] - 1:+.1%}",
            }
        for process in ranks:
            process.join()


if __name__ == "__main__":
    printing.print_table(list(rows()), TITLE)
