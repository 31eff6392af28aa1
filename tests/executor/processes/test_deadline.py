"""What a call returns or raises comes through, and one that never ends is left."""

import threading

import pytest

from executor.processes.deadline import within


def test_what_it_returns() -> None:
    assert within(60.0, lambda: 3) == 3


def test_what_it_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        within(60.0, lambda: 1 // 0)


def test_its_own_lateness_is_not_ours() -> None:
    def late() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        within(60.0, late)


def test_one_that_never_ends() -> None:
    ends = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer for 0\.01 s"):
        within(0.01, ends.wait)
    ends.set()
