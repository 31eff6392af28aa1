"""Tensor parallelism over t ranks with sequence parallelism (Shoeybi et al. 2019, Korthikanti
et al. 2022), applied to the plain model from outside.

Inside a block a rank has all n = b*s tokens and 1/t of the heads or columns; between blocks it
has n/t tokens and all h columns:

    y = scatter(act(gather(x) A_r) B_r),   A split by columns, B by rows

    gather    forward: all-gather of tokens         backward: reduce-scatter of gradients
    scatter   forward: reduce-scatter of sums       backward: all-gather of gradients

Tokens are divided in flat order: rank r holds the rows r*n/t .. (r+1)*n/t of [b*s, h], carried
with the shape [b, s/t, h]. Everything between blocks works row by row, so any division of the
rows will do, and this one needs no copy for any b; only learned positions must know it.
The gathered tensor is the linears' input and kept for the backward; it is not gathered again.

Vocabulary: rank r holds the rows r*c .. min((r+1)*c, V) of embedding and head, c = ceil(V/t).
    loss = log(sum_r sum_v exp(z_v - m)) - (z_target - m),    m = max over ranks and columns
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from executor.parallel import collectives
from executor.parallel.collectives import Group
from executor.sequence_cut import SequenceCut
from executor.transformer.attention import Attention
from executor.transformer.embedding import Embedding, LearnedPositions
from executor.transformer.experts import Experts
from executor.transformer.head import AnyHead, Head, Rows, widened
from executor.transformer.layer import Layer
from executor.transformer.model import TIED, Transformer


@dataclass(frozen=True, slots=True)
class Slice:
    """Which part of a full tensor a rank holds: indices start .. stop of one dim."""

    dim: int
    start: int
    stop: int

    def of(self, whole: Tensor) -> Tensor:
        """The part, as a view."""
        return whole.narrow(self.dim, self.start, self.stop - self.start)

    @property
    def slices(self) -> "tuple[Slice, ...]":
        """Itself."""
        return (self,)


@dataclass(frozen=True, slots=True)
class FusedSlice:
    """Indices start .. stop of each of `parts` equal parts of one dim."""

    dim: int
    parts: int
    start: int
    stop: int

    def of(self, whole: Tensor) -> Tensor:
        """The part, as a view whose dim is two: [.., parts, stop - start, ..]."""
        apart = whole.unflatten(self.dim, (self.parts, -1))
        return apart.narrow(self.dim + 1, self.start, self.stop - self.start)

    @property
    def slices(self) -> "tuple[Slice, ...]":
        """It is no rectangle, so no checkpoint has a place for it."""
        raise AssertionError("users' modules are run, not trained for a task")


@dataclass(frozen=True, slots=True)
class ExpertSlice:
    """Which experts of a stacked parameter a rank holds, and which of their columns."""

    slices: tuple[Slice, ...]

    def of(self, whole: Tensor) -> Tensor:
        """The part, as a view."""
        for part in self.slices:
            whole = part.of(whole)
        return whole


class Gather(torch.autograd.Function):
    """[b, s/t, h] -> [b, s, h] of all ranks' tokens; gradients are summed and scattered."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, size: int) -> Tensor:
        """All-gather."""
        ctx.group, ctx.size = group, size
        return _gathered(x, group, size)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Reduce-scatter."""
        return _scattered(grad, ctx.group, ctx.size), None, None


class Scatter(torch.autograd.Function):
    """Sum [b, s, h] over the ranks, keep [b, s/t, h]; gradients are gathered."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, size: int) -> Tensor:
        """Reduce-scatter."""
        ctx.group, ctx.size = group, size
        return _scattered(x, group, size)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """All-gather."""
        return _gathered(grad, ctx.group, ctx.size), None, None


def _gathered(x: Tensor, group: Group, size: int) -> Tensor:
    batch, tokens, width = x.shape
    whole = x.new_empty(batch, tokens * size, width)
    collectives.all_gather(whole.view(-1, width), x.contiguous().view(-1, width), group)
    return whole


def _scattered(x: Tensor, group: Group, size: int) -> Tensor:
    batch, tokens, width = x.shape
    part = x.new_empty(batch, tokens // size, width)
    collectives.reduce_scatter(part.view(-1, width), x.contiguous().view(-1, width), group)
    return part


class RowParallelLinear(nn.Module):
    """A linear split along its input: partial sums are reduced and scattered, then the bias."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None, group: Group, size: int):
        super().__init__()
        self.weight, self.bias, self.group, self.size = weight, bias, group, size
        self.product: Callable[..., Tensor] = functional.linear

    def forward(self, x: Tensor) -> Tensor:
        """[b, s, k/t] -> [b, s/t, n]."""
        y = Scatter.apply(self.product(x, self.weight), self.group, self.size)
        return y if self.bias is None else y.add_(self.bias)


class VocabularyParallelEmbedding(nn.Module):
    """Rows start .. of the token embedding; other ranks' tokens give zero and are summed in."""

    def __init__(self, of: nn.Embedding, start: int, group: Group, size: int):
        super().__init__()
        self.weight, self.start, self.group, self.size = of.weight, start, group, size
        self.padding = _row(of.padding_idx, start, len(of.weight))

    def forward(self, tokens: Tensor) -> Tensor:
        """[b, s] -> [b, s/t, h]."""
        index, outside = _local(tokens, self.start, self.weight.shape[0])
        x = functional.embedding(index, self.weight, self.padding).masked_fill_(
            outside.unsqueeze(-1), 0.0
        )
        return Scatter.apply(x, self.group, self.size)


class DividedPositions(nn.Module):
    """Learned positions on the rank's share of the rows."""

    def __init__(self, of: LearnedPositions, rank: int, size: int):
        super().__init__()
        self.weight, self.offset, self.cut = of.weight, of.offset, of.cut
        self.rank, self.size = rank, size

    def forward(self, x: Tensor) -> Tensor:
        """[b, s/t, h] -> the same; row r of the flat order is token r mod s of its sequence."""
        rows = x.shape[0] * x.shape[1]
        own = torch.arange(self.rank * rows, (self.rank + 1) * rows, device=x.device)
        cut = self.cut or SequenceCut(x.shape[1] * self.size)
        positions = cut.positions(x.device)[own.remainder_(cut.tokens)] + self.offset
        return x + functional.embedding(positions.view(x.shape[:2]), self.weight)


class _CrossEntropy(torch.autograd.Function):
    """Mean cross entropy of logits whose columns are divided over the ranks."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, start: int, group: Group) -> Tensor:
        """Three all-reduces of one number per row. Keeps exp(z - m), [rows, vocab/t]."""
        values = widened(logits)
        maximum = values.amax(dim=-1)
        collectives.all_reduce_max(maximum, group)
        shifted = values - maximum.unsqueeze(-1)
        index, outside = _local(targets, start, logits.shape[-1])
        chosen = shifted.gather(1, index.unsqueeze(-1)).squeeze(-1).masked_fill_(outside, 0.0)
        total = shifted.exp_().sum(dim=-1)
        collectives.all_reduce(total, group)
        collectives.all_reduce(chosen, group)
        ctx.save_for_backward(shifted, total, index, outside)
        ctx.dtype = logits.dtype
        return total.log().sub_(chosen).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """(softmax - onehot) / rows, written over the kept exponentials."""
        values, total, index, outside = ctx.saved_tensors
        per_row = (grad / len(total)).to(values.dtype)
        values.mul_((per_row / total).unsqueeze(-1))
        own = torch.where(outside, 0.0, -per_row).unsqueeze(-1)
        values.scatter_add_(1, index.unsqueeze(-1), own)
        return values.to(ctx.dtype), None, None, None


class ParallelCrossEntropy(nn.Module):
    """The head's loss on the rank's columns start .. of the logits."""

    def __init__(self, start: int, group: Group):
        super().__init__()
        self.start, self.group = start, group

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """logits [rows, vocab/t], targets [rows] -> scalar, the same on every rank."""
        return _CrossEntropy.apply(logits, targets, self.start, self.group)


def _row(token: int | None, start: int, count: int) -> int | None:
    """A token that never learns (padding) as one of the rank's rows, if it is."""
    return token - start if token is not None and start <= token < start + count else None


def _local(tokens: Tensor, start: int, count: int) -> tuple[Tensor, Tensor]:
    """Tokens as indices of the rank's rows (0 where another rank has them), and where that is."""
    index = tokens - start
    outside = (index < 0) | (index >= count)
    return index.masked_fill_(outside, 0), outside


def divide(model: Transformer, rank: int, size: int, group: Group) -> dict[str, Slice]:
    """Give a model (or a stage of one) on the meta device its tensor-parallel form.

    rank: this rank's index among the `size` ranks of the group. Returns the slice of every
    divided parameter by name; parameters not named are whole on every rank.
    """
    if size == 1:
        return {}
    slices = _slices(model, rank, size)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, part in slices.items():
        owner, _, attribute = name.rpartition(".")
        narrowed = nn.Parameter(part.of(parameters[name].detach()).clone())
        setattr(model.get_submodule(owner), attribute, narrowed)
    for embedding, name in _embeddings(model):
        _divide_embedding(embedding, name, slices, rank, size, group)
    for layer in model.layers.values():
        if isinstance(layer, Layer):
            _divide_layer(layer, group, size)
    if model.head is not None:
        _divide_head(model.head, slices, rank, size, group)
    return slices


def _embeddings(model: Transformer) -> Iterator[tuple[Embedding, str]]:
    if model.embedding is not None:
        yield model.embedding, "embedding"
    if model.bridge is not None:
        yield model.bridge.embedding, "bridge.embedding"


def _divide_embedding(
    embedding: Embedding, name: str, slices: dict[str, Slice], rank: int, size: int, group: Group
) -> None:
    if embedding.tokens is not None:
        start = slices[f"{name}.tokens.weight"].start
        embedding.tokens = VocabularyParallelEmbedding(embedding.tokens, start, group, size)
    if embedding.positions is not None:
        embedding.positions = DividedPositions(embedding.positions, rank, size)


def _divide_layer(layer: Layer, group: Group, size: int) -> None:
    for attention in layer.attentions:
        attention.register_forward_pre_hook(_gather_first(group, size))
        attention.o = RowParallelLinear(attention.o.weight, attention.o.bias, group, size)
    mlp = layer.mlp.shared if isinstance(layer.mlp, Experts) else layer.mlp
    if mlp is not None:
        mlp.register_forward_pre_hook(_gather_first(group, size))
        mlp.down = RowParallelLinear(mlp.down.weight, mlp.down.bias, group, size)


def _divide_head(
    head: AnyHead, slices: dict[str, Slice], rank: int, size: int, group: Group
) -> None:
    if isinstance(head, Head):
        head.projection.register_forward_pre_hook(_gather_first(group, size))
        head.loss = ParallelCrossEntropy(slices[TIED[1]].start, group)
    else:
        head.rows = Rows(rank, size)


def _gather_first(group: Group, size: int) -> Any:
    """Gather a block's stream, and an encoder's output if it reads that (the last input)."""

    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *rest = inputs
        if isinstance(module, Attention) and len(rest) == 3 and rest[2] is not None:
            rest[2] = Gather.apply(rest[2], group, size)
        return (Gather.apply(x, group, size), *rest)

    return hook


def _slices(model: Transformer, rank: int, size: int) -> dict[str, Slice]:
    parameters = model.named_parameters(remove_duplicate=False)
    vocabulary = isinstance(model.head, Head)
    others = tuple(
        f"layers.{name}." for name, layer in model.layers.items() if not isinstance(layer, Layer)
    )
    return {
        name: share(parameter.shape[dim], dim, rank, size)
        for name, parameter in parameters
        if not name.startswith(others)
        for dim in _divided_dim(name, vocabulary)
    }


def _divided_dim(name: str, vocabulary: bool) -> Iterator[int]:
    """Dim 0 of column-parallel weights and biases and of the vocabulary, dim 1 of row-parallel
    ones and of relative biases (heads). vocabulary: the head projects to it."""
    *_, module, attribute = name.split(".")
    if module == "experts":
        return
    if module in ("q", "k", "v", "gate", "up", "tokens") or (module == "projection" and vocabulary):
        yield 0
    elif (module in ("o", "down") and attribute == "weight") or module == "relative_bias":
        yield 1


def share(extent: int, dim: int, rank: int, size: int) -> Slice:
    """The indices of one rank of `size`, as even as can be; the last ranks have fewer."""
    each = -(-extent // size)
    return Slice(dim, min(rank * each, extent), min((rank + 1) * each, extent))
