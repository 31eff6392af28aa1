"""Training loops as they are written by hand with torch's own parallelism, beside the executor's.

The model is the executor's, whole and plain (executor.transformer.model); only how it is divided
differs:

    ddp        DistributedDataParallel, no_sync in all but the last microbatch
    fsdp2      fully_shard of every layer, then of what is left
    tp         parallelize_module: columns and rows, sums by all-reduce, loss_parallel
    sequence   the same with the tokens between blocks divided: what the executor's tp does

A step is one optimiser step of a plan: its microbatches, the gradient norm, a fused AdamW. Batches
and initial values are the plan's, so losses equal the executor's.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

from executor.formats import weight_dtype
from executor.parallel.mesh import Mesh
from executor.transformer.initial import full_value
from executor.transformer.model import Transformer, meta_model
from planner.spec.plan import Plan
from tests.executor.plans import LEARNING_RATE, SEED

Batch = list[tuple[Tensor, Tensor]]
Step = Callable[[Batch], tuple[Tensor, Tensor]]
"""From microbatches to the rank's mean loss and the gradient norm."""
Part = Callable[[bool], Any]
"""A context for a microbatch, told whether it is the last."""


def whole_model(plan: Plan) -> Transformer:
    """The undivided model in the workload's format. The rotary table has a row per token."""
    model = meta_model(plan.model, plan.workload.seq_len).to(weight_dtype(plan.workload.dtype))
    model = model.to_empty(device="cpu")
    assert model.rotary is not None
    model.rotary.fill()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(full_value(name, tuple(parameter.shape), SEED))
    return model


def loop(model: nn.Module, around: Part) -> Step:
    """The steps of a divided model."""
    groups = apart(list(model.parameters()))
    adamw = torch.optim.AdamW([{"params": group} for group in groups], lr=LEARNING_RATE, fused=True)

    def step(batch: Batch) -> tuple[Tensor, Tensor]:
        total = torch.zeros(())
        for index, (tokens, targets) in enumerate(batch):
            with around(index == len(batch) - 1):
                loss = model(tokens, targets) / len(batch)
                loss.backward()
                total = total + local(loss.detach())
        gradients = ([each.grad for each in group] for group in groups)
        norms = [local(torch.nn.utils.get_total_norm(group)) for group in gradients]
        adamw.step()
        adamw.zero_grad()
        return total, torch.stack(norms).norm()

    return step


def apart(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Divided and whole ones, which torch's functions of many tensors do not take together."""
    kinds = ([p for p in parameters if isinstance(p, DTensor) is kind] for kind in (True, False))
    return [kind for kind in kinds if kind]


def local(value: Tensor) -> Tensor:
    """A number that may be divided, whole."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def ddp(plan: Plan, mesh: Mesh) -> Step:
    """Gradients are summed in buckets while the last backward runs."""
    whole = whole_model(plan)
    model = DistributedDataParallel(whole, process_group=mesh.dp, gradient_as_bucket_view=True)
    return loop(model, lambda last: contextlib.nullcontext() if last else model.no_sync())


def fsdp2(plan: Plan, mesh: Mesh) -> Step:
    """Parameters are gathered for every forward and backward, gradients scattered in each."""
    model, devices = whole_model(plan), DeviceMesh.from_group(mesh.dp, "cpu")
    for layer in model.layers.values():
        fully_shard(layer, mesh=devices)
    fully_shard(model, mesh=devices)
    return loop(model, lambda last: contextlib.nullcontext())


def tp(plan: Plan, mesh: Mesh, between: Placement | None = None) -> Step:
    """between: how tokens are divided between blocks; not at all unless told."""
    between = between or Replicate()
    model, devices = whole_model(plan), DeviceMesh.from_group(mesh.tp, "cpu")
    rows = functools.partial(RowwiseParallel, output_layouts=between)
    norms = SequenceParallel if between.is_shard() else None
    for layer in model.layers.values():
        parts: dict[str, Any] = {
            "attention": gathered(between, None, None),
            **{f"attention.{name}": ColwiseParallel() for name in "qkv"},
            "attention.o": rows(),
            "mlp": gathered(between),
            **{f"mlp.{name}": ColwiseParallel() for name in ("gate", "up")},
            "mlp.down": rows(),
        }
        if norms is not None:
            parts |= {name: norms(use_local_output=True) for name in ("attention_norm", "mlp_norm")}
        parallelize_module(layer, devices, parts)
    ends: dict[str, Any] = {
        "embedding.tokens": rows(input_layouts=Replicate()),
        "head.projection": ColwiseParallel(
            input_layouts=between, output_layouts=Shard(-1), use_local_output=False
        ),
    }
    if norms is not None:
        ends["head.norm"] = norms(use_local_output=True)
    parallelize_module(model, devices, ends)
    return loop(model, lambda last: loss_parallel())


def gathered(*layouts: Placement | None) -> PrepareModuleInput:
    """Whole tokens for a block, once for all its matrices. None: inputs that are left alone."""
    whole = tuple(each and Replicate() for each in layouts)
    return PrepareModuleInput(input_layouts=layouts, desired_input_layouts=whole)


PROGRAMMES: dict[str, tuple[Callable[[Plan, Mesh], Step], dict[str, int]]] = {
    "ddp": (ddp, {"dp": 2}),
    "fsdp2": (fsdp2, {"dp": 2, "zero": 3}),
    "tp": (tp, {"tp": 2}),
    "sequence": (functools.partial(tp, between=Shard(1)), {"tp": 2}),
}
"""How they are divided by hand, and the layout that lets the executor do the same."""
