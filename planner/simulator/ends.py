"""Ends: when every action of a script ends; exact, for one set of durations or many at once.

    end(a) = max(end(previous(a)) + pause, end(remote(a)) + latency(link(a))) + duration(a)

The makespan is the longest path, so it is monotone in every duration and latency. A message
takes the latency of its link and holds nobody (transfers beside compute); a receive that holds
its rank is a longer action, `holding`. A rank pauses after the last backward of a stage where it
reduces the stage's gradients before it goes on.

Two evaluators, equal to the last bit:

wavefront   level by level in numpy, all candidates of a batch at once
one pass    plain Python over the order by level, one candidate after another

A level costs numpy 1.0 us and 4 ns per action, an action costs Python 0.065 us (measured 2026-11 on
one core of a shared 2-core machine, numpy 2.4), so the wavefront is taken from WIDE actions per
level on, counting those of all candidates. Batches are cut into blocks of BLOCK numbers.
"""

import numpy as np
from numpy.typing import NDArray

from planner.schedule.action import BACKWARD, FORWARD, INPUT_GRADIENT
from planner.simulator.script import Ints, Script

Floats = NDArray[np.float64]

WIDE = 16
"""Actions per level, over all candidates, from which numpy is faster. Measured, see above."""

BLOCK = 4_000_000
"""Ends held at once: 32 MB. Larger blocks were slower (measured), and memory is bounded."""


def makespan(script: Script, durations: Floats, latency: Floats | float = 0.0) -> Floats:
    """Seconds from the start to the end of the last action, [...].

    durations: [..., kinds, stages] in seconds, kinds as in action.COMPUTE_KINDS. latency: [...,
    stages-1] or one number, seconds of one message between neighbouring stages; stages on one rank
    send none.
    """
    span: Floats = _at(script, script.lasts, durations, latency, 0.0).max(axis=-1)
    return span


def ends(
    script: Script,
    durations: Floats,
    latency: Floats | float = 0.0,
    pauses: Floats | float = 0.0,
) -> Floats:
    """When each action ends, [..., n], numbered as in the orders.

    pauses: [..., stages] or one number, seconds. Other arguments as of makespan.
    """
    return _at(script, script.place, durations, latency, pauses)


def holding(script: Script, durations: Floats, latency: Floats | float) -> Floats:
    """The durations when a receive holds its rank: actions that wait for another rank's message
    last its latency longer. Arguments and shape as of makespan."""
    hop = np.asarray(latency) * script.crosses
    shape = np.broadcast_shapes(durations.shape, (*hop.shape[:-1], *durations.shape[-2:]))
    longer = np.broadcast_to(durations, shape).copy()
    longer[..., FORWARD, 1:] += hop
    longer[..., (BACKWARD, INPUT_GRADIENT), :-1] += hop[..., None, :]
    return longer


def _at(
    script: Script,
    places: Ints,
    durations: Floats,
    latency: Floats | float,
    pauses: Floats | float,
) -> Floats:
    """Ends at some positions, [..., places]."""
    stages = script.stages
    lags, rests = _ending_in_zero(latency, stages - 1), _ending_in_zero(pauses, stages)
    table = durations.reshape(*durations.shape[:-2], -1)
    shape = np.broadcast_shapes(table.shape[:-1], lags.shape[:-1], rests.shape[:-1])
    table, lags, rests = (
        np.broadcast_to(x, (*shape, x.shape[-1])).reshape(-1, x.shape[-1])
        for x in (table, lags, rests)
    )
    play = wavefront if script.width * len(table) >= WIDE else one_pass
    found = np.empty((len(table), len(places)))
    rows = max(1, BLOCK // max(1, len(script)))
    for first in range(0, len(table), rows):
        block = slice(first, first + rows)
        found[block] = play(script, table[block], lags[block], rests[block])[:, places]
    return found.reshape(*shape, len(places))


def _ending_in_zero(seconds: Floats | float, count: int) -> Floats:
    """[..., count] numbers, or one for all of them, and a 0 for what there is none of."""
    found = np.zeros((*np.shape(seconds)[:-1], count + 1))
    found[..., :-1] = seconds
    return found


def wavefront(script: Script, table: Floats, lags: Floats, rests: Floats) -> Floats:
    """Ends by position, [C, n + 1].

    table: [C, kinds * stages]. lags: [C, stages], by link; rests: [C, stages + 1], by pause; the
    last of both 0.
    """
    # one candidate takes vectors, which numpy handles faster than matrices of one column
    columns = [x[0] if len(table) == 1 else x.T.copy() for x in (table, lags, rests)]
    lasting, delays, breaks = columns
    late, resting = bool(delays.any()), bool(breaks.any())
    found = np.zeros((len(script) + 1, *lasting.shape[1:]))
    found[1:] = lasting.take(script.cell, 0)
    take, maximum, add = found.take, np.maximum, np.add
    for first, last, previous, remote, link, pause in script.levels:
        before, sent = take(previous, 0), take(remote, 0)
        if late:
            sent += delays.take(link, 0)
        if resting:
            before += breaks.take(pause, 0)
        here = found[first:last]
        add(maximum(before, sent, out=sent), here, out=here)
    return found.T.reshape(len(table), -1)


def one_pass(script: Script, table: Floats, lags: Floats, rests: Floats) -> Floats:
    """The same in plain Python."""
    rows = zip(table, lags, rests, strict=True)
    return np.array(
        [
            _delayed(script, *row) if row[1].any() or row[2].any() else _prompt(script, row[0])
            for row in rows
        ]
    )


def _prompt(script: Script, table: Floats) -> list[float]:
    """Ends of one candidate without latencies and pauses."""
    found = [0.0]
    add = found.append
    for previous, remote, seconds in zip(*script.lists, table[script.cell].tolist(), strict=True):
        before, sent = found[previous], found[remote]
        add((before if before > sent else sent) + seconds)
    return found


def _delayed(script: Script, table: Floats, lags: Floats, rests: Floats) -> list[float]:
    """Ends of one candidate."""
    found = [0.0]
    add = found.append
    columns = table[script.cell], lags[script.link], rests[script.pause]
    lists = (column.tolist() for column in columns)
    for previous, remote, seconds, lag, rest in zip(*script.lists, *lists, strict=True):
        before, sent = found[previous] + rest, found[remote] + lag
        add((before if before > sent else sent) + seconds)
    return found
