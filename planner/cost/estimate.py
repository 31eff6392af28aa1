"""The closed-form estimate of a step, for thousands of candidates at once.

    pipeline  = closed form of the schedule over the stages' forward and backward
    wait      = what the slowest replica takes longer (planner.cost.straggler)
    end_i     = pipeline - sum_{j<i} (b_j + hop)     stage i drains before the stages above it
    step      = max_i (end_i + reduce_i) + wait + max_i optimizer_i + runtime.step_seconds

The maximum over stages stands before the optimiser because the gradient norm joins all ranks.

Where ranks share cores (SharedCores), a stage occupies dp*tp*cp cores and the closed form becomes

    max( T * slowdown(min(ranks, cores)),  work * slowdown(ranks) / ranks )

with `work` the busy seconds of all ranks: either the cores suffice, or they are the bottleneck.
It leaves out how bubbles free cores for other stages; the replay has it.
"""

from dataclasses import dataclass

import numpy as np

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.collectives import Floats
from planner.cost.memory import StageMemory, stage_memory
from planner.cost.pipeline import interleaved_seconds
from planner.cost.stages import BlockTables, StageTimes, stage_times
from planner.cost.straggler import waits


@dataclass(frozen=True, slots=True)
class Estimates:
    """step_seconds, wait_seconds, bound_seconds: [N]; peak_bytes: [N], of the fullest stage.

    bound_seconds never exceeds the replay where cores are not shared: the closed form of the
    pipeline, the reduction of the stage that ends it, and the longest update. It is 0 where
    cores are shared.
    """

    step_seconds: Floats
    wait_seconds: Floats
    bound_seconds: Floats
    peak_bytes: Floats
    times: StageTimes
    memory: StageMemory


def estimate(blocks: Blocks, candidates: Candidates) -> Estimates:
    """Step time and peak memory of every candidate."""
    tables = BlockTables(blocks, candidates)
    times, memory = stage_times(tables), stage_memory(tables)
    pipeline = interleaved_seconds(
        candidates.schedule,
        times.forward,
        times.backward,
        candidates.microbatches,
        times.hop,
        candidates.vpp,
        blocks.runtime.overlaps_p2p,
    )
    drain = np.cumsum(times.backward + times.hop[:, None], axis=1)
    end = pipeline[:, None] - np.concatenate([np.zeros((len(drain), 1)), drain[:, :-1]], axis=1)
    step = (end + times.reduce).max(axis=1) + times.optimizer.max(axis=1)
    wait = pipeline * waits(
        blocks.runtime.straggler_spread,
        candidates.dp,
        candidates.dp * candidates.tp * candidates.cp * candidates.pp,
        blocks.cluster.devices_per_node,
    )
    fixed = wait + blocks.runtime.step_seconds
    step = _on_shared_cores(blocks, candidates, times, step) + fixed
    bound = pipeline + times.reduce[:, 0] + times.optimizer.max(axis=1) + fixed
    bound = bound if blocks.cluster.shared_cores is None else np.zeros_like(bound)
    return Estimates(step, wait, bound, memory.total.max(axis=1), times, memory)


def _on_shared_cores(
    blocks: Blocks, candidates: Candidates, times: StageTimes, step: Floats
) -> Floats:
    shared = blocks.cluster.shared_cores
    if shared is None:
        return step
    per_stage = (times.forward + times.backward) * candidates.microbatches[:, None]
    per_rank = candidates.dp * candidates.tp * candidates.cp
    busy = (per_stage + times.reduce + times.optimizer).sum(axis=1) * per_rank
    ranks = per_rank * candidates.pp
    few = np.array([shared.factor(min(n, shared.cores)) for n in ranks.tolist()])
    crowded = np.array([shared.factor(n) / n for n in ranks.tolist()])
    result: Floats = np.maximum(step * few, busy * crowded)
    return result
