"""The one-pass replay of a script against the event engine, its oracle."""

from hypothesis import given
from hypothesis import strategies as st

from planner.schedule.action import SENDS
from planner.simulator import engine
from planner.simulator.lowered import KINDS, NONE, play, script
from planner.simulator.replay import tasks

schedules = st.sampled_from(["gpipe", "1f1b"])


@given(schedules, st.integers(1, 6), st.integers(1, 10), st.randoms(use_true_random=False))
def test_one_pass_equals_the_event_engine(name, stages, microbatches, random):  # type: ignore[no-untyped-def]
    made = script(name, stages, microbatches)
    sends = {KINDS.index(kind) for kind in SENDS}
    seconds = [0.0 if kind in sends else float(random.randint(0, 9)) for kind in made.kind.tolist()]
    assert play(made, seconds) == engine.run(tasks(made, seconds, 0.0))


@given(schedules, st.integers(1, 6), st.integers(1, 10))
def test_the_sequence_respects_all_predecessors(name: str, stages: int, microbatches: int) -> None:
    made = script(name, stages, microbatches)
    place = {number: index for index, number in enumerate(made.sequence)}
    assert sorted([*made.sequence, *made.optimizers]) == list(range(len(made)))
    for number in made.sequence:
        for before in (made.previous[number], made.remote[number]):
            assert before == NONE or place[before] < place[number]
