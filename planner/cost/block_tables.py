"""Block tables: what the blocks of a table of candidates cost, summed over the columns' layers.

A column holds layers of every kind, the embedding if its rank is first and the head if it is last;
a field of their costs (planner.cost.blocks) is a sum over them. Divisions that many rows share are
costed once, and a block only as far as a division matters to it.
"""

from collections.abc import Iterable, Mapping
from functools import cache

import numpy as np

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.cost.distinct import distinct_rows
from planner.cost.divisions import Division, Divisions
from planner.graph.operator import Block, LayerKind
from planner.schedule.orders import V_SHAPED
from planner.spec.runtime import Recompute


def kind_counts(blocks: Blocks, counts: Ints) -> Ints:
    """Layers of each kind in each stage, [N, pp, kinds]. counts: layers per stage, [N, pp]."""
    before = blocks.kinds_before
    ends = counts.cumsum(axis=1)
    result: Ints = before[ends] - before[ends - counts]
    return result


class BlockTables:
    """The costs of every block for a table of candidates: distinct ones, and who uses which.

    first, last: columns that hold the embedding, the head, [S]. layers: [N, S, kinds].
    """

    def __init__(self, blocks: Blocks, candidates: Candidates, alike: "BlockTables | None" = None):
        """alike: of candidates that are divided in the same way, row by row."""
        self.blocks, self.candidates = blocks, candidates
        found = _divisions(blocks, candidates) if alike is None else alike.divided
        self.divided: tuple[Divisions, Ints] = found
        self.divisions, self.index = found
        self.layers = self._layers()
        ranks = candidates.ranks_of_columns
        self.first = ranks == 0
        self.last = ranks == (0 if _ends_at_first(candidates) else candidates.pp - 1)
        if candidates.chunk is not None:
            self.first = self.first & (candidates.chunk == 0)
            self.last = self.last & (candidates.chunk == candidates.vpp - 1)
        self._coarser: dict[tuple[str, ...], tuple[Divisions, Ints]] = {}
        if alike is not None:
            self._coarser = alike._coarser
        self.column = cache(self._column)

    def _layers(self) -> Ints:
        candidates = self.candidates
        if candidates.kinds is not None:
            return candidates.kinds
        if len(self.blocks.kinds) == 1:
            return candidates.counts[:, :, None]
        return kind_counts(self.blocks, candidates.counts)

    def _column(self, block: Block, field: str) -> Floats:
        """One field of a block's cost per candidate, [N]."""
        divisions, index = self._of_block(block)
        return self.blocks.costs(block, divisions, field)[index]

    def _of_block(self, block: Block) -> tuple[Divisions, Ints]:
        """The divisions as far as they matter to a block."""
        names = _irrelevant(self.blocks, block)
        if not names:
            return self.divisions, self.index
        if names not in self._coarser:
            distinct, index = distinct_rows(_coarse(self.divisions.rows, names))
            self._coarser[names] = Divisions(distinct), index[self.index]
        return self._coarser[names]

    def over_layers(self, field: str) -> Floats:
        """The sum of a field over the layers of each stage, [N, S]."""
        return self._over_kinds(field, self.layers)

    def over_some(self, field: str, chosen: Ints) -> Floats:
        """The sum of a field over the chosen layers, [N, S].

        chosen: [N, S, kinds], or [N, S]; then the kinds take equal shares.
        """
        if chosen.ndim == 3:
            return self._over_kinds(field, chosen)
        if len(self.blocks.kinds) == 1:
            return self._over_kinds(field, chosen[:, :, None])
        share = chosen / np.maximum(self.candidates.counts, 1)
        return self._over_kinds(field, self.layers * share[:, :, None])

    def over_recomputed(self, fields: Mapping[Recompute, str | None]) -> Floats:
        """The sum over the layers that recompute of the field of their mode, [N, S]."""
        candidates = self.candidates
        total = np.zeros(candidates.counts.shape)
        strongest = fields.get(candidates.recompute)
        if strongest is not None:
            total = total + self.over_some(strongest, candidates.recomputed)
        weaker = fields.get("selective")
        if candidates.selective is not None and weaker is not None and candidates.selective.any():
            total = total + self.over_some(weaker, candidates.selective)
        return total

    def over_stages(self, field: str) -> Floats:
        """The sum over everything that a stage holds, [N, S]."""
        return self.over_layers(field) + self.at_ends(field)

    def at_ends(self, field: str) -> Floats:
        """A field of the embedding on first stages and of the head on last ones, [N, S]."""
        first = self.column("embedding", field)[:, None] * self.first
        total: Floats = first + self.column("head", field)[:, None] * self.last
        return total

    def largest(self, field: str) -> Floats:
        """The largest of a field over everything that a stage holds, [N, S]."""
        layer = np.max([self.column(kind, field) for kind in self.blocks.kinds], axis=0)[:, None]
        first = self.column("embedding", field)[:, None] * self.first
        last = self.column("head", field)[:, None] * self.last
        result: Floats = np.maximum(np.maximum(layer, first), last)
        return result

    def _over_kinds(self, field: str, counted: Ints | Floats) -> Floats:
        total = np.zeros(self.candidates.counts.shape)
        for index, kind in enumerate(self.blocks.kinds):
            total += self.column(kind, field)[:, None] * counted[:, :, index]
        return total


def _ends_at_first(candidates: Candidates) -> bool:
    """Whether the head lies on the first rank: an even number of chunks in the shape of a V."""
    return candidates.schedule in V_SHAPED and candidates.vpp % 2 == 0


def _irrelevant(blocks: Blocks, block: Block) -> tuple[str, ...]:
    """Fields of a division that do not matter to a block: experts to those who have none, the style
    of attention to the ends."""
    if blocks.has_experts(block):
        return ()
    experts = ("ep", "etp", "ep_stride")
    return experts if isinstance(block, LayerKind) else (*experts, "cp_stride", "cp_style")


def _coarse(rows: Ints, names: tuple[str, ...]) -> Ints:
    """Divisions without what does not matter."""
    rows = rows.copy()
    for name in names:
        rows[:, Division._fields.index(name)] = 0 if name == "cp_style" else 1
    return rows


def cost_together(blocks: Blocks, tables: Iterable[Candidates]) -> None:
    """Cost the divisions of many tables at once: one pass over long columns for each block."""
    keys = [distinct_rows(_division_rows(blocks, table))[0] for table in tables]
    if not keys:
        return
    rows = distinct_rows(np.concatenate(keys))[0]
    every: tuple[Block, ...] = (*blocks.kinds, "embedding", "head")
    for block in every:
        own = distinct_rows(_coarse(rows, _irrelevant(blocks, block)))[0]
        blocks.costs(block, Divisions(own), "forward")


def _divisions(blocks: Blocks, candidates: Candidates) -> tuple[Divisions, Ints]:
    """The distinct divisions of a table, and which of them every row uses."""
    distinct, index = distinct_rows(_division_rows(blocks, candidates))
    return Divisions(distinct), index


def _division_rows(blocks: Blocks, candidates: Candidates) -> Ints:
    """The division of every row.

    How many groups run at once matters only where a profile has measured it.
    """
    tp, cp, dp = (candidates.stride(axis) for axis in ("tp", "cp", "dp"))
    groups = candidates.replicas if blocks.profile else np.ones_like(tp)
    apart = np.minimum(np.minimum(tp, cp), dp) * candidates.etp
    columns = {
        "tp": candidates.tp,
        "micro_batch": candidates.micro_batch,
        "stride": np.where(candidates.tp > 1, tp, 1),
        "groups": groups,
        "cp": candidates.cp,
        "ep": candidates.ep,
        "cp_stride": np.where(candidates.cp > 1, cp, 1),
        "ep_stride": apart,
        "etp": candidates.etp,
        "cp_style": np.where(candidates.cp > 1, candidates.style, 0),
    }
    return np.stack([columns[name] for name in Division._fields], axis=1)
