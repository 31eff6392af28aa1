"""The project's own executor as a program: one rank's share of a plan, and its step.

forward and backward of one microbatch, then the gradients' reduction and the update
"""

import datetime

import torch
import torch.distributed as dist
from torch import Tensor

from executor import data
from executor.alone.sent import Sent
from executor.apply import apply
from executor.parallel.mesh import close_mesh, make_mesh
from executor.transformer.experts import route_evenly
from planner.spec import runnable
from planner.spec.plan import Plan
from tests.ledger.recorder import record

TIMEOUT = datetime.timedelta(seconds=30)


def step(plan: Plan) -> list[Sent]:
    """What the running (fake) job's rank sends in one step of a plan without pipeline stages.

    The norm of the gradients, one number summed over all ranks, has the axis "everyone".
    """
    mesh = make_mesh(
        plan.layout, dist.get_rank(), "fake", TIMEOUT, bool(runnable.experts(plan.model))
    )
    cpu = torch.device("cpu")
    share = apply(plan, mesh, cpu, seed=0, learning_rate=1e-3)
    route_evenly(share.model)
    tokens, targets = data.microbatches(plan, mesh.place, 0, 0, cpu)[0]

    def forward() -> Tensor:
        return share.model(tokens, targets)

    def after() -> None:
        share.updater.reduce()
        share.updater.update()

    groups = {"ep": mesh.ep, "etp": mesh.etp, "edp": mesh.experts}
    axes = {"tp": mesh.tp, "cp": mesh.cp, "dp": mesh.dp, "everyone": mesh.everyone}
    axes |= {name: None if peers is None else peers.group for name, peers in groups.items()}
    sent = record(axes, forward, after)
    close_mesh(mesh)
    return sent
