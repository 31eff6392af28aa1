"""The legal space: every division that a runtime can run on a cluster.

dp * tp * pp = devices, and
    tp   divides heads, kv heads and ffn, and the sequence where it is sharded;
    pp   at most one stage per layer, and a schedule the runtime offers; 1 for an encoder and
         decoder (stages that also pass the encoder's output on are not costed yet);
    dp * micro_batch divides the global batch;
    zero a stage the runtime offers, 0 when dp = 1; recompute a mode it offers (selective equals
         none where attention never stores its scores).

Uneven stages. Where all layers cost the same, a plan's time depends on how many layers a stage
holds, and only the first stage (embedding) and the last (head and loss) differ from the ones
between them. For given first and last counts the stages between are best as even as can be
(their maximum enters the time). first and last are tried in a window around the even share:
first within 3, last from 8 below to 2 above; all of them when the model has at most 12 layers.
"""

from collections.abc import Iterator

import numpy as np

from planner.cost.candidates import Candidates, Ints
from planner.graph.view import tp_problem
from planner.search.inner.stage_tables import modes
from planner.search.legality import deepest, executor_problems
from planner.spec.cluster import ClusterSpec
from planner.spec.divisors import divisors
from planner.spec.model import ModelSpec
from planner.spec.runtime import Recompute, Runtime, Schedule
from planner.spec.workload import Workload

SMALL_MODEL_LAYERS = 12


def legal(
    model: ModelSpec, cluster: ClusterSpec, workload: Workload, runtime: Runtime, devices: int
) -> Iterator[Candidates]:
    """The space as tables, one per pipeline depth, schedule and recompute mode."""
    for pp in divisors(devices):
        if pp > deepest(model) or executor_problems(model, runtime, stages=pp):
            continue
        rows = list(_rows(model, workload, runtime, devices // pp, pp))
        if not rows:
            continue
        splits = partitions(model.layers, pp)
        if runtime.equal_stages:
            splits = splits[(splits == splits[:, :1]).all(axis=1)]
        for schedule in _schedules(runtime, pp):
            for recompute in modes(runtime):
                yield _table(rows, splits, pp, schedule, recompute, runtime, workload)


def _schedules(runtime: Runtime, pp: int) -> tuple[Schedule, ...]:
    if pp > 1:
        return tuple(s for s in runtime.schedules if s in ("gpipe", "1f1b"))
    return ("1f1b",) if "1f1b" in runtime.schedules else runtime.schedules[:1]


def _rows(
    model: ModelSpec, workload: Workload, runtime: Runtime, ranks: int, pp: int
) -> Iterator[tuple[int, int, int, int]]:
    """(dp, tp, micro_batch, zero) of every legal division of one of pp stages over `ranks`."""
    for tp in divisors(ranks):
        if tp_problem(model, workload.seq_len, tp, runtime.sequence_parallel):
            continue
        if executor_problems(model, runtime, tp=tp):
            continue
        dp = ranks // tp
        if workload.global_batch % dp:
            continue
        zeros = [z for z in runtime.offered_zero(pp) if z == 0 or dp > 1]
        zeros = [z for z in zeros if not executor_problems(model, runtime, zero=z)]
        for micro_batch in divisors(workload.global_batch // dp):
            yield from ((dp, tp, micro_batch, zero) for zero in zeros)


def _table(
    rows: list[tuple[int, int, int, int]],
    splits: Ints,
    pp: int,
    schedule: Schedule,
    recompute: Recompute,
    runtime: Runtime,
    workload: Workload,
) -> Candidates:
    repeated = np.repeat(np.array(rows, dtype=np.int64), len(splits), axis=0)
    dp, tp, micro_batch, zero = repeated.T
    counts = np.tile(splits, (len(rows), 1))
    return Candidates(
        pp=pp,
        schedule=schedule,
        recompute=recompute,
        axis_order=runtime.axis_order,
        dp=dp,
        tp=tp,
        micro_batch=micro_batch,
        microbatches=workload.global_batch // (dp * micro_batch),
        zero=zero,
        counts=counts,
        recomputed=counts if recompute != "none" else np.zeros_like(counts),
    )


def partitions(layers: int, pp: int) -> Ints:
    """Layers per stage of every split that is tried, shape [splits, pp]."""
    if pp == 1:
        return np.array([[layers]], dtype=np.int64)
    found = {
        split
        for first in _window(layers, pp, below=3, above=3)
        for last in _window(layers, pp, below=8, above=2)
        if (split := _split(layers, pp, first, last)) is not None
    }
    return np.array(sorted(found), dtype=np.int64)


def _window(layers: int, pp: int, below: int, above: int) -> range:
    if layers <= SMALL_MODEL_LAYERS:
        return range(layers + 1)
    low, high = layers // pp, -(-layers // pp)
    return range(max(0, low - below), high + above + 1)


def _split(layers: int, pp: int, first: int, last: int) -> tuple[int, ...] | None:
    rest, middle = layers - first - last, pp - 2
    if rest < 0 or (middle == 0 and rest) or (middle and rest < middle):
        return None
    if middle == 0:
        return (first, last)
    base, extra = divmod(rest, middle)
    return (first, *(base + (i >= middle - extra) for i in range(middle)), last)


def why_empty(model: ModelSpec, workload: Workload, runtime: Runtime, devices: int) -> list[str]:
    """What forbids each degree when no division of the devices is legal."""
    reasons = []
    for tp in divisors(devices):
        if problem := tp_problem(model, workload.seq_len, tp, runtime.sequence_parallel):
            reasons.append(problem)
    for dp in divisors(devices):
        if workload.global_batch % dp:
            reasons.append(f"dp={dp} does not divide global_batch={workload.global_batch}")
    if devices > deepest(model):
        why = "one per layer" if model.encoder is None else "encoder and decoder are not cut yet"
        reasons.append(f"pp is at most {deepest(model)} ({why})")
    return reasons
