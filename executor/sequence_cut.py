"""SequenceCut: which positions of every sequence a rank of a context-parallel group holds.

On c ranks, rank r of a sequence of s tokens:

    whole     r*s/c .. (r+1)*s/c
    halves    of 2c chunks the r-th from the front and the r-th from the back

Under a causal mask a late position sees many keys and an early one few; with halves every rank
has as many pairs of query and key as any other (Llama 3, 2024).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from planner.spec.layout import Layout


@dataclass(frozen=True, slots=True)
class SequenceCut:
    """Rank `rank` of `ranks`, of sequences of seq_len tokens; halves: a chunk from each end."""

    seq_len: int
    rank: int = 0
    ranks: int = 1
    halves: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of one sequence on this rank."""
        return self.seq_len // self.ranks

    def positions(self, device: torch.device | None = None) -> Tensor:
        """The positions in order, [tokens]."""
        chunks = [
            torch.arange(i * self._chunk, (i + 1) * self._chunk, device=device)
            for i in self._chunks
        ]
        return torch.cat(chunks) if len(chunks) > 1 else chunks[0]

    def of(self, sequences: Tensor) -> Tensor:
        """The rank's columns of [b, seq_len]."""
        if self.ranks == 1:
            return sequences
        parts = [sequences.narrow(1, i * self._chunk, self._chunk) for i in self._chunks]
        return torch.cat(parts, dim=1)

    @property
    def _chunk(self) -> int:
        return self.tokens // len(self._chunks)

    @property
    def _chunks(self) -> tuple[int, ...]:
        return (self.rank, 2 * self.ranks - 1 - self.rank) if self.halves else (self.rank,)


def cut_of(layout: Layout, seq_len: int, rank: int) -> SequenceCut:
    """What a rank of the cp axis holds. By all-to-all every rank attends to whole sequences."""
    halves = layout.cp > 1 and layout.cp_style != "all_to_all"
    return SequenceCut(seq_len, rank, layout.cp, halves)
