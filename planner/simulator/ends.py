"""Ends: when every action of a script ends; exact, for one set of durations or many at once.

    end(a) = max(end(previous(a)), end(remote(a)) + latency(link(a))) + duration(a)

The makespan is the longest path, so it is monotone in every duration and latency. A message
takes the latency of its link and holds nobody (transfers beside compute); a receive that holds
its rank is a longer action, `holding`.

Two evaluators, equal to the last bit:

wavefront   level by level in numpy, all candidates of a batch at once
one pass    plain Python over the order by level, one candidate after another

A level costs numpy 1.0 us and 4 ns per action, an action costs Python 0.065 us (measured 2026-11 on
one core of a shared 2-core machine, numpy 2.4), so the wavefront is taken from WIDE actions per
level on, counting those of all candidates. Batches are cut into blocks of BLOCK numbers.
"""

import numpy as np
from numpy.typing import NDArray

from planner.simulator.script import BACKWARD, FORWARD, INPUT_GRADIENT, Ints, Script

Floats = NDArray[np.float64]

WIDE = 16
"""Actions per level, over all candidates, from which numpy is faster. Measured, see above."""

BLOCK = 4_000_000
"""Ends held at once: 32 MB. Larger blocks were slower (measured), and memory is bounded."""


def makespan(script: Script, durations: Floats, latency: Floats | float = 0.0) -> Floats:
    """Seconds from the start to the end of the last action, [...].

    durations: [..., kinds, stages] in seconds, kinds as in script.KINDS. latency: [..., stages-1]
    or one number, seconds of one message between neighbouring stages; stages on one rank send
    none.
    """
    span: Floats = _at(script, script.lasts, durations, latency).max(axis=-1)
    return span


def last_backwards(script: Script, durations: Floats, latency: Floats | float = 0.0) -> Floats:
    """When the last backward (with a split backward: weight gradient) of each stage ends, in
    seconds, [..., stages]. Arguments as of makespan."""
    return _at(script, script.finals, durations, latency)


def ends(script: Script, durations: Floats, latency: Floats | float = 0.0) -> Floats:
    """When each action ends, [..., n], numbered as in the orders. Arguments as of makespan."""
    return _at(script, script.place, durations, latency)


def holding(script: Script, durations: Floats, latency: Floats | float) -> Floats:
    """The durations when a receive holds its rank: actions that wait for another rank's message
    last its latency longer. Arguments and shape as of makespan."""
    hop = np.asarray(latency) * script.crosses
    longer = np.broadcast_to(
        durations, np.broadcast_shapes(durations.shape, (*hop.shape[:-1], *durations.shape[-2:]))
    ).copy()
    longer[..., FORWARD, 1:] += hop
    longer[..., (BACKWARD, INPUT_GRADIENT), :-1] += hop[..., None, :]
    return longer


def _at(script: Script, places: Ints, durations: Floats, latency: Floats | float) -> Floats:
    """Ends at some positions, [..., places]."""
    lags = np.zeros((*np.shape(latency)[:-1], script.stages))
    lags[..., :-1] = latency
    shape = np.broadcast_shapes(durations.shape[:-2], lags.shape[:-1])
    table = np.broadcast_to(durations, (*shape, *durations.shape[-2:]))
    table = table.reshape(-1, durations.shape[-2] * durations.shape[-1])
    lags = np.broadcast_to(lags, (*shape, script.stages)).reshape(-1, script.stages)
    play = wavefront if script.width * len(table) >= WIDE else one_pass
    found = np.empty((len(table), len(places)))
    rows = max(1, BLOCK // max(1, len(script)))
    for first in range(0, len(table), rows):
        block = slice(first, first + rows)
        found[block] = play(script, table[block], lags[block])[:, places]
    return found.reshape(*shape, len(places))


def wavefront(script: Script, table: Floats, lags: Floats) -> Floats:
    """Ends by position, [C, n + 1]. table: [C, kinds * stages]; lags: [C, stages], the last 0."""
    if len(table) == 1:
        return _wavefront_of_one(script, table[0], lags[0])[None]
    found = np.zeros((len(script) + 1, len(table)))
    found[1:] = table.T[script.cell]
    delays = lags.T.copy() if lags.any() else None
    for first, last, previous, remote, link in script.levels:
        here, sent = found[first:last], found.take(remote, 0)
        if delays is not None:
            sent += delays.take(link, 0)
        here += np.maximum(found.take(previous, 0), sent, out=sent)
    return found.T


def _wavefront_of_one(script: Script, table: Floats, lags: Floats) -> Floats:
    found = np.zeros(len(script) + 1)
    table.take(script.cell, out=found[1:])
    take, maximum, add = found.take, np.maximum, np.add
    if not lags.any():
        for first, last, previous, remote, _ in script.levels:
            here = found[first:last]
            add(maximum(take(previous), take(remote)), here, out=here)
        return found
    for first, last, previous, remote, link in script.levels:
        here = found[first:last]
        add(maximum(take(previous), take(remote) + lags.take(link)), here, out=here)
    return found


def one_pass(script: Script, table: Floats, lags: Floats) -> Floats:
    """The same in plain Python."""
    return np.array([_one_pass(script, *each) for each in zip(table, lags, strict=True)])


def _one_pass(script: Script, table: Floats, lags: Floats) -> list[float]:
    found = [0.0]
    add = found.append
    lasting = table[script.cell].tolist()
    if not lags.any():
        for previous, remote, seconds in zip(*script.lists, lasting, strict=True):
            before, sent = found[previous], found[remote]
            add((before if before > sent else sent) + seconds)
        return found
    delays = lags[script.link].tolist()
    for previous, remote, seconds, lag in zip(*script.lists, lasting, delays, strict=True):
        before, sent = found[previous], found[remote] + lag
        add((before if before > sent else sent) + seconds)
    return found
