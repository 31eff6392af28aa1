"""Replay: the actions of a plan with their seconds -> when everything happens.

All ranks of one pipeline rank do the same at the same time (their tensor- and data-parallel peers
are symmetric), so one representative is played; on shared cores it demands the cores of all
dp*cp*tp of them.

A rank computes one action after another, in the order of its schedule (planner.simulator.ends).
A send is issued at once. A receive either holds its rank from the moment it is reached, begins
when the send is issued and takes one hop (a rendezvous, as gloo and unbuffered NCCL do), or, with
chunks and a runtime that overlaps_p2p, the message travels for one hop beside compute. Gradients:
planner.simulator.streams. The optimiser of every stage waits for all reductions, because the
gradient norm joins all ranks, and for the slowest replica (planner.cost.straggler). What it leaves
out: the skew between peers of one replica, and the pairs of forward and backward that DualPipeV
may overlap, which run one after the other here.

Where ranks share cores the same tasks go through planner.simulator.engine.
"""

from dataclasses import dataclass

import numpy as np

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.estimate import Estimates
from planner.simulator import engine, streams
from planner.simulator.ends import ends, holding
from planner.simulator.script import Script, script
from planner.simulator.stage_seconds import Floats, StageSeconds
from planner.simulator.tasks import Tasks
from planner.spec.cluster import SharedCores


@dataclass(frozen=True, slots=True)
class Replay:
    """One step of one representative per pipeline rank, in seconds.

    starts, ends: [n], of the compute actions, numbered as in script.orders. received: [n], when
    the message that an action needs has arrived, hop seconds after it left (no matter what where
    it needs none: script.sources). hop: [n], seconds of that message, 0 for none.
    reduced, updated: begin and end by stage, [S, 2].
    """

    script: Script
    hop: Floats
    starts: Floats
    ends: Floats
    received: Floats
    reduced: Floats
    updated: Floats
    step_seconds: float


def replay(blocks: Blocks, candidates: Candidates, estimates: Estimates, row: int) -> Replay:
    """Play one candidate. Raises ScheduleError where its schedule cannot have its numbers."""
    m = int(candidates.microbatches[row])
    played = script(candidates.schedule, candidates.pp, m, candidates.vpp)
    seconds = StageSeconds.of(blocks, candidates, estimates, row)
    shared = blocks.cluster.shared_cores
    if shared is None:
        return play(played, seconds)
    cores = float(candidates.replicas[row] * candidates.tp[row])
    return play_on_shared_cores(played, seconds, cores, shared)


def play(played: Script, seconds: StageSeconds) -> Replay:
    """Play a script whose ranks share nothing."""
    latency = np.zeros_like(seconds.hops) if seconds.holds else seconds.hops
    lasting = holding(played, seconds.durations, seconds.hops - latency)
    pauses = 0.0 if seconds.overlaps else seconds.reduction
    found = ends(played, lasting, latency, pauses)
    made = played.orders
    starts = found - seconds.durations[made.kind, made.stage]
    reduced = streams.reductions(played, seconds, found)
    hop = _by_action(played, seconds)
    return Replay(
        script=played,
        hop=hop,
        starts=starts,
        ends=found,
        received=starts if seconds.holds else found[played.sources] + hop,
        reduced=np.stack([reduced.begins, reduced.ends], axis=1),
        updated=(updated := _updates(played, seconds, seconds.met(float(reduced.done.max())))),
        step_seconds=float(updated.max()) + seconds.step,
    )


def _by_action(played: Script, seconds: StageSeconds) -> Floats:
    """Seconds of the message that each action needs, [n]."""
    result: Floats = np.append(seconds.hops, 0.0)[played.links]
    return result


def _updates(played: Script, seconds: StageSeconds, ready: float) -> Floats:
    """Begin and end of the optimiser of every stage, those of one rank one after another."""
    clock = np.full(played.orders.ranks, ready)
    updated = np.zeros((played.stages, 2))
    for stage, rank in enumerate(played.orders.rank_of_stage.tolist()):
        updated[stage] = clock[rank], clock[rank] + seconds.optimizer[stage]
        clock[rank] = updated[stage, 1]
    return updated


def play_on_shared_cores(
    played: Script, seconds: StageSeconds, cores: float, shared: SharedCores
) -> Replay:
    """Play a script on ranks that each demand cores while they compute, reduce or update."""
    made = Tasks.of(played, seconds, cores)
    times = np.array(engine.run(made.tasks, shared.factor))
    updated = np.stack([times[made.updates, 0], times[made.published, 1]], axis=1)
    return Replay(
        script=played,
        hop=_by_action(played, seconds),
        starts=times[made.computes, 0],
        ends=times[made.dones, 1],
        received=times[made.receives, 1],
        reduced=times[made.reductions],
        updated=updated,
        step_seconds=float(updated.max()) + seconds.step,
    )
