"""The event engine: tasks, streams and one shared resource. It knows no Transformers.

A task starts when the task before it on its stream has ended and all tasks in `after` have
ended. Streams are queues: their tasks run one at a time in the order given.

Tasks with demand > 0 share a resource. While the running ones demand d in sum, each of them
advances at speed 1 / slowdown(d); all slow down alike, so one virtual clock serves them all: a
task with w seconds of work that starts at virtual time v ends when the virtual clock shows
v + w, and the virtual clock advances 1 / slowdown(d) seconds per second (processor sharing).
Tasks without demand take their seconds, whatever else runs.

Ties are broken by the task's index, so a run is deterministic. O(n log n) for n tasks.
"""

import heapq
import math
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Task:
    """seconds of work on a stream, after other tasks (by index in the list)."""

    stream: int
    seconds: float
    after: tuple[int, ...] = ()
    demand: float = 0.0


class DeadlockError(RuntimeError):
    """Tasks that wait for each other; `stuck` holds their indices."""

    def __init__(self, stuck: list[int]):
        super().__init__(f"{len(stuck)} tasks can never start, first {stuck[:5]}")
        self.stuck = stuck


def run(
    tasks: Sequence[Task], slowdown: Callable[[float], float] = lambda demand: 1.0
) -> list[tuple[float, float]]:
    """Start and end of every task. Raises DeadlockError."""
    return _Run(tasks, slowdown).finish()


class _Run:
    def __init__(self, tasks: Sequence[Task], slowdown: Callable[[float], float]):
        self.tasks, self.slowdown = tasks, slowdown
        self.now = self.virtual = self.demand = 0.0
        self.times: list[tuple[float, float]] = [(math.nan, math.nan)] * len(tasks)
        self.waiting = [len(task.after) for task in tasks]
        self.followers: dict[int, list[int]] = defaultdict(list)
        self.queues: dict[int, deque[int]] = defaultdict(deque)
        self.busy: set[int] = set()
        self.fixed: list[tuple[float, int]] = []
        self.shared: list[tuple[float, int]] = []
        for index, task in enumerate(tasks):
            self.queues[task.stream].append(index)
            for before in task.after:
                self.followers[before].append(index)

    def finish(self) -> list[tuple[float, float]]:
        for stream in list(self.queues):
            self._start_next(stream)
        while self.fixed or self.shared:
            self._end(self._next_ended())
        stuck = [i for i, (start, _) in enumerate(self.times) if math.isnan(start)]
        if stuck:
            raise DeadlockError(stuck)
        return self.times

    def _start_next(self, stream: int) -> None:
        queue = self.queues[stream]
        if stream in self.busy or not queue or self.waiting[queue[0]]:
            return
        index = queue.popleft()
        task = self.tasks[index]
        self.busy.add(stream)
        self.times[index] = (self.now, math.nan)
        if task.demand > 0:
            self.demand += task.demand
            heapq.heappush(self.shared, (self.virtual + task.seconds, index))
        else:
            heapq.heappush(self.fixed, (self.now + task.seconds, index))

    def _next_ended(self) -> int:
        pace = self.slowdown(self.demand) if self.shared else 1.0
        ends = self.shared[0][0] - self.virtual if self.shared else math.inf
        by_share = self.now + ends * pace if self.shared else math.inf
        if self.fixed and self.fixed[0][0] <= by_share:
            at, index = heapq.heappop(self.fixed)
            self.virtual += (at - self.now) / pace
            self.now = at
            return index
        self.virtual, index = heapq.heappop(self.shared)
        self.now = by_share
        self.demand -= self.tasks[index].demand
        return index

    def _end(self, index: int) -> None:
        self.times[index] = (self.times[index][0], self.now)
        stream = self.tasks[index].stream
        self.busy.discard(stream)
        ready = {stream}
        for follower in self.followers[index]:
            self.waiting[follower] -= 1
            ready.add(self.tasks[follower].stream)
        for each in sorted(ready):
            self._start_next(each)
