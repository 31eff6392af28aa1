"""Deadline: a call that may never return, given up in time.

torch's store has a time-out for connecting, but waits without end for the answer of whoever took
the connection, inside its library, where no signal reaches. So such a call runs in a thread of its
own: the caller waits for it as long as it wants, and leaves it behind, a daemon that ends with the
process.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, work: Callable[[], T]) -> T:
    """What the work returns or raises; TimeoutError when it does neither in time."""
    answer: Future[T] = Future()
    threading.Thread(target=_do, args=(work, answer), daemon=True).start()
    wait([answer], seconds)
    if not answer.done():
        raise TimeoutError(f"no answer for {seconds:g} s")
    return answer.result()


def _do(work: Callable[[], T], answer: Future[T]) -> None:
    try:
        answer.set_result(work())
    except BaseException as error:  # whatever it is, it is the caller's
        answer.set_exception(error)
