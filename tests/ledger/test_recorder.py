"""The recorder sees every way in which torch sends, and counts full tensors."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.experimental._context_parallel import _attention as torchs

from executor.alone.sent import Recorder, Sent, exchanged, fake_group
from executor.parallel import collectives
from tests.ledger.programs import attention
from tests.ledger.programs.axes import Axes
from tests.ledger.recorder import record

RANKS = 4

# torch 2.13 renamed them and warns at the old names, as executor.parallel.collectives says
functional_all_gather = (
    getattr(functional, "all_gather_single", None) or functional.all_gather_tensor
)
functional_reduce_scatter = (
    getattr(functional, "reduce_scatter_single", None) or functional.reduce_scatter_tensor
)


@pytest.fixture
def job() -> Iterator[None]:
    with fake_group(RANKS, rank=1):
        yield


def part() -> Tensor:
    return torch.zeros(2, 3)


def whole() -> Tensor:
    return torch.zeros(2 * RANKS, 3)


def waited(result: Any) -> None:
    functional.wait_tensor(result)


CALLS: dict[str, tuple[Callable[[], Any], str, int]] = {
    "all_reduce": (lambda: dist.all_reduce(part()), "all_reduce", 24),
    "all_gather": (
        lambda: collectives.all_gather(whole(), part(), dist.group.WORLD),
        "all_gather",
        96,
    ),
    "reduce_scatter": (
        lambda: collectives.reduce_scatter(part(), whole(), dist.group.WORLD),
        "reduce_scatter",
        96,
    ),
    "lists gathered": (
        lambda: dist.all_gather([part() for _ in range(RANKS)], part()),
        "all_gather",
        96,
    ),
    "lists scattered": (
        lambda: dist.reduce_scatter(part(), [part() for _ in range(RANKS)]),
        "reduce_scatter",
        96,
    ),
    "all_to_all": (lambda: dist.all_to_all_single(whole(), whole()), "all_to_all", 96),
    "uneven all_to_all": (
        lambda: dist.all_to_all_single(part(), whole(), [2, 0, 0, 0], [2, 2, 2, 2]),
        "all_to_all",
        96,
    ),
    "lists exchanged": (
        lambda: dist.all_to_all([part() for _ in range(RANKS)], [part() for _ in range(RANKS)]),
        "all_to_all",
        96,
    ),
    "broadcast": (lambda: dist.broadcast(part(), 0), "broadcast", 24),
    "send": (lambda: dist.send(part(), 0), "send", 24),
    "recv": (lambda: dist.recv(part(), 0), "recv", 24),
    "functional all_reduce": (
        lambda: waited(functional.all_reduce(part(), "sum", dist.group.WORLD)),
        "all_reduce",
        24,
    ),
    "functional all_gather": (
        lambda: waited(functional_all_gather(part(), 0, dist.group.WORLD)),
        "all_gather",
        96,
    ),
    "functional reduce_scatter": (
        lambda: waited(functional_reduce_scatter(whole(), "sum", 0, dist.group.WORLD)),
        "reduce_scatter",
        96,
    ),
    "functional all_to_all": (
        lambda: waited(functional.all_to_all_single(whole(), None, None, dist.group.WORLD)),
        "all_to_all",
        96,
    ),
    "DTensor": (lambda: gathered_by_dtensor(), "all_gather", 96),
}


def gathered_by_dtensor() -> None:
    mesh = init_device_mesh("cpu", (RANKS,))
    waited(
        DTensor.from_local(part(), mesh, [Shard(0)]).redistribute(mesh, [Replicate()]).to_local()
    )


@pytest.mark.parametrize("call", CALLS)
def test_sees(job: None, call: str) -> None:
    send, op, size = CALLS[call]
    with Recorder({"world": dist.group.WORLD}) as recorder:
        send()
    assert recorder.sent == [Sent(op, "world", RANKS, "forward", size)]


def test_unknown_collective_is_an_error(job: None) -> None:
    with Recorder(), pytest.raises(KeyError, match="reduce_"):
        dist.reduce(part(), 0)


def test_send_without_a_receive_is_an_error() -> None:
    with pytest.raises(AssertionError, match="without its partner"):
        exchanged([Sent("send", "cp", 2, "forward", 8), Sent("recv", "cp", 2, "backward", 8)])


def test_leaves_no_group_behind() -> None:
    with fake_group(RANKS):
        assert dist.is_initialized()
    assert not dist.is_initialized()


def test_ring_sends_what_torchs_own_ring_attention_sends(job: None) -> None:
    """torch moves its blocks by all_to_all, with one receiver: the messages are the same."""
    q, k, v = (torch.zeros(2, heads, 5, 8, dtype=torch.bfloat16) for heads in (4, 4, 4))
    axes = Axes(cp=dist.group.WORLD)

    def own() -> Tensor:
        leaves = (each.clone().requires_grad_() for each in (q, k, v))
        return attention.attend(*leaves, causal=True, axes=axes)

    sent = record(axes.named, own)
    torchs.set_rotate_method("alltoall")
    with Recorder(axes.named) as recorder:
        out, sums = torchs._templated_ring_attention(
            axes.cp, 2, forward_block, q, k, v, is_causal=True
        )
        recorder.phase = "backward"
        torchs._templated_ring_attention_backward(
            axes.cp, 2, backward_block, out, "grad_out", q, k, v, out, sums, is_causal=True
        )
    assert [(each.phase, each.message_bytes) for each in recorder.sent] == [
        (each.phase, each.message_bytes) for each in sent
    ]


def forward_block(q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(q), torch.zeros(q.shape[:3])


def backward_block(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> tuple[Tensor, ...]:
    return torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
