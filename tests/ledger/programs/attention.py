"""Attention whose sequence is divided over the ranks of a context-parallel group.

Rank c of the group holds the queries, keys and values of positions c*s/cp .. (c+1)*s/cp, as
[b, heads, s/cp, d]. Three ways to see the other keys:

    ring         k and v go round; a rank meets every block once (Liu et al. 2023)
    all_to_all   heads for positions: a rank gets all positions of 1/cp of the heads
                 (DeepSpeed-Ulysses, Jacobs et al. 2023); cp must divide kv_heads
    all_gather   every rank gets all k and all v (Llama 3, 2024)

Blocks of scores are joined by their log-sum-exp, as in flash attention:
    p = exp(q k^T / sqrt(d) - lse);  dv = p^T do;  ds = p (do v^T - sum(do * o)) / sqrt(d)
"""

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tests.ledger.programs.axes import Axes, Group, index, size
from tests.ledger.programs.exchange import all_gather, all_to_all


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool, axes: Axes) -> Tensor:
    """[b, heads, s/cp, d] of q, k, v -> [b, heads, s/cp, value_dim]."""
    if axes.cp is None:
        return _attend(q, k, v, _mask(q, k, 0, 0, causal))
    return _STYLES[axes.cp_style](q, k, v, causal, axes.cp)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return _scores(q, k, mask).softmax(-1) @ _repeated(v, q)


def _scores(q: Tensor, k: Tensor, mask: Tensor) -> Tensor:
    scores = q @ _repeated(k, q).transpose(-1, -2) / math.sqrt(q.shape[-1])
    return scores.masked_fill(mask, -math.inf)


def _repeated(x: Tensor, q: Tensor) -> Tensor:
    """Keys or values of grouped queries, one head per query head."""
    return x.repeat_interleave(q.shape[1] // x.shape[1], dim=1)


def _mask(q: Tensor, k: Tensor, first_query: int, first_key: int, causal: bool) -> Tensor:
    """True where a query must not see a key."""
    queries = first_query + torch.arange(q.shape[2])
    keys = first_key + torch.arange(k.shape[2])
    return (keys[None, :] > queries[:, None]) & causal


def _gathered(q: Tensor, k: Tensor, v: Tensor, causal: bool, group: Group) -> Tensor:
    k, v = _all_positions(k, group), _all_positions(v, group)
    return _attend(q, k, v, _mask(q, k, index(group) * q.shape[2], 0, causal))


def _all_positions(x: Tensor, group: Group) -> Tensor:
    return all_gather(x.transpose(0, 2), group).transpose(0, 2)


def _exchanged(q: Tensor, k: Tensor, v: Tensor, causal: bool, group: Group) -> Tensor:
    q, k, v = (_heads_to_positions(x, group) for x in (q, k, v))
    return _positions_to_heads(_attend(q, k, v, _mask(q, k, 0, 0, causal)), group)


def _heads_to_positions(x: Tensor, group: Group) -> Tensor:
    b, heads, _, d = x.shape
    n = size(group)
    sent = x.view(b, n, heads // n, -1, d).transpose(0, 1)
    return all_to_all(sent, group).permute(1, 2, 0, 3, 4).reshape(b, heads // n, -1, d)


def _positions_to_heads(x: Tensor, group: Group) -> Tensor:
    b, heads, positions, d = x.shape
    n = size(group)
    sent = x.view(b, heads, n, positions // n, d).permute(2, 0, 1, 3, 4)
    return all_to_all(sent, group).transpose(0, 1).reshape(b, n * heads, positions // n, d)


def _ring(q: Tensor, k: Tensor, v: Tensor, causal: bool, group: Group) -> Tensor:
    return _Ring.apply(q, k, v, causal, group)


class _Ring(torch.autograd.Function):
    """Keys and values go round; in the backward once more, and their gradients with them."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool, group: Group) -> Tensor:
        output, total = q.new_zeros(*q.shape[:3], v.shape[-1]), q.new_full((), -math.inf)
        block = (k, v)
        for step in range(size(group)):
            block = _moved(*block, group) if step else block
            scores = _scores(q, block[0], _mask_of_step(q, k, step, causal, group))
            both = torch.logaddexp(total, scores.logsumexp(-1, keepdim=True))
            part = (scores - both).exp() @ _repeated(block[1], q)
            output, total = output * (total - both).exp() + part, both
        ctx.save_for_backward(q, k, v, output, total)
        ctx.causal, ctx.group = causal, group
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, output, total = ctx.saved_tensors
        delta = (gradient * output).sum(-1, keepdim=True)
        wide = torch.promote_types(k.dtype, torch.float32)  # gradients of cp blocks add up
        dq, dk, dv = torch.zeros_like(q), k.to(wide) * 0, v.to(wide) * 0
        block = (k, v)
        for step in range(size(ctx.group)):
            if step:
                block, (dk, dv) = _moved(*block, ctx.group), _moved(dk, dv, ctx.group)
            p = (
                _scores(q, block[0], _mask_of_step(q, k, step, ctx.causal, ctx.group)) - total
            ).exp()
            dp = gradient @ _repeated(block[1], q).transpose(-1, -2)
            ds = p * (dp - delta) / math.sqrt(q.shape[-1])
            dq = dq + ds @ _repeated(block[0], q)
            dk = dk + _grouped(ds.transpose(-1, -2) @ q, k)
            dv = dv + _grouped(p.transpose(-1, -2) @ gradient, v)
        dk, dv = _moved(dk, dv, ctx.group)  # home
        return dq, dk.to(k.dtype), dv.to(v.dtype), None, None


def _mask_of_step(q: Tensor, k: Tensor, step: int, causal: bool, group: Group) -> Tensor:
    owner = (index(group) - step) % size(group)
    return _mask(q, k, index(group) * q.shape[2], owner * k.shape[2], causal)


def _grouped(x: Tensor, k: Tensor) -> Tensor:
    """Gradients of repeated heads, summed into the one they were repeated from."""
    return x.unflatten(1, (k.shape[1], -1)).sum(2)


def _moved(k: Tensor, v: Tensor, group: Group) -> tuple[Tensor, Tensor]:
    """Send k and v as one message to the next rank, receive those of the previous one."""
    sent = torch.cat((k.flatten(), v.flatten()))
    received = torch.empty_like(sent)
    here, n = index(group), size(group)
    there = dist.get_global_rank(group, (here + 1) % n), dist.get_global_rank(group, (here - 1) % n)
    works = dist.batch_isend_irecv(
        [
            dist.P2POp(dist.isend, sent, there[0], group),
            dist.P2POp(dist.irecv, received, there[1], group),
        ]
    )
    for work in works:
        work.wait()
    return received[: k.numel()].view_as(k), received[k.numel() :].view_as(v)


_STYLES = {"ring": _ring, "all_to_all": _exchanged, "all_gather": _gathered}
