"""Tensor parallelism inside a user's layers, as executor.parallel does it in our own.

Blocks are entered by gathering rows and left by reducing and scattering sums; products are cut
where the family says. GPT-2 keeps its matrices as [inputs, outputs]; its queries, keys and values
lie side by side in one, of which a rank holds a part of each third.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from executor.adapted.layer import AdaptedLayer
from executor.parallel.collectives import Group
from executor.parallel.tensor_parallel import FusedSlice, Gather, RowParallelLinear, Slice, share
from executor.transformer.model import Transformer

AnySlice = Slice | FusedSlice
STREAMS = ("hidden_states", "key_value_states")
"""Names under which transformers gives a block what is to be gathered."""


def divide(model: Transformer, rank: int, size: int, group: Group) -> dict[str, AnySlice]:
    """Cut the adapted layers of a model. Returns the slice of every divided parameter by name."""
    found: dict[str, AnySlice] = {}
    if size == 1:
        return found
    for name, layer in model.layers.items():
        if isinstance(layer, AdaptedLayer):
            for path, part in _cut(layer, rank, size, group):
                found[f"layers.{name}.inner.{path}"] = part
    return found


def _cut(layer: AdaptedLayer, rank: int, size: int, group: Group) -> Iterator[tuple[str, AnySlice]]:
    cuts = layer.cuts
    for path, module in list(layer.inner.named_modules()):
        if _ends(path, cuts.enters):
            module.register_forward_pre_hook(_gather_first(group, size), with_kwargs=True)
        if _ends(path, cuts.columns) or _ends(path, cuts.fused):
            yield from _columns(path, module, 3 if _ends(path, cuts.fused) else 1, rank, size)
        if _ends(path, cuts.rows):
            yield from _rows(layer.inner, path, module, rank, size, group)
        if _ends(path, cuts.biases):
            yield _narrow(path, module, "weight", 1, 1, rank, size)
        for name in cuts.counted:
            owner, _, attribute = name.rpartition(".")
            if (not owner or _ends(path, (owner,))) and isinstance(
                count := getattr(module, attribute, None), int
            ):
                setattr(module, attribute, count // size)


def _columns(
    path: str, module: Any, parts: int, rank: int, size: int
) -> Iterator[tuple[str, AnySlice]]:
    yield _narrow(path, module, "weight", 1 if _transposed(module) else 0, parts, rank, size)
    if module.bias is not None:
        yield _narrow(path, module, "bias", 0, parts, rank, size)
    if _transposed(module):
        module.nf //= size


def _rows(
    inner: nn.Module, path: str, module: Any, rank: int, size: int, group: Group
) -> Iterator[tuple[str, AnySlice]]:
    transposed = _transposed(module)
    yield _narrow(path, module, "weight", 0 if transposed else 1, 1, rank, size)
    made = RowParallelLinear(module.weight, module.bias, group, size)
    if transposed:
        made.product = torch.matmul
    owner, _, attribute = path.rpartition(".")
    setattr(inner.get_submodule(owner), attribute, made)


def _narrow(
    path: str, module: nn.Module, name: str, dim: int, parts: int, rank: int, size: int
) -> tuple[str, AnySlice]:
    whole = getattr(module, name).detach()
    own = share(whole.shape[dim] // parts, dim, rank, size)
    part = own if parts == 1 else FusedSlice(dim, parts, own.start, own.stop)
    cut = part.of(whole)
    setattr(module, name, nn.Parameter(cut.flatten(dim, dim + 1).clone() if parts > 1 else cut))
    return f"{path}.{name}", part


def _transposed(module: nn.Module) -> bool:
    """Whether a module keeps [inputs, outputs] (transformers' Conv1D)."""
    return type(module).__name__ == "Conv1D"


def _ends(path: str, names: tuple[str, ...]) -> bool:
    return any(path == name or path.endswith(f".{name}") for name in names)


def _gather_first(group: Group, size: int) -> Any:
    def hook(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        first = tuple(Gather.apply(x, group, size) for x in inputs[:1])
        gathered = {
            key: Gather.apply(named[key], group, size)
            for key in STREAMS
            if named.get(key) is not None
        }
        return (*first, *inputs[1:]), named | gathered

    return hook
