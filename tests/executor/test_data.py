import torch
from hypothesis import given
from hypothesis import strategies as st

from executor import data
from tests.executor.plans import make_plan

CPU = torch.device("cpu")


@given(dp=st.sampled_from([1, 2, 3, 4]), micro_batch=st.sampled_from([1, 2]))
def test_microbatches_of_all_ranks_are_the_global_batch(dp: int, micro_batch: int) -> None:
    plan = make_plan("gpt2", dp=dp, micro_batch=micro_batch)
    tokens, targets = data.global_batch(plan, seed=3, step=5)
    parts = [
        part for d in range(dp) for part in data.microbatches(plan, {"dp": d, "cp": 0}, 3, 5, CPU)
    ]
    assert torch.equal(torch.cat([part for part, _ in parts]), tokens)
    assert torch.equal(torch.cat([part for _, part in parts]), targets)


def test_targets_are_the_next_tokens_and_steps_differ() -> None:
    plan = make_plan("gpt2")
    tokens, targets = data.global_batch(plan, seed=0, step=0)
    assert torch.equal(tokens[:, 1:], targets[:, :-1])
    assert not torch.equal(tokens, data.global_batch(plan, seed=0, step=1)[0])
    assert not torch.equal(tokens, data.global_batch(plan, seed=1, step=0)[0])
