"""The legal space: every division that a runtime can run on a cluster.

dp * tp * cp * pp = devices, and
    tp   divides heads, kv heads and ffn, and the sequence where it is sharded;
    cp   divides the sequence in two parts per rank (balanced causal masks), in every style the
         runtime has; by all-to-all also the heads;
    ep   divides the experts, etp divides tp, and ep * etp divides tp * cp * dp;
    pp   at most one stage per layer; 1 for an encoder and decoder (stages that also pass the
         encoder's output on are not costed yet);
    vpp  chunks per stage, where the schedule has them and the microbatches come in whole rounds;
         where stages must be equal (runtime.equal_stages) pp * vpp divides the layers;
    dp * micro_batch divides the global batch;
    zero a stage the runtime offers (under a pipeline, under a schedule that splits the backward),
         0 when there is one replica; hybrid sharding within a divisor of the replicas that cp
         divides, and of whose ranks the experts take whole groups (ep * etp divides shard * tp);
    sync parameter servers where nothing else is sharded (ZeRO 0), of models without experts.

The runtime (planner.spec.runtime) says which of these it can do. What is decided layer by layer
(stage boundaries, which layers recompute) is not enumerated: planner.search.inner.cut solves it.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.cost.candidates import Candidates, Ints
from planner.graph.view import RankView, cp_problem, ep_problem, tp_problem
from planner.schedule.orders import ONE_CHUNK, SPLIT, V_SHAPED, default_chunks, problem
from planner.search.legality import (
    deepest,
    executor_problems,
    shard_problem,
    stages_problem,
)
from planner.spec.cluster import ClusterSpec
from planner.spec.divisors import divisors
from planner.spec.model import ModelSpec
from planner.spec.runnable import experts
from planner.spec.runtime import (
    CONTEXT_STYLES,
    SYNCHRONISATIONS,
    Axis,
    Runtime,
    Schedule,
)
from planner.spec.workload import Workload

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Question:
    """What the space depends on."""

    model: ModelSpec
    cluster: ClusterSpec
    workload: Workload
    runtime: Runtime
    devices: int


def legal(question: Question) -> Iterator[Candidates]:
    """The outer choices as tables, one per depth, schedule, number of chunks and axis order.

    A row's one column stands for all layers: nothing is cut yet.
    """
    for pp in depths(question):
        bare = states(question, pp)
        rows = [
            np.insert(bare[bare[:, DP] == dp], len(COLUMNS) - 1, size, axis=1)
            for dp in np.unique(bare[:, DP]).tolist()
            for size in divisors(question.workload.global_batch // dp)
        ]
        for schedule, vpp in schedules(question.runtime, question.model, pp):
            found = [each[allowed(question, pp, schedule, each)] for each in rows]
            if sum(map(len, found)):
                for order in orders(question.runtime, pp):
                    yield table(question, pp, schedule, vpp, order, np.concatenate(found))


def depths(question: Question) -> list[int]:
    """Numbers of stages, ascending."""
    deep = "pp" in question.runtime.axes
    most = deepest(question.model) if deep else 1
    return [
        pp
        for pp in divisors(question.devices)
        if pp <= most
        and not stages_problem(question.model, question.runtime, pp)
        and not executor_problems(question.model, question.runtime, stages=pp)
    ]


def schedules(runtime: Runtime, model: ModelSpec, pp: int) -> Iterator[tuple[Schedule, int]]:
    """Schedules with the numbers of chunks they may have."""
    plain = [s for s in runtime.schedules if s in ONE_CHUNK]
    if pp == 1:
        yield ("1f1b" if "1f1b" in plain or not plain else plain[0]), 1
        return
    for schedule in runtime.schedules:
        if schedule in ONE_CHUNK:
            yield schedule, 1
            continue
        if schedule == "interleaved" and pp < runtime.interleaved_ranks:
            continue
        most = 2 if schedule in V_SHAPED else runtime.chunks
        for vpp in range(2, most + 1):
            if pp * vpp <= model.layers and not stages_problem(model, runtime, pp, vpp):
                yield schedule, vpp


def orders(runtime: Runtime, pp: int) -> list[tuple[Axis, ...]]:
    """Orders that place ranks differently: ep lies inside others, pp = 1 has no place."""
    seen: dict[tuple[str, ...], tuple[Axis, ...]] = {}
    for order in (runtime.axis_order, *runtime.other_axis_orders):
        seen.setdefault(tuple(a for a in order if a != "ep" and (pp > 1 or a != "pp")), order)
    return list(seen.values())


COLUMNS = ("tp", "cp", "style", "ep", "etp", "dp", "zero", "shard", "sync", "micro_batch")
DP = COLUMNS.index("dp")


def states(question: Question, pp: int) -> Ints:
    """Rows of all COLUMNS but the microbatch for one depth, whatever the schedule."""
    eps, etps = _experts(question)
    found = []
    for tp, cp, style, dp in _dense(question, question.devices // pp):
        every = _states(question.runtime, dp * cp, pp)
        choices = [state for state in every if _keeps(question, *state)]
        for ep, etp in itertools.product(eps, etps):
            if tp % etp or (tp * cp * dp) % (ep * etp):
                continue
            mesh = (tp, cp, style, ep, etp, dp)
            found += [(*mesh, *state) for state in choices if _holds(mesh, state[1])]
    return np.array(found, dtype=np.int64).reshape(len(found), len(COLUMNS) - 1)


def _keeps(question: Question, zero: int, _: int, sync: int) -> bool:
    """Whether a model's states may be kept so."""
    model, runtime = question.model, question.runtime
    return not (sync and experts(model)) and not executor_problems(model, runtime, zero=zero)


def _holds(mesh: tuple[int, ...], shard: int) -> bool:
    """Whether `shard` ranks hold whole sequences and whole groups of experts."""
    tp, cp, _, ep, etp, _ = mesh
    return shard_problem(tp, cp, ep, etp, shard) is None


def _dense(question: Question, ranks: int) -> Iterator[tuple[int, int, int, int]]:
    """(tp, cp, style, dp) of every division of one stage over `ranks`."""
    model, work, runtime = question.model, question.workload, question.runtime
    for tp in divisors(ranks) if "tp" in runtime.axes else [1]:
        if tp_problem(model, work.seq_len, tp, runtime.sequence_parallel):
            continue
        if executor_problems(model, runtime, tp=tp):
            continue
        for cp in divisors(ranks // tp) if "cp" in runtime.axes else [1]:
            dp = ranks // tp // cp
            if work.global_batch % dp:
                continue
            for style in _styles(question, tp, cp):
                yield tp, cp, style, dp


def _styles(question: Question, tp: int, cp: int) -> list[int]:
    """The context styles that divide the sequences so, as places in CONTEXT_STYLES."""
    if cp == 1:
        return [0]
    runtime, seq = question.runtime, question.workload.seq_len
    if seq % (2 * cp) or executor_problems(question.model, runtime, cp=cp):
        return []
    found = []
    for style in runtime.context_styles:
        view = RankView(1, seq, tp, runtime.sequence_parallel, cp=cp, cp_style=style)
        if cp_problem(question.model, view) is None:
            found.append(CONTEXT_STYLES.index(style))
    return found


def _states(runtime: Runtime, replicas: int, pp: int) -> Iterator[tuple[int, int, int]]:
    """(zero, shard, sync): how the states are kept and agreed on."""
    offered = runtime.offered_zero(pp)
    for zero in offered:
        if zero == 0:
            ways = range(len(SYNCHRONISATIONS)) if replicas > 1 else [0]
            yield from (
                (0, 0, sync) for sync in ways if SYNCHRONISATIONS[sync] in runtime.synchronisations
            )
        elif replicas > 1:
            yield zero, 0, 0
            if runtime.hybrid_sharding:
                yield from ((zero, shard, 0) for shard in divisors(replicas)[1:-1])
    if replicas == 1 and 0 not in offered:
        yield 0, 0, 0


def _experts(question: Question) -> tuple[list[int], list[int]]:
    """Every ep and every etp that divides a model's experts."""
    model, runtime = question.model, question.runtime
    every = divisors(question.devices)
    eps = [ep for ep in every if "ep" in runtime.axes and ep_problem(model, ep, 1) is None]
    etps = [etp for etp in every if runtime.shares_experts and ep_problem(model, 1, etp) is None]
    etps = [etp for etp in etps if not executor_problems(model, runtime, etp=etp)]
    return eps or [1], etps or [1]


def allowed(question: Question, pp: int, schedule: Schedule, rows: Ints) -> Flags:
    """Which rows a schedule can run: whole rounds, and the ZeRO stages it goes with.

    The interleaved schedule in Megatron asks for rounds of p, which is more than torch does.
    """
    columns = dict(zip(COLUMNS, rows.T, strict=True))
    microbatches = question.workload.global_batch // (columns["dp"] * columns["micro_batch"])
    chunks = default_chunks(schedule)
    runs = [m for m in np.unique(microbatches).tolist() if not problem(schedule, pp, chunks, m)]
    keep = np.isin(microbatches, runs)
    if schedule == "interleaved":
        keep &= microbatches % pp == 0
    if schedule in SPLIT:
        alone = columns["dp"] * columns["cp"] == 1
        keep &= alone | np.isin(columns["zero"], question.runtime.split_zero_stages)
    return keep


def table(
    question: Question, pp: int, schedule: Schedule, vpp: int, order: tuple[Axis, ...], rows: Ints
) -> Candidates:
    """Rows of COLUMNS under one schedule and order; their one column stands for all layers."""
    columns = dict(zip(COLUMNS, rows.T, strict=True))
    whole = np.full((len(rows), 1), question.model.layers, dtype=np.int64)
    return Candidates(
        pp=pp,
        schedule=schedule,
        recompute="none",
        axis_order=order,
        microbatches=question.workload.global_batch // (columns["dp"] * columns["micro_batch"]),
        counts=whole,
        recomputed=np.zeros_like(whole),
        vpp=vpp,
        **columns,
    )


def why_empty(question: Question) -> list[str]:
    """What forbids each degree when no division of the devices is legal."""
    model, workload, runtime = question.model, question.workload, question.runtime
    reasons = []
    for tp in divisors(question.devices):
        if problem := tp_problem(model, workload.seq_len, tp, runtime.sequence_parallel):
            reasons.append(problem)
    for dp in divisors(question.devices):
        if workload.global_batch % dp:
            reasons.append(f"dp={dp} does not divide global_batch={workload.global_batch}")
    if question.devices > deepest(model):
        why = "one per layer" if model.encoder is None else "encoder and decoder are not cut yet"
        reasons.append(f"pp is at most {deepest(model)} ({why})")
    for pp in divisors(question.devices):
        if problem := stages_problem(model, runtime, pp):
            reasons.append(problem)
    missing = [axis for axis in ("tp", "cp", "pp") if axis not in runtime.axes]
    if missing:
        reasons.append(f"runtime {runtime.name!r} has no {', '.join(missing)}")
    return reasons
