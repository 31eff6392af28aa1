"""Agenda: cases of several families within a time, each family most informative first.

The next case is of the family that has spent the least of its share so far,

    argmin over families f of  spent(f) / share(f)    (ties: the first)

so that however early the time ends, every family has its part. A case begins only if what the
cases of its family took on average so far (before the first, its guess) still fits in the time
left; then nothing of that family begins any more, and its cases are named as left out. A profile
is therefore late by the error of one such guess at most.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure. names: what a reader knows it by. seconds: a guess."""

    names: tuple[str, ...]
    measure: Callable[[], None]
    seconds: float


@dataclass(slots=True)
class Family:
    """Cases of one kind, most informative first, and their share of the time."""

    cases: Sequence[Case]
    share: float = 1.0
    done: int = field(default=0, init=False)
    spent: float = field(default=0.0, init=False)

    @property
    def next_case(self) -> Case | None:
        """The first case that has not been measured."""
        return self.cases[self.done] if self.done < len(self.cases) else None

    @property
    def guess(self) -> float:
        """Seconds that the next case will take."""
        found = self.next_case
        if found is None:
            return 0.0
        return max(found.seconds, self.spent / self.done) if self.done else found.seconds


def work_off(
    families: Iterable[Family],
    left: Callable[[], float],
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> list[str]:
    """Measure cases while there is time; the names of those left out, family by family.

    left: seconds that remain. say: told what is measured next, and of how many cases.
    """
    families = list(families)
    total, open_ = sum(len(f.cases) for f in families), list(families)
    while open_ := [f for f in open_ if f.next_case is not None and f.guess <= left()]:
        family = min(open_, key=lambda f: f.spent / f.share)
        case = family.next_case
        assert case is not None
        say(f"{case.names[0]} (case {sum(f.done for f in families) + 1} of {total})")
        begin = clock()
        case.measure()
        family.spent += clock() - begin
        family.done += 1
    return [name for f in families for case in f.cases[f.done :] for name in case.names]
