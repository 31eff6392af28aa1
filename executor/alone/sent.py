"""Sent: every collective that a program sends, in order, as full tensors.

A dispatch mode sees the operators that torch.distributed, the functional collectives, DTensor and
FSDP2 end in: the `c10d` ones change tensors in place, the `_c10d_functional` ones return new
ones. Each becomes one Sent, in bytes of the full tensor: all_gather its output, reduce_scatter
its input, all_reduce the tensor, all_to_all the rank's input, send and recv the message.

An operator of these namespaces that is not known here is an error: nothing is overlooked.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

IN_PLACE = {
    "allreduce_": "all_reduce",
    "allreduce_coalesced_": "all_reduce",
    "_allgather_base_": "all_gather",
    "allgather_": "all_gather",
    "allgather_into_tensor_coalesced_": "all_gather",
    "_reduce_scatter_base_": "reduce_scatter",
    "reduce_scatter_": "reduce_scatter",
    "reduce_scatter_tensor_coalesced_": "reduce_scatter",
    "alltoall_base_": "all_to_all",
    "alltoall_": "all_to_all",
    "broadcast_": "broadcast",
    "send": "send",
    "recv_": "recv",
}
"""c10d operators. The full tensor is the first argument, or the second where an output leads."""

OUTPUT_FIRST = {"reduce_scatter", "all_to_all"}

FUNCTIONAL = {
    "all_reduce": "all_reduce",
    "all_reduce_": "all_reduce",
    "all_gather_into_tensor": "all_gather",
    "all_gather_into_tensor_out": "all_gather",
    "reduce_scatter_tensor": "reduce_scatter",
    "reduce_scatter_tensor_out": "reduce_scatter",
    "all_gather_into_tensor_coalesced": "all_gather",
    "reduce_scatter_tensor_coalesced": "reduce_scatter",
    "all_reduce_coalesced": "all_reduce",
    "all_to_all_single": "all_to_all",
    "broadcast": "broadcast",
}
"""Functional operators take the rank's input: an all_gather is as large as its result."""

SILENT = {"wait_tensor", "_wrap_tensor_autograd", "barrier"}
"""They send no tensor."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One collective. axis: the name of its group. ranks: the size of the group."""

    op: str
    axis: str
    ranks: int
    phase: str
    message_bytes: int


class Recorder(TorchDispatchMode):
    """Records what runs under it. axes: names of the groups; others are called "".

    phase: forward until the first collective that autograd calls; a program whose backward ends
    outside autograd sets it. Groups of one rank send nothing.
    """

    def __init__(self, axes: Mapping[str, Any] | None = None):
        super().__init__()
        named = {axis: group for axis, group in (axes or {}).items() if group is not None}
        self.names = {group.group_name: axis for axis, group in named.items()}
        assert len(self.names) == len(named), f"two of {', '.join(named)} are one group"
        self.phase = "forward"
        self.sent: list[Sent] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._opname
        if func.namespace in ("c10d", "_c10d_functional") and name not in SILENT:
            if func.namespace == "c10d":
                op, whole = IN_PLACE[name], args[IN_PLACE[name] in OUTPUT_FIRST]
            else:
                op = FUNCTIONAL[name]
                whole = result if op == "all_gather" else args[0]
            self._note(op, _group(func, args), whole)
        return result

    def _note(self, op: str, group: Any, whole: Any) -> None:
        if torch._C._current_graph_task_id() != -1:
            self.phase = "backward"
        if group.size() > 1:
            axis = self.names.get(group.group_name, "")
            self.sent.append(Sent(op, axis, group.size(), self.phase, _bytes(whole)))


def _group(func: Any, args: tuple[Any, ...]) -> Any:
    """The process group among an operator's arguments: the object, or its name."""
    for argument, value in zip(func._schema.arguments, args, strict=False):
        if argument.name == "process_group":
            return dist.ProcessGroup.unbox(value)
        if argument.name == "group_name":
            return dist.distributed_c10d._resolve_process_group(value)
    raise AssertionError(f"{func} names no group")


def _bytes(tensors: Any) -> int:
    found = [leaf for leaf in tree_leaves(tensors) if isinstance(leaf, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in found)


def exchanged(sent: Iterable[Sent]) -> list[Sent]:
    """The same with every send and the equal receive that goes with it as one send_recv."""
    joined: list[Sent] = []
    open_: list[Sent] = []
    for each in sent:
        if each.op not in ("send", "recv"):
            joined.append(each)
            continue
        other = "recv" if each.op == "send" else "send"
        partner = Sent(other, each.axis, each.ranks, each.phase, each.message_bytes)
        if partner in open_:
            open_.remove(partner)
            joined.append(Sent("send_recv", each.axis, each.ranks, each.phase, each.message_bytes))
        else:
            open_.append(each)
    assert not open_, f"a send or receive without its partner: {open_}"
    return joined


@contextmanager
def fake_group(ranks: int, rank: int = 0) -> Iterator[None]:
    """A job of many ranks in which this process is one and the others do not exist."""
    dist.init_process_group("fake", rank=rank, world_size=ranks, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()
