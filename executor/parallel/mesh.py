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
    etp, ep    of the ranks of a stage, side by side: etp neighbours share an expert, ep such groups
               have one copy of all experts; experts: the ranks with the same part, which sum its
               gradients. Made on demand

Every process of the job creates all groups in the same order, also those it is not in.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

from executor.parallel.collectives import Group
from planner.schedule.orders import rank_of_stage
from planner.spec.layout import Layout
from planner.spec.runtime import Axis

Ranks = tuple[int, ...]
Links = tuple[Group, Group]
"""For messages to a higher and to a lower rank of the pipeline."""


@dataclass(frozen=True, slots=True)
class Peers:
    """A rank's place among the ranks of a group."""

    group: Group = None
    rank: int = 0
    size: int = 1


@dataclass(frozen=True, slots=True)
class Sharers:
    """The ranks that hold the same parameters. shard: those that divide a copy of the states;
    copies: those that have the same share of it."""

    whole: Peers
    shard: Peers
    copies: Group


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
    ep: Peers | None = None
    etp: Peers | None = None
    experts: Peers | None = None

    def coordinate(self, axis: str) -> int:
        """This rank's index on an axis."""
        return self.layout.coordinates(self.rank)[axis]

    @property
    def place(self) -> dict[str, int]:
        """This rank's index on every axis."""
        return self.layout.coordinates(self.rank)

    def sharers(self, experts: bool) -> Sharers:
        """Who holds the same parameters of a stage, or the same of its experts."""
        if not experts:
            whole = Peers(self.dp, self.replica, self.replicas)
            return Sharers(whole, Peers(self.shard, self.place_in_shard, self.shards), self.copies)
        assert self.experts is not None, "a mesh without the groups of experts"
        return Sharers(self.experts, self.experts, None)

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


def make_mesh(
    layout: Layout, rank: int, backend: str, timeout: timedelta, experts: bool = False
) -> Mesh | None:
    """Create all groups of a layout on the ranks 0 .. devices-1 of the running job.

    Collective: every process of the job calls it. None on a process beyond the layout. timeout:
    how long a rank waits for another before it raises. experts: make their groups too.
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
    expert_lines = _expert_lines(layout) if experts else ()
    groups = [(lines, make(lines)) for lines in expert_lines]
    if rank >= layout.devices:
        return None
    peers = [_peers(lines, rank, group) for lines, group in groups]
    ends_of_all = forward, backward, tied, everyone
    return Mesh(layout, rank, tp, cp, dp, *ends_of_all, shard, copies, *peers)


def close_mesh(mesh: Mesh) -> None:
    """Destroy the groups, for processes that run several plans in turn."""
    axes = [mesh.tp, mesh.cp, mesh.dp, mesh.shard, mesh.copies]
    axes += [peers.group for peers in (mesh.ep, mesh.etp, mesh.experts) if peers is not None]
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


def _expert_lines(layout: Layout) -> tuple[list[Ranks], list[Ranks], list[Ranks]]:
    """The groups of the axes ep, etp and experts."""
    stages: dict[int, list[int]] = {}
    for rank in range(layout.devices):
        stages.setdefault(layout.coordinates(rank)["pp"], []).append(rank)
    own, both = layout.etp, layout.ep * layout.etp
    ep, etp, experts = list[Ranks](), list[Ranks](), list[Ranks]()
    for ranks in stages.values():
        experts += [tuple(ranks[i::both]) for i in range(both)]
        for copy in (ranks[i : i + both] for i in range(0, len(ranks), both)):
            ep += [tuple(copy[i::own]) for i in range(own)]
            etp += [tuple(copy[i : i + own]) for i in range(0, both, own)]
    return ep, etp, experts


def _peers(lines: list[Ranks], rank: int, group: Group) -> Peers:
    line = next(line for line in lines if rank in line)
    return Peers(group, line.index(rank), len(line))
