"""Small plans for the executor, and the single process that every plan must agree with."""

import functools
import math
from typing import Any

import torch

from executor import data
from executor.transformer.initial import full_value
from executor.transformer.model import Transformer, meta_model
from planner.spec.layout import Layout, even_counts, make_stages
from planner.spec.model import ModelSpec
from planner.spec.plan import Plan
from planner.spec.workload import Workload
from tests.examples import cpu_cluster, gpt2_like, llama_like, plain_runtime
from tests.executor.kinds import KINDS, MIXTURES

SPECS = {"gpt2": gpt2_like(), "llama": llama_like()}
ALL = SPECS | KINDS | MIXTURES
SEQ_LEN, GLOBAL_BATCH, STEPS, SEED, LEARNING_RATE = 16, 24, 3, 0, 1e-3


def make_plan(
    model: ModelSpec | str,
    counts: tuple[int, ...] | None = None,
    dtype: str = "fp64",
    **layout: Any,
) -> Plan:
    spec = ALL[model] if isinstance(model, str) else model
    chosen = Layout(**layout)
    return Plan(
        model=spec,
        cluster=cpu_cluster(8),
        workload=Workload.model_validate(
            {"seq_len": SEQ_LEN, "global_batch": GLOBAL_BATCH, "dtype": dtype}
        ),
        runtime=plain_runtime(),
        layout=chosen,
        stages=make_stages(chosen, counts or even_counts(spec.layers, chosen.pp * chosen.vpp)),
    )


def plain_model(spec: ModelSpec, seed: int = SEED) -> Transformer:
    """The whole model in fp64 with its initial values, made without executor.apply."""
    model = meta_model(spec, SEQ_LEN).double().to_empty(device="cpu")
    if spec.tied_embeddings:
        model.tie()
    if model.rotary is not None:
        model.rotary.fill()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(full_value(name, tuple(parameter.shape), seed))
    return model


@functools.cache
def reference(
    name: str, clip_norm: float | None = None
) -> tuple[list[float], list[float], dict[str, torch.Tensor]]:
    """Losses, gradient norms and final weights of plain training in one process."""
    losses, norms, model, _ = trained(name, clip_norm)
    return losses, norms, {name: value.detach() for name, value in model.named_parameters()}


@functools.cache
def trained(
    name: str, clip_norm: float | None = None
) -> tuple[list[float], list[float], Transformer, torch.optim.AdamW]:
    """The same with the model and the optimiser themselves."""
    model = plain_model(ALL[name])
    plan = make_plan(name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, foreach=False)
    losses, norms = [], []
    for step in range(STEPS):
        tokens, targets = data.global_batch(plan, SEED, step)
        loss = model(tokens, targets)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm or math.inf)
        losses.append(loss.item())
        norms.append(norm.item())
        optimizer.step()
        optimizer.zero_grad()
    return losses, norms, model, optimizer
