import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.parallel import pipeline
from executor.transformer.model import meta_model
from planner.schedule.action import SENDS, Action
from planner.schedule.check import placement, send_of
from planner.schedule.lowering import lower
from tests.executor.plans import SEQ_LEN, SPECS, make_plan
from tests.schedule.test_orders import cases


@given(cases())
def test_settled_sends_were_received_before(case: tuple[str, int, int, int]) -> None:
    grid = lower(*case)
    rank_of = placement(grid)
    for rank, order in enumerate(grid):
        settled = pipeline.settled_sends(grid, rank)
        named = list(itertools.chain.from_iterable(settled.values()))
        assert len(named) == len(set(named))
        for receive, sends in settled.items():
            sent = send_of(receive)
            assert sent is not None
            other = grid[rank_of[sent.stage]]
            for send in sends:
                taken = next(action for action in other if send_of(action) == send)
                assert other.index(taken) < other.index(sent)
                assert order.index(send) < order.index(receive)


@given(stages=st.integers(2, 6), m=st.integers(1, 12))
def test_1f1b_keeps_few_sends_open(stages: int, m: int) -> None:
    """Sent tensors do not pile up with the microbatches: at most those in flight, twice."""
    grid = lower("1f1b", stages, m)
    for stage, order in enumerate(grid):
        settled = pipeline.settled_sends(grid, stage)
        open_sends: set[Action] = set()
        for action in order:
            if action.kind in SENDS:
                open_sends.add(action)
            open_sends -= set(settled.get(action, ()))
            assert len(open_sends) <= 2 * min(stages - stage, m) + 1


@pytest.mark.parametrize("name", SPECS)
def test_stages_hold_every_parameter_once(name: str) -> None:
    plan = make_plan(name, counts=(1, 0, 3), pp=3, micro_batch=4)
    whole = dict(meta_model(plan.model, SEQ_LEN).named_parameters(remove_duplicate=False))
    found: list[str] = []
    for stage in range(3):
        model = meta_model(plan.model, SEQ_LEN)
        pipeline.cut(model, plan, [stage])
        found += [key for key, _ in model.named_parameters(remove_duplicate=False)]
    assert sorted(found) == sorted(whole)
    assert not any(key.startswith("layers.0.") for key, _ in model.named_parameters())


def test_travelling_shape_has_the_rank_s_tokens() -> None:
    plan = make_plan("llama", tp=2, pp=2, micro_batch=3)
    assert pipeline.travelling_shape(plan) == (3, 8, 32)
