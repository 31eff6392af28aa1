"""Segments: what the columns of a few outer choices cost, whatever recomputes.

A segment of layers costs the same seconds on all ranks between the first and the last, so it is
costed on three ranks at most. Recomputation of its first layers, chosen_k of kind k, adds

    backward   sum_k chosen_k * (again_k + again_tp_k)
    bytes      made again (if there are any) - in flight * sum_k chosen_k * (saved_k - kept_k)

and what meets the whole (floors, overlap) comes last: planner.cost.stages.settled. With m
microbatches in flight on a rank the bytes of a column are, without the allocator's slack,

    states + always there + in flight * of each microbatch
"""

from dataclasses import replace
from functools import cached_property

import numpy as np

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.cost.memory import KEPT, made_again, passing_line, peak_bytes, state_bytes
from planner.cost.pipeline import in_flight
from planner.cost.relaxation import with_columns
from planner.cost.stages import (
    AGAIN,
    AGAIN_TP,
    Bare,
    bare_times,
    hop_seconds,
    settled,
    stage_parameters,
    update_seconds,
)
from planner.search.inner.columns import Columns
from planner.spec.runtime import Recompute


class Segments:
    """Columns under B outer choices of one table (gpipe or 1f1b, one chunk per rank)."""

    def __init__(self, blocks: Blocks, choices: Candidates, columns: Columns):
        self.blocks, self.choices, self.columns = blocks, choices, columns
        p, each = columns.ranks, columns.segments
        ranks = np.array(sorted({0, min(1, p - 1), p - 1}))
        kinds = np.tile(columns.kinds[:each], (len(ranks), 1))
        self.tables = BlockTables(blocks, with_columns(choices, kinds, np.repeat(ranks, each)))
        alike = np.minimum(columns.rank, 1) + (columns.rank == p - 1) * (p > 2)
        self._alike = alike * each + np.arange(len(columns.rank)) % each
        self._states = stage_parameters(self.tables)

    def everywhere(self, values: Floats) -> Floats:
        """Values of segments on the three ranks, at every column, [B, C]."""
        return values[:, self._alike]

    @cached_property
    def flying(self) -> Floats:
        """Microbatches in flight at every column, [B, C]."""
        shape = self.choices.schedule, self.choices.pp, self.choices.microbatches
        return in_flight(*shape)[:, self.columns.rank]

    @cached_property
    def hop(self) -> Floats:
        """Seconds of one transfer between stages, [B]."""
        return hop_seconds(self.blocks, self.choices)

    @cached_property
    def update(self) -> Floats:
        """Seconds of the optimizer, [B, C]."""
        return self.everywhere(update_seconds(self.tables, self._states))

    @cached_property
    def _bare(self) -> Bare:
        found = bare_times(self.tables, self._states)
        sent = None
        if found.sent is not None:
            sent = self.everywhere(found.sent[0]), self.everywhere(found.sent[1])
        whole = (found.forward, found.backward, found.reduction)
        forward, backward, reduction = (self.everywhere(values) for values in whole)
        return Bare(forward, backward, sent, reduction)

    def seconds(self, mode: Recompute, again: Ints) -> tuple[Floats, Floats, Floats]:
        """Forward, backward and exposed reduction where the first `again` layers recompute."""
        bare = self._bare
        if mode != "none":
            added = [self._layers(field) for field in (AGAIN[mode], AGAIN_TP.get(mode)) if field]
            more = self._over(np.sum(added, axis=0), again)
            bare = replace(bare, backward=bare.backward + more)
        counts = np.broadcast_to(self.columns.held[None], again.shape)
        return settled(self.blocks, replace(self.choices, counts=counts), bare)

    @cached_property
    def _always(self) -> Floats:
        return self.everywhere(state_bytes(self.tables) + passing_line(self.tables)[0])

    @cached_property
    def _each(self) -> Floats:
        return self.everywhere(passing_line(self.tables)[1])

    def peak(self, mode: Recompute, again: Ints) -> Floats:
        """Bytes of every column where the first `again` layers recompute, [B, C]."""
        always, each = self._always, self._each
        if mode != "none":
            once = made_again(self.tables, mode)[:, :1]
            always = np.where(again > 0, always + once, always)
            each = each - self._over(self.saves(mode), again)
        return peak_bytes(self.blocks, always + self.flying * each)

    def saves(self, mode: Recompute) -> Floats:
        """Bytes of a microbatch that a layer of every kind keeps less where it recomputes,
        [B, kinds]."""
        kept = KEPT[mode]
        assert kept is not None
        return self._layers("saved_bytes") - self._layers(kept)

    def _layers(self, field: str) -> Floats:
        """A field of every kind of layer, [B, kinds]."""
        return np.stack([self.tables.column(kind, field) for kind in self.blocks.kinds], axis=1)

    def _over(self, each: Floats, again: Ints) -> Floats:
        """The sum over the first `again` layers of what those of every kind have, [B, C]."""
        chosen, total = self.columns.chosen(again), np.zeros(again.shape)
        for kind in range(each.shape[1]):
            total += each[:, kind, None] * chosen[:, :, kind]
        return total
