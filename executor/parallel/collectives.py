"""Collectives on one group, as the rest of the room calls them. A group of one is None: no-op.

torch 2.13 renamed all_gather_into_tensor and reduce_scatter_tensor to *_single and warns at the
old names, 2.11 has only the old ones; this file is the one place that knows.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Group = Any
"""A torch.distributed process group, or None for a group of one rank."""

_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def all_reduce(x: Tensor, group: Group) -> None:
    """Sum in place."""
    if group is not None:
        dist.all_reduce(x, group=group)


def all_reduce_joined(parts: Sequence[Tensor], group: Group) -> None:
    """Sum several tensors in place with one message; none where all are empty."""
    some = [part for part in parts if part.numel()]
    if group is None or not some:
        return
    joined = some[0] if len(some) == 1 else torch.cat(some)
    all_reduce(joined, group)
    if len(some) > 1:
        for part, summed in zip(some, joined.split([len(part) for part in some]), strict=True):
            part.copy_(summed)


def all_reduce_max(x: Tensor, group: Group) -> None:
    """Maximum in place."""
    if group is not None:
        dist.all_reduce(x, op=dist.ReduceOp.MAX, group=group)


def all_gather(output: Tensor, part: Tensor, group: Group) -> None:
    """Fill the contiguous output [n * k, ...] with the parts [k, ...]; part may lie in output."""
    _all_gather(output, part, group=group)


def reduce_scatter(part: Tensor, whole: Tensor, group: Group) -> None:
    """Sum whole [n * k, ...] over the ranks, keep part [k, ...]; part may lie in whole."""
    _reduce_scatter(part, whole, group=group)


def all_to_all(x: Tensor, group: Group) -> Tensor:
    """The i-th of n equal parts of dim 0 goes to rank i; returns what came, by sender."""
    received = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    # contiguous, because gloo writes wrong data into anything else without a word
    dist.all_to_all_single(received, x.contiguous(), group=group)
    return received


def exchange(sent: Tensor, to: int, received: Tensor, source: int, group: Group) -> None:
    """Send to one rank while receiving from another; empty messages are not sent."""
    both = ((dist.isend, sent, to), (dist.irecv, received, source))
    wanted = [dist.P2POp(op, x, rank, group) for op, x, rank in both if x.numel()]
    for work in dist.batch_isend_irecv(wanted) if wanted else ():
        work.wait()


def all_to_all_uneven(x: Tensor, sent: list[int], received: list[int], group: Group) -> Tensor:
    """The first sent[0] rows go to rank 0, the next sent[1] to rank 1, ..; returns what came."""
    if group is None:
        return x
    whole = torch.empty(sum(received), *x.shape[1:], dtype=x.dtype, device=x.device)
    dist.all_to_all_single(whole, x.contiguous(), received, sent, group=group)
    return whole


def barrier(group: Group, device: torch.device) -> None:
    """Wait for every rank of the group, and for this rank's device."""
    if group is not None:
        dist.all_reduce(torch.zeros(1, device=device), group=group)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
