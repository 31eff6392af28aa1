"""Layers whose weights are divided over data-parallel ranks by torch's own FSDP2.

    ZeRO 3   weights are gathered for the forward, dropped, gathered again for the backward
    ZeRO 2   weights stay whole between forward and backward
    HSDP     weights are divided over a shard group and repeated over the replicas

Weights are kept in fp32, gathered in the format of activations; gradients are summed in fp32.
The job's ranks are (replicas, shards, tp), tp innermost; experts see the same ranks as
(dp, ep, etp), and are a group of parameters of their own.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from planner.spec.layer import Experts, LayerSpec
from planner.spec.model import ModelSpec
from tests.ledger import grid
from tests.ledger.programs.axes import Axes
from tests.ledger.programs.layer import Layer


@dataclass(frozen=True)
class Ways:
    """How the ranks of the job divide the parameters."""

    zero: int
    shards: int
    replicas: int = 1
    tp: int = 1
    ep: int = 1
    etp: int = 1

    @property
    def ranks(self) -> int:
        return self.shards * self.replicas * self.tp


class ShardedLayer(nn.Module):
    """One layer; rows in, rows out. groups: by the axis of their collectives."""

    def __init__(self, model: ModelSpec, kind: LayerSpec, ways: Ways, dtype: torch.dtype):
        super().__init__()
        inner = ways.ep * ways.etp
        self.groups = {
            **grid.groups({"tp": ways.tp, "dp": ways.shards, "replicas": ways.replicas}),
            **grid.groups({"etp": ways.etp, "ep": ways.ep, "edp": ways.ranks // inner}),
        }
        self.layer = Layer(model, kind, Axes(**self._only("tp", "ep", "etp")))
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        settings = {"reshard_after_forward": ways.zero == 3, "mp_policy": policy}
        if isinstance(kind.feed_forward, Experts):
            experts = self.layer.feed_forward.experts.experts
            fully_shard(experts, mesh=self._mesh("edp"), **settings)
        fully_shard(self.layer, mesh=self._mesh("replicas", "dp"), **settings)

    def _only(self, *axes: str) -> dict[str, Any]:
        return {axis: self.groups[axis] for axis in axes if axis in self.groups}

    def _mesh(self, *axes: str) -> DeviceMesh:
        """The ranks that hold the same parameters; the last axis divides them."""
        found = self._only(*axes)
        if not found:
            return DeviceMesh("cpu", [dist.get_rank()])
        if len(found) == 1:
            return DeviceMesh.from_group(*found.values(), "cpu", mesh_dim_names=tuple(found))
        outer, lines = (dist.get_process_group_ranks(group) for group in found.values())
        ranks = [[line - lines[0] + first for line in lines] for first in outer]
        return DeviceMesh.from_group(
            list(found.values()), "cpu", mesh=ranks, mesh_dim_names=tuple(found)
        )

    def forward(self, x: Tensor, batch: int, encoded: Tensor) -> Tensor:
        return self.layer(x, batch, encoded)
