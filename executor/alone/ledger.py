"""Ledger: the program of one rank of a plan of any size, in one process, without its work.

The other ranks do not exist: torch's fake process group takes every message and answers at once.
Nothing is computed and no memory taken: every tensor is a fake one, which knows its shape and its
bytes only. What is left is the program itself, and of it are kept

    messages    every collective with its group and the bytes of its full tensor (sent)
    peak        the most bytes that storages hold at once, from the operator that makes one until
                Python or autograd lets go of it (executor.memory)

in one step. Routers send copies of tokens to the experts in turn, and counts of them are not sent
ahead. Parameters, optimiser states and batch count as held throughout. Which kernels run, and
so what is kept, is the device's: tensors pretend to be on a GPU where torch can, else on a CPU.
"""

import datetime
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Literal

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from executor import data, refusals
from executor.alone.sent import Recorder, Sent, exchanged, fake_group
from executor.apply import apply
from executor.memory import StorageMeter
from executor.parallel.mesh import Mesh, Peers, make_mesh
from executor.runner import Runner
from executor.train import resident
from executor.transformer.experts import route_evenly
from planner.schedule.action import COMPUTE, Action, Kind
from planner.spec import runnable
from planner.spec.ledger import Ledger, Line, Message, Part
from planner.spec.plan import Plan

TIMEOUT = datetime.timedelta(seconds=60)
PIPELINE = ("forward", "backward")
"""Fields of a mesh that hold groups of one pipeline."""
RINGS: tuple[Part, ...] = ("forward", "backward")
"""Where a rank sends as much as it receives at once; pipelines and servers do not."""
NAMES = {"shard": "dp", "copies": "replicas", "experts": "edp"}
"""Of groups that the planner calls otherwise."""


def recorded_ledger(plan: Plan, rank: int) -> Ledger:
    """Run one rank of a plan without its work. Raises InputError."""
    refusals.check(plan)
    plan.check_rank(rank)
    with fake_group(plan.layout.devices, rank), FakeTensorMode():
        messages, peak = _step(plan, rank, torch.device(device_kind()))
    return Ledger(
        kind="recorded",
        title=f"{plan.model.name}: {plan.title}",
        rank=rank,
        messages=messages,
        peak_bytes=peak,
    )


def device_kind() -> Literal["cuda", "cpu"]:
    """Where tensors pretend to be: a torch without CUDA cannot pretend to have it."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _step(plan: Plan, rank: int, device: torch.device) -> tuple[tuple[Message, ...], float]:
    mesh = make_mesh(plan.layout, rank, "fake", TIMEOUT, experts=bool(runnable.experts(plan.model)))
    assert mesh is not None
    share = apply(plan, mesh, device, seed=0, learning_rate=1e-3)
    route_evenly(share.model)
    runner = Runner(plan, mesh, share, device)
    batch = data.microbatches(plan, mesh.place, 0, 0, device)
    held = [*resident(share), *(tensor for pair in batch for tensor in pair)]
    meter = StorageMeter(held, share.updater.gathered())
    recorder = Recorder(dict(named_groups(mesh)))
    observer = _Parts(recorder)
    with meter, recorder:
        runner.step(batch, observer)
    return tuple(_messages(observer)), meter.take_peak()


def named_groups(mesh: Mesh) -> Iterator[tuple[str, Any]]:
    """The groups of a mesh by name; those of a pipeline are told apart by a number."""
    for field in fields(mesh):
        value = getattr(mesh, field.name)
        if field.name in PIPELINE:
            yield from ((f"pp {field.name} {i}", group) for i, group in enumerate(value))
        elif field.name not in ("layout", "rank"):
            group = value.group if isinstance(value, Peers) else value
            yield NAMES.get(field.name, field.name), group


class _Parts:
    """Observes a step and keeps what every action sends, by part of the step."""

    def __init__(self, recorder: Recorder):
        self._recorder, self._seen = recorder, 0
        self.sent: dict[Part, list[Sent]] = {}

    def before(self, action: Action) -> None:
        """What is sent from now on is the action's."""

    def after(self, action: Action) -> None:
        """Take what was sent since."""
        new = self._recorder.sent[self._seen :]
        self._seen += len(new)
        self.sent.setdefault(part_of(action), []).extend(new)


def part_of(action: Action) -> Part:
    """The part of a step that an action belongs to."""
    if action.kind in COMPUTE:
        return "forward" if action.kind == Kind.FORWARD else "backward"
    if action.kind == Kind.REDUCE_GRADIENT:
        return "gradients"
    return "optimizer" if action.kind == Kind.OPTIMIZER else "pipeline"


def _messages(seen: _Parts) -> Iterator[Message]:
    counts: Counter[Line] = Counter()
    for part, sent in seen.sent.items():
        for each in exchanged(sent) if part in RINGS else sent:
            group: Any = each.axis.split()[0]
            op: Any = each.op
            counts[part, op, group, each.ranks, each.message_bytes] += 1
    for (part, op, group, ranks, size), count in counts.items():
        yield Message(part=part, op=op, group=group, ranks=ranks, message_bytes=size, count=count)
