"""Columns: ranks of a pipeline with every segment of layers that they may hold.

A segment is known by the kinds of each of its prefixes, because what recomputes is a prefix; where
layers are of one kind that is its length. A rank costs what its place makes of it: the first has
the embedding, the last the head, and between them all cost the same seconds. Only what is kept for
microbatches in flight differs from rank to rank.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.spec.runtime import Recompute


@dataclass(frozen=True, slots=True)
class Columns:
    """Ranks with layers: C columns, rank by rank. rank: [C]; kinds: [C, K]; prefix: kinds of the
    first r layers of a column, [C, N + 1, K]; place: the column of (i, u, n), [p, U, N + 1], -1 for
    none."""

    rank: Ints
    kinds: Ints
    prefix: Ints
    place: Ints

    @classmethod
    def of(cls, blocks: Blocks, p: int, most: int) -> "Columns":
        """All columns of p ranks with up to `most` layers (one rank holds them all)."""
        layers = blocks.model.layers
        if len(blocks.kinds) > 1:
            return _of_kinds(tuple(map(tuple, blocks.kinds_before.tolist())), p, most)
        if p == 1:
            whole, place = np.array([[layers]]), np.full((1, 1, layers + 1), -1)
            place[0, 0, layers] = 0
            return cls(np.zeros(1, np.int64), whole, _ramp(whole, layers), place)
        held = np.tile(np.arange(most + 1), p)[:, None]
        place = np.arange(p * (most + 1)).reshape(p, 1, most + 1)
        return cls(np.repeat(np.arange(p), most + 1), held, _ramp(held, most), place)

    @property
    def ranks(self) -> int:
        """p."""
        return len(self.place)

    @property
    def segments(self) -> int:
        """Columns of each rank."""
        return len(self.rank) // self.ranks

    @property
    def held(self) -> Ints:
        """Layers of every column, [C]."""
        held: Ints = self.kinds.sum(axis=1)
        return held

    def chosen(self, again: Ints) -> Ints:
        """Kinds of the first `again` [B, C] layers of every column, [B, C, K]."""
        if self.kinds.shape[1] == 1:
            return again[:, :, None]
        kinds: Ints = self.prefix[np.arange(len(self.rank))[None, :], again]
        return kinds

    def choices(self, choices: Candidates, mode: Recompute, again: Ints) -> Candidates:
        """The columns under outer choices, the first `again` [B, C] layers recomputing."""
        rows = len(choices)
        kinds = np.broadcast_to(self.kinds[None], (rows, *self.kinds.shape))
        chosen = self.chosen(again)
        return replace(
            choices,
            recompute=mode,
            counts=kinds.sum(axis=2),
            kinds=kinds,
            recomputed=chosen if mode != "none" else np.zeros_like(chosen),
            stage=self.rank,
        )

    def spread(self, values: Floats) -> Floats:
        """Values of columns, [B, C], at (i, u, n); infinite where there is no column."""
        padded = np.append(values, np.full((len(values), 1), np.inf), axis=1)
        return padded[:, self.place]


@lru_cache(maxsize=256)
def _of_kinds(kinds_before: tuple[tuple[int, ...], ...], p: int, most: int) -> Columns:
    """Columns of a model with several kinds of layers; kinds_before: as in Blocks."""
    before, layers = np.array(kinds_before), len(kinds_before) - 1
    if p == 1:
        most = layers
    start, held = np.arange(layers + 1)[:, None], np.arange(most + 1)[None, :]
    ends = np.minimum(start + held, layers)
    # a segment is known by the kinds of each of its prefixes
    steps = np.minimum(start[:, :, None] + np.arange(most + 1)[None, None, :], ends[:, :, None])
    prefix = before[steps] - before[start[:, :, None]]
    legal = start + held <= layers
    if p == 1:
        legal &= held == layers
    flat = prefix.reshape(-1, (most + 1) * prefix.shape[3])
    distinct, index = np.unique(flat, axis=0, return_inverse=True)
    prefixes = distinct.reshape(len(distinct), most + 1, prefix.shape[3])
    index = np.where(legal, index.reshape(legal.shape), -1)
    used, again = np.unique(index[index >= 0], return_inverse=True)
    index[index >= 0] = again
    prefixes = prefixes[used]
    count = len(used)
    offsets = (np.arange(p) * count)[:, None, None]
    place = np.where(index[None] >= 0, index[None] + offsets, -1)
    tiled = np.tile(prefixes, (p, 1, 1))
    return Columns(np.repeat(np.arange(p), count), tiled[:, -1], tiled, place)


def _ramp(held: Ints, most: int) -> Ints:
    """The kinds of every prefix where there is one kind, [C, most + 1, 1]."""
    return np.minimum(np.arange(most + 1)[None, :, None], held[:, :, None])
