"""Laws of the event engine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.simulator.engine import DeadlockError, Task, run

seconds = st.integers(0, 20).map(float)


@st.composite
def task_lists(draw: st.DrawFn, demand: bool = False) -> list[Task]:
    count = draw(st.integers(1, 24))
    streams = draw(st.integers(1, 5))
    return [
        Task(
            draw(st.integers(0, streams - 1)),
            draw(seconds),
            tuple(draw(st.sets(st.integers(0, index - 1), max_size=3))) if index else (),
            float(draw(st.integers(0, 3))) if demand else 0.0,
        )
        for index in range(count)
    ]


def crowd(demand: float) -> float:
    return max(1.0, demand / 2)


@given(task_lists(demand=True))
def test_streams_run_one_task_at_a_time_in_order(tasks: list[Task]) -> None:
    times = run(tasks, crowd)
    last: dict[int, float] = {}
    for task, (start, end) in zip(tasks, times, strict=True):
        assert start >= last.get(task.stream, 0.0)
        assert start >= max((times[before][1] for before in task.after), default=0.0)
        assert end >= start + task.seconds * (1 - 1e-12)
        last[task.stream] = end


@given(task_lists())
def test_without_sharing_it_is_the_longest_path(tasks: list[Task]) -> None:
    ends: list[float] = []
    previous: dict[int, float] = {}
    for task in tasks:
        start = max([previous.get(task.stream, 0.0), *(ends[before] for before in task.after)])
        ends.append(start + task.seconds)
        previous[task.stream] = ends[-1]
    assert [end for _, end in run(tasks)] == pytest.approx(ends)


@given(task_lists(), st.integers(0, 23), st.integers(1, 9))
def test_longer_tasks_never_end_the_run_sooner(tasks: list[Task], index: int, more: int) -> None:
    slow = list(tasks)
    index %= len(tasks)
    slow[index] = Task(tasks[index].stream, tasks[index].seconds + more, tasks[index].after)
    assert max(end for _, end in run(slow)) >= max(end for _, end in run(tasks))


@given(task_lists(demand=True))
def test_total_is_at_least_the_work_over_the_capacity(tasks: list[Task]) -> None:
    """d tasks' worth of demand advance d / crowd(d) <= 2 core-seconds per second."""
    work = sum(task.seconds * task.demand for task in tasks)
    assert max(end for _, end in run(tasks, crowd)) >= work / 2 * (1 - 1e-9)


def test_two_tasks_on_one_core_take_twice_as_long() -> None:
    tasks = [Task(0, 3.0, demand=1.0), Task(1, 3.0, demand=1.0)]
    assert run(tasks, lambda demand: max(1.0, demand)) == [(0.0, 6.0), (0.0, 6.0)]


def test_the_one_left_speeds_up() -> None:
    tasks = [Task(0, 1.0, demand=1.0), Task(1, 3.0, demand=1.0)]
    times = run(tasks, lambda demand: max(1.0, demand))
    assert times == [(0.0, 2.0), (0.0, 4.0)]


def test_tasks_that_wait_for_each_other_are_a_deadlock() -> None:
    with pytest.raises(DeadlockError) as caught:
        run([Task(0, 1.0, (1,)), Task(1, 1.0, (0,)), Task(2, 1.0)])
    assert caught.value.stuck == [0, 1]
