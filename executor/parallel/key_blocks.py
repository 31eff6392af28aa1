"""Key blocks: how a rank of a context-parallel group meets the keys and values of all ranks.

    Ring       a block comes from the previous rank and goes on to the next, while the own is
               worked on; in the backward the sums of its gradients follow it, and come home
    Gathered   all blocks at once; in the backward a reduce-scatter of the gradients

Gradients of several blocks add up in fp32 or wider.
"""

from collections.abc import Iterator
from typing import Protocol, Self

import torch
import torch.distributed as dist
from torch import Tensor

from executor.parallel import collectives
from executor.parallel.collectives import Group

Pair = tuple[Tensor, Tensor]
"""Keys and values, or their gradients."""


class Blocks(Protocol):
    """One attention's blocks in one pass. rank: of the group."""

    rank: int

    @classmethod
    def start(cls, k: Tensor, v: Tensor, group: Group) -> Self:
        """For the forward, from the own keys and values [b, heads, s/c, d]."""

    @classmethod
    def again(cls, k: Tensor, v: Tensor, group: Group) -> Self:
        """For the backward, from what was kept."""

    def kept(self) -> Pair:
        """What again() needs."""

    def seen(self) -> Iterator[tuple[int, Pair]]:
        """Owner, keys and values of every block, the own first."""

    def add(self, dk: Tensor, dv: Tensor) -> None:
        """Gradients of the block that is seen now: of its first rows, as many as there are."""

    def gradients(self) -> Pair:
        """Of the own keys and values, from all ranks, once all blocks were seen."""


class Ring:
    """Blocks go round. sums: gradients of the block that is seen now."""

    def __init__(self, k: Tensor, v: Tensor, group: Group, sums: Pair | None = None):
        self.own, self.group, self.sums = (k, v), group, sums
        self.rank, self.ranks = dist.get_rank(group), dist.get_world_size(group)

    @classmethod
    def start(cls, k: Tensor, v: Tensor, group: Group) -> Self:
        """As Blocks."""
        return cls(k, v, group)

    @classmethod
    def again(cls, k: Tensor, v: Tensor, group: Group) -> Self:
        """As Blocks."""
        return cls(k, v, group, (_wide_zeros(k), _wide_zeros(v)))

    def kept(self) -> Pair:
        """As Blocks: the own."""
        return self.own

    def seen(self) -> Iterator[tuple[int, Pair]]:
        """As Blocks. The next block travels while this one is worked on."""
        block = self.own
        for step in range(self.ranks):
            coming = _Passing(*block, self.group) if step + 1 < self.ranks else None
            yield (self.rank - step) % self.ranks, block
            if self.sums is not None:
                self.sums = _Passing(*self.sums, self.group).arrived()
            if coming is not None:
                block = coming.arrived()

    def add(self, dk: Tensor, dv: Tensor) -> None:
        """As Blocks."""
        _add(self._totals(), (dk, dv))

    def gradients(self) -> Pair:
        """As Blocks: the sums are home."""
        return self._totals()

    def _totals(self) -> Pair:
        assert self.sums is not None, "a forward has no gradients"
        return self.sums


class _Passing:
    """Two tensors on their way to the next rank as one message, and two from the previous."""

    def __init__(self, k: Tensor, v: Tensor, group: Group):
        self.shapes = k.shape, v.shape
        self.sent = torch.cat((k.flatten(), v.flatten()))
        self.received = torch.empty_like(self.sent)
        rank, ranks = dist.get_rank(group), dist.get_world_size(group)
        following, previous = (
            dist.get_global_rank(group, (rank + step) % ranks) for step in (1, -1)
        )
        self.works = dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, self.sent, following, group),
                dist.P2POp(dist.irecv, self.received, previous, group),
            ]
        )

    def arrived(self) -> Pair:
        """Wait; the tensors from the previous rank."""
        for work in self.works:
            work.wait()
        first, second = self.received.split([shape.numel() for shape in self.shapes])
        return first.view(self.shapes[0]), second.view(self.shapes[1])


class Gathered:
    """All ranks' keys and values, one after another, [ranks, b, heads, s/c, d]."""

    def __init__(self, keys: Tensor, values: Tensor, group: Group, sums: Pair | None = None):
        self.keys, self.values, self.group, self.sums = keys, values, group, sums
        self.rank = self.owner = dist.get_rank(group)

    @classmethod
    def start(cls, k: Tensor, v: Tensor, group: Group) -> Self:
        """As Blocks: gather."""
        return cls(_all(k, group), _all(v, group), group)

    @classmethod
    def again(cls, k: Tensor, v: Tensor, group: Group) -> Self:
        """As Blocks."""
        return cls(k, v, group, (_wide_zeros(k), _wide_zeros(v)))

    def kept(self) -> Pair:
        """As Blocks: all of them."""
        return self.keys, self.values

    def seen(self) -> Iterator[tuple[int, Pair]]:
        """As Blocks."""
        ranks = len(self.keys)
        for step in range(ranks):
            self.owner = (self.rank - step) % ranks
            yield self.owner, (self.keys[self.owner], self.values[self.owner])

    def add(self, dk: Tensor, dv: Tensor) -> None:
        """As Blocks."""
        keys, values = self._totals()
        _add((keys[self.owner], values[self.owner]), (dk, dv))

    def gradients(self) -> Pair:
        """As Blocks: reduce-scatter."""
        keys, values = (total.to(self.keys.dtype) for total in self._totals())
        return _own_sum(keys, self.group), _own_sum(values, self.group)

    def _totals(self) -> Pair:
        assert self.sums is not None, "a forward has no gradients"
        return self.sums


def _wide_zeros(x: Tensor) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    return torch.zeros_like(x, dtype=wide, memory_format=torch.contiguous_format)


def _add(totals: Pair, grads: Pair) -> None:
    for total, grad in zip(totals, grads, strict=True):
        total[:, :, : grad.shape[2]] += grad


def _all(x: Tensor, group: Group) -> Tensor:
    whole = x.new_empty(dist.get_world_size(group), *x.shape)
    collectives.all_gather(whole.flatten(0, 1), x.contiguous(), group)
    return whole


def _own_sum(x: Tensor, group: Group) -> Tensor:
    part = x.new_empty(x.shape[1:])
    collectives.reduce_scatter(part, x.flatten(0, 1), group)
    return part
