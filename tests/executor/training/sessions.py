"""Trainings on the pool of ranks."""

from pathlib import Path
from typing import Any

import torch

from executor import refusals
from executor.parallel.mesh import close_mesh, make_mesh
from executor.processes.progress import Progress
from executor.training.options import TrainOptions
from executor.training.session import Session
from planner.spec.documents import InputError
from planner.spec.model import ModelSpec
from planner.spec.plan import Plan
from planner.spec.trained import Trained
from profiler.machine import describe
from tests.examples import gpt2_like, llama_like
from tests.executor.kinds import bert_like, mixtral_like, t5_like
from tests.executor.plans import SEQ_LEN, make_plan
from tests.executor.pool import TIMEOUT, Pool

CLASSES = {"kind": "token_classification", "classes": 8, "bias": True}


def _of_bytes(spec: ModelSpec) -> ModelSpec:
    """A model that reads bytes."""
    stacks = tuple(
        stack.replace(embedding=stack.embedding.replace(vocab=257)) for stack in spec.stacks
    )
    classes = 257 if spec.head.kind == "language_model" else spec.head.classes
    return spec.replace(stacks=stacks, head=spec.head.replace(classes=classes))


MODELS = {
    "gpt2": gpt2_like(vocab=256, layers=4),
    "llama": llama_like(vocab=257, layers=4),
    "mixtral": _of_bytes(mixtral_like()),
    "bert": _of_bytes(bert_like(CLASSES, tied_embeddings=False)),
    "t5": _of_bytes(t5_like()),
}


def train(rank: int, plan: Plan, options: TrainOptions) -> Trained | str | None:
    """One rank of the pool: what it returns, or the message of its error."""
    mesh = make_mesh(plan.layout, rank, "gloo", TIMEOUT)
    if mesh is None:
        return None
    session = Session(
        plan, options, mesh, torch.device("cpu"), "gloo", describe(), Progress(None, rank)
    )
    try:
        return session.train()
    except InputError as error:
        return str(error)
    finally:
        close_mesh(mesh)


def options(folder: Path, **changes: Any) -> TrainOptions:
    values = {"steps": 3, "warmup": 1, "clip_norm": 0.5, "held_out": 2, "output": folder}
    return TrainOptions(**(values | changes))


def trained(
    pool: Pool, name: str, chosen: TrainOptions, seq_len: int = SEQ_LEN, **layout: Any
) -> Trained:
    """What a training on the pool came to."""
    plan = make_plan(MODELS[name], **layout)
    plan = plan.replace(workload=plan.workload.replace(seq_len=seq_len))
    refusals.check(plan)
    found = pool.run(train, plan, chosen)[0]
    assert isinstance(found, Trained), found
    return found
