"""Orders: the compute order of every pipeline rank, as arrays; the one source of every schedule.

p ranks, v chunks per rank (S = pv stages), m microbatches. Loop placement: stage s lies on rank
s mod p. V placement (v = 2): rank r holds stages r and 2p-1-r, so the turn and the loss are local.
F forward, B whole backward, I gradient of the input, W gradient of the weights (I + W = B).

One formula covers the loop placements. Rank r runs forwards k = 0 .. vm-1 and backwards likewise;
with R microbatches per round, step k is chunk (k div R) mod v (backwards: from the last chunk
down) of microbatch (k div vR) R + k mod R. After w_r warm-up forwards, F(w_r + j) comes before
backward j; with a split backward, W(j - r) comes after I(j).

    gpipe           v = 1     w = m                               Huang et al. 2019
    1f1b            v = 1     w = min(p-1-r, m)                   Narayanan et al. 2019 (flush)
    looped-bfs      any v     w = vm, R = m, backwards last microbatch first
                                                                  Lamy-Poirier 2022
    interleaved     any v     w = min((v-1)R + 2(p-1-r), vm)      Narayanan et al. 2021
    interleaved-zb  any v     w = min((v-1)R + p-1-r, vm), split  Qi et al. 2023 (ZB1P)
    zb-h1           v = 1     the same
    zbv             V         split                               Qi et al. 2023, section 6
    dualpipev       V         F and B of two chunks overlap       DeepSeek-V3 2024

R = m / max(1, m div p), so the interleaved ones need whole rounds. Orders are, action for action,
those of torch.distributed.pipelining 2.13 (tests/schedule/test_torch.py), with its empty slots
left out. Ours allow 1f1b with m < p, which torch's Schedule1F1B refuses (its CSV runtime does not).

dualpipev: torch puts a forward and a backward that may run beside each other into one action and
runs them one after the other. Here they are two actions; `pairs` marks the forward, so nothing is
lost: `units` joins them again.
"""

import difflib
import functools
import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.schedule import v_shaped
from planner.schedule.action import (
    BACKWARD,
    COMPUTE_KINDS,
    FORWARD,
    INPUT_GRADIENT,
    WEIGHT_GRADIENT,
    Action,
    Grid,
)
from planner.schedule.check import ScheduleError
from planner.spec.runtime import SCHEDULES

Ints = NDArray[np.int64]

ONE_CHUNK = {"gpipe": "looped-bfs", "1f1b": "interleaved", "zb-h1": "interleaved-zb"}
"""Schedules of one chunk per rank, and their counterpart for several."""
V_SHAPED = frozenset({"zbv", "dualpipev"})
IN_ROUNDS = frozenset({"interleaved", "interleaved-zb", "zb-h1"})
SPLIT = frozenset({"interleaved-zb", "zb-h1", "zbv", "dualpipev"})
"""Schedules with I and W actions."""


@dataclass(frozen=True, slots=True, eq=False)
class Orders:
    """A schedule's compute orders, rank after rank; n actions in all. The arrays are read-only.

    starts: [ranks+1] where each rank's actions begin. kind: [n] int8, index into COMPUTE_KINDS.
    stage, microbatch: [n] int32. pairs: [n] bool, a forward that may run beside the backward right
    after it. rank_of_stage: [ranks*chunks].
    """

    schedule: str
    ranks: int
    chunks: int
    microbatches: int
    starts: Ints
    kind: NDArray[np.int8]
    stage: NDArray[np.int32]
    microbatch: NDArray[np.int32]
    pairs: NDArray[np.bool_]
    rank_of_stage: Ints

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def stages(self) -> int:
        """Stages of all ranks together."""
        return self.ranks * self.chunks


def default_chunks(schedule: str) -> int:
    """Chunks per rank when nobody says: 1 where only one is possible, else 2."""
    return 1 if schedule in ONE_CHUNK else 2


def rank_of_stage(schedule: str, ranks: int, chunks: int) -> tuple[int, ...]:
    """The rank that holds each stage."""
    stages = range(ranks * chunks)
    if schedule in V_SHAPED:
        return tuple(min(stage, len(stages) - 1 - stage) for stage in stages)
    return tuple(stage % ranks for stage in stages)


def problem(schedule: str, ranks: int, chunks: int, microbatches: int) -> str | None:
    """Why a schedule cannot have these numbers, and the way out; None where it can."""
    if schedule not in SCHEDULES:
        close = difflib.get_close_matches(schedule, SCHEDULES, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"schedule {schedule!r} is unknown; {hint}known: {', '.join(SCHEDULES)}"
    sizes = {"ranks": ranks, "chunks": chunks, "microbatches": microbatches}
    for name, value in sizes.items():
        if value < 1:
            return f"{schedule}: {name}={value}, must be at least 1"
    return _chunks_problem(schedule, chunks) or _rounds_problem(schedule, ranks, microbatches)


def _chunks_problem(schedule: str, chunks: int) -> str | None:
    if schedule in ONE_CHUNK and chunks != 1:
        return (
            f"{schedule} has one chunk per rank, not {chunks}; use chunks=1, "
            f"or {ONE_CHUNK[schedule]}"
        )
    if schedule in V_SHAPED and chunks != 2:
        return f"{schedule} has two chunks per rank, not {chunks}; use chunks=2"
    return None


def _rounds_problem(schedule: str, ranks: int, microbatches: int) -> str | None:
    if schedule == "dualpipev" and microbatches < 2 * ranks:
        return (
            f"dualpipev needs at least as many microbatches as stages, got {microbatches} and "
            f"{2 * ranks}; use {2 * ranks} microbatches or more, fewer ranks, or zbv"
        )
    rounds = max(1, microbatches // ranks)
    if schedule in IN_ROUNDS and microbatches % rounds:
        below = microbatches // ranks * ranks
        return (
            f"{schedule}: {microbatches} microbatches do not divide into {rounds} rounds of "
            f"{ranks} ranks; use {below} or {below + ranks} microbatches"
        )
    return None


@functools.lru_cache(maxsize=32)
def orders(schedule: str, ranks: int, microbatches: int, chunks: int = 1) -> Orders:
    """The compute orders of a named schedule. Raises ScheduleError with the way out."""
    wrong = problem(schedule, ranks, chunks, microbatches)
    if wrong is not None:
        raise ScheduleError(wrong)
    if schedule in V_SHAPED:
        found = v_shaped.columns(schedule, ranks, microbatches)
    else:
        found = _looped(schedule, ranks, microbatches, chunks)
    placed = np.array(rank_of_stage(schedule, ranks, chunks))
    return _frozen(schedule, ranks, chunks, microbatches, *found, placed)


def _frozen(
    schedule: str,
    ranks: int,
    chunks: int,
    microbatches: int,
    lengths: Ints,
    columns: Ints,
    rank_of_stage: Ints,
) -> Orders:
    """Orders of the columns kind, stage, microbatch, pairs: [n, 4]."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    kind, stage, microbatch, pairs = (np.ascontiguousarray(column) for column in columns.T)
    made = Orders(
        schedule=schedule,
        ranks=ranks,
        chunks=chunks,
        microbatches=microbatches,
        starts=starts,
        kind=kind.astype(np.int8),
        stage=stage.astype(np.int32),
        microbatch=microbatch.astype(np.int32),
        pairs=pairs.astype(np.bool_),
        rank_of_stage=rank_of_stage,
    )
    for array in (starts, made.kind, made.stage, made.microbatch, made.pairs, rank_of_stage):
        array.flags.writeable = False
    return made


def _looped(schedule: str, p: int, m: int, v: int) -> tuple[Ints, Ints]:
    """Lengths [p] and columns [n, 4] of a loop placement, by the formula at the top."""
    rank, n = np.arange(p)[:, None], v * m
    step = np.arange(n)[None, :]
    whole = schedule in ("gpipe", "looped-bfs")
    per_round = m if whole else m // max(1, m // p)
    chunk, microbatch = step // per_round % v, step // (per_round * v) * per_round
    microbatch = microbatch + step % per_round
    backward_of = m - 1 - microbatch if schedule == "looped-bfs" else microbatch
    spacing = 2 if schedule == "interleaved" else 1
    warm_up = np.full_like(rank, n) if whole else (v - 1) * per_round + spacing * (p - 1 - rank)
    places = _places(np.minimum(warm_up, n), n, rank if schedule in SPLIT else None)
    backward = INPUT_GRADIENT if schedule in SPLIT else BACKWARD
    parts = [
        _part(FORWARD, chunk, microbatch),
        _part(backward, v - 1 - chunk, backward_of),
        _part(WEIGHT_GRADIENT, v - 1 - chunk, backward_of),
    ]
    columns = np.zeros((p, len(places) * n, 4), dtype=np.int64)
    for place, part in zip(places, parts, strict=False):
        columns[rank, place] = part
    columns[:, :, 1] = columns[:, :, 1] * p + rank
    return np.full(p, len(places) * n), columns.reshape(-1, 4)


def _part(kind: int, chunk: Ints, microbatch: Ints) -> Ints:
    """Kind, chunk, microbatch and no pair, for every step: [1, n, 4]."""
    zero = np.zeros_like(chunk)
    return np.stack([zero + kind, chunk, microbatch, zero], axis=-1)


def _places(warm_up: Ints, n: int, lag: Ints | None) -> tuple[Ints, ...]:
    """Where forwards, backwards and (with a lag) weight gradients stand in the order, each [p, n].

    Before backward j stand min(w + j + 1, n) forwards, j backwards and max(0, j - lag) weight
    gradients.
    """
    j = np.arange(n)[None, :]
    backward = np.minimum(warm_up + j + 1, n) + j
    if lag is not None:
        backward = backward + np.maximum(j - lag, 0)
    before = np.take_along_axis(backward, np.maximum(j - warm_up, 0), axis=1) - 1
    forward = np.where(j < warm_up, j, before)
    if lag is None:
        return forward, backward
    after = np.take_along_axis(backward, np.minimum(j + lag, n - 1), axis=1) + 1
    return forward, backward, np.where(j + lag < n, after, 2 * n + j)


def grid(made: Orders) -> Grid:
    """The same orders as actions, one tuple per rank."""
    columns = (made.stage.tolist(), made.kind.tolist(), made.microbatch.tolist())
    actions = [
        Action(stage, COMPUTE_KINDS[kind], k) for stage, kind, k in zip(*columns, strict=True)
    ]
    ends = made.starts.tolist()
    return tuple(tuple(actions[a:b]) for a, b in itertools.pairwise(ends))
