"""Mesh: one rank's place in the layout and its process groups.

    tp, dp     ranks that differ only on that axis
    forward    the ranks of one pipeline, for activations
    backward   the same ranks again, for gradients: on NCCL a communicator runs its messages in
               order, so one group for both directions could deadlock
    tied       first and last stage of one pipeline, for tied embeddings
    everyone   all ranks of the layout

Every process of the job creates all groups in the same order, also those it is not in.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

from executor.collectives import Group
from planner.spec.layout import Layout

Ranks = tuple[int, ...]


@dataclass(frozen=True)
class Mesh:
    """What one rank knows of its neighbours. Groups of one rank are None."""

    layout: Layout
    rank: int
    tp: Group
    dp: Group
    forward: Group
    backward: Group
    tied: Group
    everyone: Group

    def coordinate(self, axis: str) -> int:
        """This rank's index on an axis."""
        return self.layout.coordinates(self.rank)[axis]

    @property
    def stage(self) -> int:
        """The pipeline stage that this rank holds."""
        return self.coordinate("pp")

    def rank_of_stage(self, stage: int) -> int:
        """The rank of another stage in this rank's pipeline."""
        place = {**self.layout.coordinates(self.rank), "pp": stage}
        return self.layout.rank_of(**place)


def make_mesh(layout: Layout, rank: int, backend: str, timeout: timedelta) -> Mesh | None:
    """Create all groups of a layout on the ranks 0 .. devices-1 of the running job.

    Collective: every process of the job calls it. None on a process beyond the layout. timeout:
    how long a rank waits for another before it raises.
    """
    make = _maker(rank, backend, timeout)
    lines = {axis: _lines(layout, axis) for axis in ("tp", "dp", "pp")}
    tp, dp = make(lines["tp"]), make(lines["dp"])
    forward, backward = make(lines["pp"]), make(lines["pp"])
    tied = make((line[0], line[-1]) for line in lines["pp"] if len(line) > 1)
    everyone = make([tuple(range(layout.devices))])
    if rank >= layout.devices:
        return None
    return Mesh(layout, rank, tp, dp, forward, backward, tied, everyone)


def close_mesh(mesh: Mesh) -> None:
    """Destroy the groups, for processes that run several plans in turn."""
    groups = (mesh.tp, mesh.dp, mesh.forward, mesh.backward, mesh.tied, mesh.everyone)
    for group in groups:
        if group is not None:
            dist.destroy_process_group(group)


def _maker(rank: int, backend: str, timeout: timedelta) -> Callable[[Iterable[Ranks]], Group]:
    def make(lines: Iterable[Ranks]) -> Group:
        mine = None
        for line in lines:
            if len(line) > 1:
                group = dist.new_group(line, backend=backend, timeout=timeout)
                mine = group if rank in line else mine
        return mine

    return make


def _lines(layout: Layout, axis: str) -> list[Ranks]:
    """All groups of an axis, by their first rank."""
    found = {layout.group(rank, axis) for rank in range(layout.devices)}  # type: ignore[arg-type]
    return sorted(found)
