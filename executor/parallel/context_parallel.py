"""Context parallelism over c ranks: every sequence is cut, attention reads the other ranks' keys.

A rank has s/c tokens of every sequence (executor.sequence_cut). Everything but attention works
token by token; weights are whole on every rank, so their gradients are summed over c like over
dp. Three ways to see the other keys (layout.cp_style):

    ring        keys and values go round the ranks, and a rank meets every block of them once
                (Liu et al. 2023); in the backward once more, their gradients with them
    all_gather  every rank gets all keys and values first (Llama 3, 2024)
    all_to_all  heads for positions: a rank gets all positions of 1/c of the heads
                (DeepSpeed-Ulysses, Jacobs et al. 2023); c must divide the key heads

Ring and gather meet the same blocks. A rank holds a chunk from each end of the sequence, so a
block of another rank needs no mask (own chunks r and 2c-1-r, the block's o and 2c-1-o):

    o = r    causal, by the order of the tokens
    o < r    all queries see the first chunk, none the second
    o > r    only the second half of the queries sees it, and all of it

Blocks are joined by their log-sum-exp, lse' = log(e^lse + e^l), o' = o e^(lse-lse') + p e^(l-lse').
Selective recomputation drops nothing more here: flash kernels keep only statistics.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from executor.parallel import collectives, flash
from executor.parallel.collectives import Group
from executor.parallel.key_blocks import Blocks, Gathered, Pair, Ring
from executor.sequence_cut import SequenceCut
from executor.transformer.attention import Attention
from executor.transformer.model import Transformer
from planner.spec.runtime import ContextStyle


def divide(model: Transformer, cut: SequenceCut, style: ContextStyle, group: Group) -> None:
    """Let a model work on its cut of every sequence. Its rotary tables are filled elsewhere."""
    if cut.ranks == 1:
        return
    if model.embedding is not None and model.embedding.positions is not None:
        model.embedding.positions.cut = cut
    for layer in model.layers.values():
        layer.attention.attend = _attend(layer.attention, style, group)


def _attend(attention: Attention, style: ContextStyle, group: Group) -> Callable[..., Tensor]:
    def exchanged(q: Tensor, k: Tensor, v: Tensor, bias: None = None) -> Tensor:
        # the core is looked up late: recomputation may have replaced it
        parts = (_heads_to_positions(x, group) for x in (q, k, v))
        return _positions_to_heads(attention.core(*parts), group)

    def blockwise(q: Tensor, k: Tensor, v: Tensor, bias: None = None) -> Tensor:
        return _Blocks.apply(q, k, v, Ring if style == "ring" else Gathered, group)

    return exchanged if style == "all_to_all" else blockwise


class Exchange(torch.autograd.Function):
    """The i-th of n parts goes to rank i, [n, ...] -> [n, ...] by sender; gradients go back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        """All-to-all."""
        ctx.group = group
        return collectives.all_to_all(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """All-to-all."""
        return collectives.all_to_all(grad, ctx.group), None


def _heads_to_positions(x: Tensor, group: Group) -> Tensor:
    """[b, heads, s/c, d] -> [b, heads/c, s, d]."""
    sent = x.unflatten(1, (dist.get_world_size(group), -1)).transpose(0, 1)
    return Exchange.apply(sent, group).permute(1, 2, 0, 3, 4).flatten(2, 3)


def _positions_to_heads(x: Tensor, group: Group) -> Tensor:
    """[b, heads/c, s, d] -> [b, heads, s/c, d]."""
    sent = x.unflatten(2, (dist.get_world_size(group), -1)).permute(2, 0, 1, 3, 4)
    return Exchange.apply(sent, group).transpose(0, 1).flatten(1, 2)


class _Blocks(torch.autograd.Function):
    """Attention to all ranks' keys, block after block."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, transport: type[Blocks], group: Group
    ) -> Tensor:
        """[b, heads, s/c, d]. Keeps what the transport needs to show the blocks again."""
        blocks = transport.start(k, v, group)
        output, total = None, None
        for owner, block in blocks.seen():
            o, lse = flash.forward(*_meeting(q, block, owner, blocks.rank))
            if output is None or total is None:
                output, total = o.to(lse.dtype, copy=True), lse.clone()
            else:
                _join(_late(output, o), _late(total, lse), o, lse)
        assert output is not None
        output = output.to(q.dtype)
        ctx.save_for_backward(q, *blocks.kept(), output, total)
        ctx.transport, ctx.group = transport, group
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Every block again, with the statistics of all of them."""
        q, k, v, output, total = ctx.saved_tensors
        blocks = ctx.transport.again(k, v, ctx.group)
        dq = q.new_zeros(q.shape, dtype=total.dtype)
        for owner, block in blocks.seen():
            queries, keys, values, causal = _meeting(q, block, owner, blocks.rank)
            rows = [_late(x, queries) for x in (grad, output, total)]
            found = flash.backward(
                rows[0], queries, keys, values, rows[1], rows[2].contiguous(), causal
            )
            _late(dq, found[0]).add_(found[0])
            blocks.add(found[1], found[2])
        dk, dv = blocks.gradients()
        return dq.to(q.dtype), dk.to(q.dtype), dv.to(q.dtype), None, None


def _meeting(q: Tensor, block: Pair, owner: int, rank: int) -> tuple[Tensor, Tensor, Tensor, bool]:
    """The queries and keys of a block that see each other, and whether under a causal mask."""
    k, v = block
    half = k.shape[2] // 2
    if owner < rank:
        return q, k[:, :, :half], v[:, :, :half], False
    return (q, k, v, True) if owner == rank else (q[:, :, half:], k, v, False)


def _late(whole: Tensor, part: Tensor) -> Tensor:
    """The last rows of whole, as many as part has."""
    return whole[:, :, whole.shape[2] - part.shape[2] :]


def _join(output: Tensor, total: Tensor, o: Tensor, lse: Tensor) -> None:
    """Add a block to what there is, in place."""
    both = torch.logaddexp(total, lse)
    output.mul_((total - both).exp_().unsqueeze(-1))
    output.addcmul_(o.to(output.dtype), (lse - both).exp_().unsqueeze(-1))
    total.copy_(both)
