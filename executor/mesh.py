"""Mesh: one rank's place in the layout and its process groups.

    tp, cp     ranks that differ only on that axis
    dp         the ranks that hold the same parameters of a stage: they differ on dp or cp only,
               and sum their gradients; in the order of their ranks
    shard      those of them that ZeRO divides one copy of the states over, and `copies` those that
               have the same share of it: contiguous groups and what connects them (hybrid sharding;
               without it all of dp are one shard group)
    forward    the ranks of one pipeline, for activations
    backward   the same ranks again, for gradients: on NCCL a communicator runs its messages in
               order, so one group for both directions could deadlock. Where ranks hold several
               chunks, activations and gradients go both ways, each way in a group of its own
    tied       the ranks of first and last stage of one pipeline, for tied embeddings; none where
               one rank holds both
    everyone   all ranks of the layout

Every process of the job creates all groups in the same order, also those it is not in.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

from executor.collectives import Group
from planner.schedule.orders import rank_of_stage
from planner.spec.layout import Layout
from planner.spec.runtime import Axis

Ranks = tuple[int, ...]
Links = tuple[Group, Group]
"""For messages to a higher and to a lower rank of the pipeline."""


@dataclass(frozen=True)
class Mesh:
    """What one rank knows of its neighbours. Groups of one rank are None."""

    layout: Layout
    rank: int
    tp: Group
    cp: Group
    dp: Group
    forward: Links
    backward: Links
    tied: Group
    everyone: Group
    shard: Group = None
    copies: Group = None

    def coordinate(self, axis: str) -> int:
        """This rank's index on an axis."""
        return self.layout.coordinates(self.rank)[axis]

    @property
    def place(self) -> dict[str, int]:
        """This rank's index on every axis."""
        return self.layout.coordinates(self.rank)

    @property
    def replicas(self) -> int:
        """How many ranks hold the same parameters."""
        return self.layout.dp * self.layout.cp

    @property
    def replica(self) -> int:
        """This rank's index among them."""
        return _alike(self.layout, self.rank).index(self.rank)

    @property
    def shards(self) -> int:
        """Over how many ranks ZeRO divides one copy of the states."""
        return self.layout.shard or self.replicas

    @property
    def place_in_shard(self) -> int:
        """This rank's index among them."""
        return self.replica % self.shards

    @property
    def stages(self) -> tuple[int, ...]:
        """The pipeline stages that this rank holds, in the order of the model."""
        here = self.coordinate("pp")
        return tuple(stage for stage, rank in enumerate(_placed(self.layout)) if rank == here)

    @property
    def holds_first(self) -> bool:
        """Whether this rank has the embedding."""
        return 0 in self.stages

    @property
    def holds_last(self) -> bool:
        """Whether this rank has the head and the loss."""
        return self.layout.pp * self.layout.vpp - 1 in self.stages

    def rank_of_stage(self, stage: int) -> int:
        """The rank of another stage in this rank's pipeline."""
        place = {**self.layout.coordinates(self.rank), "pp": _placed(self.layout)[stage]}
        return self.layout.rank_of(**place)

    def link(self, links: Links, source: int, target: int) -> Group:
        """The group for a message from one stage to another."""
        placed = _placed(self.layout)
        return links[0] if placed[target] > placed[source] else links[1]


def make_mesh(layout: Layout, rank: int, backend: str, timeout: timedelta) -> Mesh | None:
    """Create all groups of a layout on the ranks 0 .. devices-1 of the running job.

    Collective: every process of the job calls it. None on a process beyond the layout. timeout:
    how long a rank waits for another before it raises.
    """
    make = _maker(rank, backend, timeout)
    tp, cp, pipelines = make(_lines(layout, "tp")), make(_lines(layout, "cp")), _lines(layout, "pp")
    alike = sorted({_alike(layout, each) for each in range(layout.devices)})
    dp, size = make(alike), layout.shard or len(alike[0])
    copies = make(line[i::size] for line in alike for i in range(size))
    shard = dp
    if size < len(alike[0]):
        shard = make(line[i : i + size] for line in alike for i in range(0, len(line), size))
    both = layout.vpp > 1
    forward = make(pipelines), make(pipelines if both else [])
    backward = make(pipelines if both else []), make(pipelines)
    ends = _placed(layout)[0], _placed(layout)[-1]
    tied = make((line[ends[0]], line[ends[1]]) for line in pipelines if ends[0] != ends[1])
    everyone = make([tuple(range(layout.devices))])
    if rank >= layout.devices:
        return None
    return Mesh(layout, rank, tp, cp, dp, forward, backward, tied, everyone, shard, copies)


def close_mesh(mesh: Mesh) -> None:
    """Destroy the groups, for processes that run several plans in turn."""
    axes = (mesh.tp, mesh.cp, mesh.dp, mesh.shard, mesh.copies)
    groups = (*axes, *mesh.forward, *mesh.backward, mesh.tied, mesh.everyone)
    for group in dict.fromkeys(groups):
        if group is not None:
            dist.destroy_process_group(group)


def _placed(layout: Layout) -> tuple[int, ...]:
    return rank_of_stage(layout.schedule, layout.pp, layout.vpp)


def _maker(rank: int, backend: str, timeout: timedelta) -> Callable[[Iterable[Ranks]], Group]:
    def make(lines: Iterable[Ranks]) -> Group:
        mine = None
        for line in lines:
            if len(line) > 1:
                group = dist.new_group(line, backend=backend, timeout=timeout)
                mine = group if rank in line else mine
        return mine

    return make


def _lines(layout: Layout, axis: Axis) -> list[Ranks]:
    """All groups of an axis, by their first rank."""
    found = {layout.group(rank, axis) for rank in range(layout.devices)}
    return sorted(found)


def _alike(layout: Layout, rank: int) -> Ranks:
    """The ranks that differ from one on dp and cp only, in order."""
    lines = (layout.group(other, "cp") for other in layout.group(rank, "dp"))
    return tuple(sorted(other for line in lines for other in line))
