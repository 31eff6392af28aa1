"""Laws of the stopwatch."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.stopwatch import CpuClock, Lap, Timing, compute_timing, measure, spread

SECONDS = st.floats(min_value=1e-7, max_value=10)
LAPS = st.lists(st.builds(Lap, SECONDS, SECONDS), min_size=1, max_size=30)


@given(LAPS)
def test_timing_lies_within_its_laps(laps: list[Lap]) -> None:
    timing = Timing.of(laps)
    assert min(lap.seconds for lap in laps) <= timing.seconds <= max(lap.seconds for lap in laps)
    assert timing.repeats == len(laps)
    assert timing.spread >= 0


@given(LAPS, st.randoms())
def test_timing_does_not_depend_on_the_order(laps: list[Lap], random: object) -> None:
    shuffled = list(laps)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert Timing.of(shuffled) == Timing.of(laps)


@given(st.lists(SECONDS, min_size=2, max_size=30), st.floats(min_value=0.1, max_value=10))
def test_spread_has_no_unit(values: list[float], scale: float) -> None:
    assert spread([scale * value for value in values]) == pytest.approx(
        spread(values), rel=1e-9, abs=1e-9
    )


def test_one_outlier_does_not_move_the_median() -> None:
    laps = [Lap(1.0, 0.5)] * 9
    assert Timing.of([*laps, Lap(1000.0, 0.5)]).seconds == 1.0


def test_compute_time_is_cpu_time_on_a_cpu_only() -> None:
    laps = [Lap(3.0, 2.0)]
    assert compute_timing(laps, "cpu").seconds == 2.0
    assert compute_timing(laps, "cuda").seconds == 3.0


def test_sleep_takes_wall_time_and_no_cpu_time() -> None:
    timing = measure(lambda: time.sleep(0.005), warmup=0, repeats=3, seconds=0.0)
    assert timing.repeats == 3
    assert timing.seconds >= 0.005
    assert timing.cpu_seconds < 0.004


def test_only_the_work_is_timed_and_each_lap_is_prepared() -> None:
    calls: list[str] = []

    def prepare() -> None:
        calls.append("prepare")
        time.sleep(0.003)

    timing = measure(lambda: calls.append("work"), prepare, warmup=1, repeats=4, seconds=0.0)
    assert calls == ["prepare", "work"] * 5
    assert timing.seconds < 0.003


def test_measuring_goes_on_for_the_seconds_asked() -> None:
    assert measure(lambda: time.sleep(0.002), warmup=0, repeats=1, seconds=0.2).repeats > 3


def test_the_limit_stops_slow_work_after_one_lap() -> None:
    timing = measure(
        lambda: time.sleep(0.02), warmup=3, repeats=50, seconds=9.0, limit_seconds=0.02
    )
    assert timing.repeats == 1


def test_laps_are_in_order_and_positive() -> None:
    clock = CpuClock()
    for pause in (0.04, 0.0):
        clock.start()
        time.sleep(pause)
        clock.stop()
    first, second = clock.laps()
    assert first.seconds > 0.04
    assert 0 < second.seconds < first.seconds
