"""The closed-form estimate of a step, for thousands of candidates at once.

    pipeline  = closed form of the schedule over the stages' forward and backward
    wait      = what the slowest replica takes longer (planner.cost.straggler)
    end_i     = pipeline - sum_{j<i} (b_j + hop)     stage i drains before the stages above it
    step      = max_i (end_i + reduce_i) + wait + max_i optimizer_i + runtime.step_seconds

With gpipe or 1f1b and one chunk per rank, `pipeline` is exact and `step` is never below the replay,
which it equals unless the slowest reduction follows a stage that drains early. A lower bound:

    gpipe, 1f1b, one chunk    pipeline + reduce_0 + max_i optimizer_i + step_seconds
    any other order           max( max_i m t_i + reduce_i,  sum_i f_i + b_i - w_i ) + ...

t_i all that rank i does with a microbatch, w_i its gradients of weights; the first says that ranks
work, the second that one microbatch passes all stages (reduce_i only with one chunk: the
reduction of a chunk may end long before its rank does).

The maximum over stages stands before the optimiser because the gradient norm joins all ranks.

Where ranks share cores (SharedCores), a stage occupies dp*tp*cp cores and the closed form becomes

    max( T * slowdown(min(ranks, cores)),  work * slowdown(ranks) / ranks )

with `work` the busy seconds of all ranks: either the cores suffice, or they are the bottleneck.
It leaves out how bubbles free cores for other stages; the replay has it. Where messages take no
core (SharedCores.network) only computing slows down, the share c of what a rank does:

    max( T * (1 + c * (slowdown(min(ranks, cores)) - 1)),  work * slowdown(ranks) / ranks + sent )

with `sent` what the stages send on average, as if nobody computed meanwhile.
"""

from dataclasses import dataclass

import numpy as np

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.collectives import Floats
from planner.cost.memory import StageMemory, stage_memory
from planner.cost.pipeline import order_seconds
from planner.cost.stages import StageTimes, stage_times
from planner.cost.straggler import waits

EXACT = ("gpipe", "1f1b")
"""Schedules whose closed form is exact with one chunk per rank."""


@dataclass(frozen=True, slots=True)
class Estimates:
    """step_seconds, bound_seconds, wait_share: [N]; peak_bytes: [N], of the fullest stage.

    wait_share: what the step waits for its slowest replica (planner.cost.straggler), in parts of
    the time until all gradients are reduced. fixed_seconds: what the runtime adds to every step.

    bound_seconds never exceeds the replay where cores are not shared; it is 0 where they are.
    """

    step_seconds: Floats
    wait_share: Floats
    bound_seconds: Floats
    peak_bytes: Floats
    fixed_seconds: float
    times: StageTimes
    memory: StageMemory

    @property
    def waits(self) -> Floats:
        """Seconds of the closed form that are spent waiting for the slowest replica, [N]."""
        until = self.step_seconds - self.times.optimizer.max(axis=1) - self.fixed_seconds
        result: Floats = until * self.wait_share / (1 + self.wait_share)
        return result


def estimate(blocks: Blocks, candidates: Candidates) -> Estimates:
    """Step time and peak memory of every candidate."""
    tables = BlockTables(blocks, candidates)
    times, memory = stage_times(tables), stage_memory(tables)
    pipeline = order_seconds(
        candidates.schedule,
        times.forward,
        times.backward,
        times.backward_weight,
        candidates.microbatches,
        times.hop,
        candidates.vpp,
        blocks.runtime.overlaps_p2p,
    )
    drain = np.cumsum(times.backward + times.hop[:, None], axis=1)
    end = pipeline[:, None] - np.concatenate([np.zeros((len(drain), 1)), drain[:, :-1]], axis=1)
    wait = wait_share(blocks, candidates)
    step = (end + times.reduce).max(axis=1) * (1 + wait) + times.optimizer.max(axis=1)
    fixed = blocks.runtime.step_seconds
    step = _on_shared_cores(blocks, candidates, times, step) + fixed
    least = _least_pipeline(candidates, times, pipeline)
    bound = least * (1 + wait) + times.optimizer.max(axis=1) + fixed
    bound = bound if blocks.cluster.shared_cores is None else np.zeros_like(bound)
    return Estimates(step, wait, bound, memory.total.max(axis=1), fixed, times, memory)


def wait_share(blocks: Blocks, candidates: Candidates) -> Floats:
    """What steps wait for their slowest replica, in passes of one, [N]."""
    return waits(
        blocks.runtime.straggler_spread,
        candidates.dp,
        candidates.replicas * candidates.tp * candidates.pp,
        blocks.cluster.devices_per_node,
    )


def _least_pipeline(candidates: Candidates, times: StageTimes, pipeline: Floats) -> Floats:
    """No replay starts its updates earlier, [N]."""
    apart = candidates.vpp == 1
    if apart and candidates.schedule in EXACT:
        return pipeline + times.reduce[:, 0]
    each = times.forward + times.backward
    work = candidates.microbatches[:, None] * each + (times.reduce if apart else 0.0)
    once: Floats = (each - times.backward_weight).sum(axis=1)
    result: Floats = np.maximum(work.max(axis=1), once)
    return result


def _on_shared_cores(
    blocks: Blocks, candidates: Candidates, times: StageTimes, step: Floats
) -> Floats:
    shared = blocks.cluster.shared_cores
    if shared is None:
        return step
    microbatches = candidates.microbatches[:, None]
    per_stage = (times.forward + times.backward) * microbatches
    whole = (per_stage + times.reduce + times.optimizer).sum(axis=1)
    sent = np.zeros_like(whole)
    if shared.network:
        apart = (times.forward_sent + times.backward_sent) * microbatches
        sent = (apart + times.reduce + times.optimizer_sent).sum(axis=1)
    per_rank = candidates.dp * candidates.tp * candidates.cp
    ranks = per_rank * candidates.pp
    few = np.array([shared.factor(min(n, shared.cores)) for n in ranks.tolist()])
    crowded = np.array([shared.factor(n) / n for n in ranks.tolist()])
    slower = 1 + (1 - sent / whole) * (few - 1)
    result: Floats = np.maximum(
        step * slower, (whole - sent) * per_rank * crowded + sent / candidates.pp
    )
    return result
