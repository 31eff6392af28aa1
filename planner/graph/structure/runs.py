"""Runs: the repetitions of a sequence of tokens.

A run is `count` equal copies in a row of a piece of `period` tokens; what does not repeat is a
run of count 1. The sequence is covered exactly, by taking first the run that saves most,
(count - 1) * period tokens (then the shorter period, then the earlier start), and then looking
left and right of it.

Which periods to try: k-grams that are equal lie a multiple of the period apart, so the gaps
between neighbouring equal k-grams, for k = 1, 2, 4, ..., hold the period of every run of three
copies or more, and of two copies as soon as a k-gram of theirs occurs once per copy. With n
tokens and g different gaps this costs O(n log n + g n); layers have few different gaps.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """`count` copies of `period` tokens from `start` on."""

    start: int
    period: int
    count: int

    @property
    def stop(self) -> int:
        """The first token after the run."""
        return self.start + self.period * self.count

    @property
    def saved(self) -> int:
        """Tokens that need not be looked at, because an earlier copy equals them."""
        return (self.count - 1) * self.period


def runs(tokens: Sequence[Hashable]) -> tuple[Run, ...]:
    """Cover the sequence with runs, first to last."""
    return tuple(_cover(tokens, 0, len(tokens)))


def _cover(tokens: Sequence[Hashable], start: int, stop: int) -> Iterator[Run]:
    best = longest(tokens[start:stop], lambda period: tokens[start:stop])
    if best is None:
        if start < stop:
            yield Run(start, stop - start, 1)
        return
    yield from _cover(tokens, start, start + best.start)
    yield Run(start + best.start, best.period, best.count)
    yield from _cover(tokens, start + best.stop, stop)


def longest(
    tokens: Sequence[Hashable], at: Callable[[int], Sequence[Hashable]], least: int = 1
) -> Run | None:
    """The run that saves most, or None. at(period): the tokens as a run of that period sees them.

    least: the shortest period to look for.
    """
    found = [
        run
        for period in sorted(gaps(tokens))
        if period >= least and (run := _longest(at(period), period)) is not None
    ]
    return max(found, key=lambda run: (run.saved, -run.period), default=None)


def gaps(tokens: Sequence[Hashable]) -> set[int]:
    """Distances between neighbouring equal k-grams, k = 1, 2, 4, ..."""
    found: set[int] = set()
    grams, k = _numbered(tokens), 1
    while len(set(grams)) < len(grams):
        last: dict[int, int] = {}
        for index, gram in enumerate(grams):
            if gram in last:
                found.add(index - last[gram])
            last[gram] = index
        grams = _numbered(list(zip(grams, grams[k:], strict=False)))
        k *= 2
    return found


def _numbered(tokens: Sequence[Hashable]) -> list[int]:
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(token, len(numbers)) for token in tokens]


def _longest(tokens: Sequence[Hashable], period: int) -> Run | None:
    best: Run | None = None
    for start, stop in stretches(tokens, period):
        run = Run(start, period, (stop - start) // period)
        if run.count > 1 and (best is None or run.count > best.count):
            best = run
    return best


def stretches(tokens: Sequence[Hashable], period: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the longest pieces in which every token equals the one a period later."""
    start = 0
    for index in range(len(tokens) - period + 1):
        if index + period < len(tokens) and tokens[index] == tokens[index + period]:
            continue
        if index > start:
            yield start, index + period
        start = index + 1
