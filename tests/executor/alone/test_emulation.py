"""One rank alone: it waits exactly as long as it is told to, and keeps what the ledger counts."""

import pytest
import torch

from executor.alone.emulation import Group, Waiter, emulate
from executor.alone.ledger import recorded_ledger
from executor.options import RunOptions
from planner.cost.blocks import Blocks
from planner.ledger.messages import predicted_ledger
from planner.spec.documents import InputError
from planner.spec.ledger import Ledger
from planner.spec.model import ModelSpec
from planner.spec.plan import Plan
from tests.examples import gpt2_like, llama_like
from tests.executor.kinds import MIXTURES
from tests.ledger.test_rank import plan

LLAMA = llama_like(max_positions=256)
OPTIONS = RunOptions(steps=2, warmup=1)
EACH = 1e-4


def foreseen(planned: Plan, rank: int) -> Ledger:
    found = predicted_ledger(Blocks.of_plan(planned), planned, rank)
    waits = [message.replace(seconds=EACH) for message in found.messages]
    return found.replace(messages=tuple(waits))


@pytest.mark.parametrize(
    ("model", "layout", "rank"),
    [
        (LLAMA, "dp=4 tp=2 pp=2 micro_batch=1 zero=1", 13),
        (LLAMA, "dp=2 tp=2 pp=2 vpp=2 micro_batch=1 schedule=zbv recompute=full", 2),
        (LLAMA, "cp=4 dp=2 micro_batch=4 zero=3", 5),
        (LLAMA, "cp=4 dp=2 micro_batch=4 cp_style=all_to_all", 2),
        (LLAMA, "dp=4 tp=2 micro_batch=4 sync=parameter_server", 5),
        (MIXTURES["qwen-moe"], "tp=2 dp=4 ep=2 etp=2 micro_batch=2 zero=1", 3),
    ],
)
def test_it_waits_for_every_message(model: ModelSpec, layout: str, rank: int) -> None:
    planned = plan(model, layout, 16, seq_len=64)
    said = foreseen(planned, rank)
    found = emulate(planned, rank, said, OPTIONS)
    messages = sum(message.count for message in said.messages)
    assert found.waited_seconds == pytest.approx(messages * EACH)
    assert found.step_seconds.min >= messages * EACH
    assert (found.emulated_rank, found.world_size) == (rank, planned.layout.devices)
    assert list(found.peak_bytes) == [rank]
    assert found.timeline is not None
    assert {span.rank for span in found.timeline.spans} == {rank}


def test_its_memory_is_that_of_the_ledger() -> None:
    planned = plan(gpt2_like(max_positions=256), "dp=2 tp=2 pp=2 micro_batch=2 zero=1", 16, "fp32")
    found = emulate(planned, 5, foreseen(planned, 5), OPTIONS)
    assert found.peak_bytes[5] == pytest.approx(recorded_ledger(planned, 5).peak_bytes, rel=0.01)


def test_a_rank_that_has_no_room_is_refused() -> None:
    planned = plan(LLAMA, "dp=2 micro_batch=2", 4, seq_len=64)
    large = foreseen(planned, 1).replace(peak_bytes=2.0**60)
    with pytest.raises(InputError, match=r"rank 1 alone needs .* TiB, this machine has"):
        emulate(planned, 1, large, OPTIONS)


def test_a_message_that_nobody_foresaw() -> None:
    group = Group(0, 2)
    group.allreduce([torch.zeros(3)])  # before a step: free
    group.waiter, group.waits = Waiter(torch.device("cpu")), {("all_reduce", 8): 0.0}
    with pytest.raises(AssertionError, match="all_reduce of 12 bytes was not predicted"):
        group.allreduce([torch.zeros(3)])


def test_a_rank_that_does_not_exist() -> None:
    planned = plan(gpt2_like(max_positions=256), "dp=2 micro_batch=2", 16)
    with pytest.raises(InputError, match="rank 2: the plan has ranks 0 to 1"):
        emulate(planned, 2, foreseen(planned, 1), OPTIONS)
