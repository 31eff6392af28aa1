"""Two instruments for the bytes that torch keeps from a forward to its backward.

`held` counts the storages that are alive behind a forward (executor.memory): nothing hides from
it, checkpoints included. `hooked` asks autograd which tensors it saves, each storage once.
"""

from collections.abc import Callable

import networkx as nx
import torch
from torch import Tensor, nn

from executor.memory import StorageMeter
from planner.graph import transformer
from planner.graph.view import RankView

BATCH, SEQ = 3, 24


def view(dtype: str, kernel: str, batch: int = BATCH, seq: int = SEQ) -> RankView:
    return RankView(batch, seq, dtype=dtype, flash=kernel == "flash", fused_norms=False)


def kept_by(graph: nx.DiGraph) -> int:
    return sum(operator.saved_bytes for operator in transformer.operators(graph))


def held(module: nn.Module, run: Callable[[], Tensor], *given: Tensor) -> int:
    """Bytes alive behind a forward, without its result and what was given."""
    with StorageMeter([*module.parameters(), *module.buffers(), *given]) as meter:
        before = meter.held_bytes()
        result = run()
        return int(meter.held_bytes() - before) - result.untyped_storage().nbytes()


def hooked(module: nn.Module, run: Callable[[], Tensor], *given: Tensor) -> int:
    """Bytes of all distinct storages that autograd saves, without what was given."""
    resident = [*module.parameters(), *module.buffers(), *given]
    own = {tensor.untyped_storage().data_ptr() for tensor in resident}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    assert result.requires_grad
    return sum(kept.values())
