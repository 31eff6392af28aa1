"""The project's own executor as a program: one rank's share of a plan, and its step.

forward and backward of one microbatch, then the gradients' reduction and the update
"""

import datetime

import torch
import torch.distributed as dist
from torch import Tensor

from executor.apply import apply
from executor.mesh import close_mesh, make_mesh
from executor.sent import Sent
from planner.spec.plan import Plan
from tests.ledger.recorder import record

TIMEOUT = datetime.timedelta(seconds=30)


def step(plan: Plan) -> list[Sent]:
    """What the running (fake) job's rank sends in one step of a plan without pipeline stages.

    The norm of the gradients, one number summed over all ranks, has the axis "everyone".
    """
    mesh = make_mesh(plan.layout, dist.get_rank(), "fake", TIMEOUT)
    share = apply(plan, mesh, torch.device("cpu"), seed=0, learning_rate=1e-3)
    shape = plan.layout.micro_batch, plan.workload.seq_len // plan.layout.cp
    tokens = torch.arange(shape[0] * shape[1]).view(shape) % plan.model.vocab

    def forward() -> Tensor:
        return share.model(tokens, tokens)

    def after() -> None:
        share.updater.reduce()
        share.updater.update()

    axes = {"tp": mesh.tp, "cp": mesh.cp, "dp": mesh.dp, "everyone": mesh.everyone}
    sent = record(axes, forward, after)
    close_mesh(mesh)
    return sent
