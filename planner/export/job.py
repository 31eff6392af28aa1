"""Job: what every launch file needs to know of a plan.

A plan's ranks fill whole nodes, `devices_per_node` each, except when all fit on a part of one. The
ranks of a node are consecutive, which torchrun keeps; in which order the nodes come does not
matter, because all of them are alike.
"""

import re
from dataclasses import dataclass

from planner.spec.documents import InputError
from planner.spec.plan import Plan

PORT = 29400
"""torchrun's own default for its rendezvous."""

CONFIG_MAP_BYTES = 2**20
"""What Kubernetes lets a ConfigMap hold."""


@dataclass(frozen=True, slots=True)
class Job:
    """nodes with ranks_per_node ranks each. name: letters, digits and dashes. title: one line."""

    name: str
    title: str
    nodes: int
    ranks_per_node: int
    gpus: bool
    plan_json: str

    @classmethod
    def of(cls, plan: Plan) -> "Job":
        """The job of a plan. Raises InputError where its ranks do not fill nodes."""
        ranks, per_node = plan.layout.devices, plan.cluster.devices_per_node
        if ranks > per_node and ranks % per_node:
            raise InputError(
                f"the plan's {ranks} ranks do not fill nodes of {per_node} devices; plan for a "
                f"multiple of {per_node}"
            )
        bare = plan.replace(profile=None, why=())
        return cls(
            name=_name(plan.model.name),
            title=f"{plan.model.name} on {plan.cluster.name}: {plan.title}",
            nodes=max(ranks // per_node, 1),
            ranks_per_node=min(ranks, per_node),
            gpus=plan.cluster.accelerator.kind == "cuda",
            plan_json=bare.model_dump_json(indent=1) + "\n",
        )

    def torchrun(self, endpoint: str, identity: str) -> list[str]:
        """The command of one node, without the options of the training."""
        return [
            "torchrun",
            f"--nnodes={self.nodes}",
            f"--nproc-per-node={self.ranks_per_node}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={endpoint}",
            f"--rdzv-id={identity}",
            "--rdzv-conf=join_timeout=600",
            "--max-restarts=3",
            "-m",
            "executor.training",
        ]


TRAINING = ("--timeout=10min", "--checkpoint-every=100", "--resume")
"""Every wait is finite, and whatever restarts goes on from the last checkpoint."""


def _name(text: str) -> str:
    """A name that Slurm and Kubernetes both take (RFC 1123: at most 63; room for a suffix)."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")
    return f"meshwright-{plain}" if plain else "meshwright"
