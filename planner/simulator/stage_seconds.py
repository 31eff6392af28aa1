"""Stage seconds: how long everything that the stages of one candidate do lasts, all in seconds.

A stage is one chunk of a rank; stages are numbered along the pipeline. What a rank does once for
all its chunks (norm, update) is divided among them in proportion to their parameters, so that a
rank's sum is the closed form's. Gradients are reduced chunk by chunk.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.estimate import Estimates
from planner.cost.hops import hops
from planner.cost.stages import StageTimes, hop_bytes, stage_times

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Messages:
    """What ranks wait for messages, and leave their cores to others meanwhile.

    actions: [kinds, S], of durations. optimizer: [S], of the update. notices: [S - 1], of a
    receiver's word that it is ready.
    """

    actions: Floats
    optimizer: Floats
    notices: Floats


@dataclass(frozen=True, slots=True)
class StageSeconds:
    """Of all S stages. durations: [kinds, S], kinds as in action.COMPUTE_KINDS.

    hops: [S - 1], of one message between neighbours; all alike, as the slowest, but on a network
    whose links are known apart (planner.cost.hops). holds: whether a receive holds its rank for it.
    messages: where ranks that share cores have a network of their own. reduction: [S], of a
    stage's gradients, alone. exposed: [S], what the closed form leaves of it. layers: [S], the
    equal pieces it can be cut into. overlaps: whether pieces are reduced beside the backward;
    slowdown: how much longer compute takes meanwhile. optimizer: [S]. step: what the runtime adds.
    wait: for the slowest replica, in parts of the time until all gradients are reduced.
    """

    durations: Floats
    hops: Floats
    holds: bool
    reduction: Floats
    exposed: Floats
    layers: Floats
    overlaps: bool
    slowdown: float
    optimizer: Floats
    step: float
    wait: float = 0.0
    messages: Messages | None = None

    def met(self, reduced: float) -> float:
        """When the slowest replica has reduced its gradients too."""
        return reduced * (1 + self.wait)

    @classmethod
    def of(cls, blocks: Blocks, candidates: Candidates, estimates: Estimates, row: int) -> Self:
        """Of one row of a table of candidates."""
        one = candidates.take(np.array([row])).by_chunk()
        times, at = estimates.times, row
        if one.chunk is not None:
            times, at = stage_times(BlockTables(blocks, one)), 0
        split = times.backward_input[at], times.backward_weight[at]
        runtime = blocks.runtime
        stages = times.forward.shape[1]
        links, messages = np.full(stages - 1, float(times.hop[at])), None
        if blocks.has_network:
            places, slowest = one.ranks_of_columns.tolist(), float(times.hop[at])
            sized = float(hop_bytes(blocks, one)[0])
            links, notices = hops(blocks, one.layout(0), places, sized, slowest)
            messages = Messages(
                actions=_sent(times, at),
                optimizer=_shared_out(estimates.times.optimizer_sent[row], one, times, at),
                notices=notices,
            )
        return cls(
            durations=np.stack([times.forward[at], times.backward[at], *split]),
            hops=links,
            holds=not (runtime.overlaps_p2p and candidates.vpp > 1),
            reduction=times.reduction[at],
            exposed=times.reduce[at],
            layers=np.maximum(one.counts[0], 1).astype(np.float64),
            overlaps=runtime.overlaps_dp,
            slowdown=runtime.overlap_slowdown,
            optimizer=_shared_out(estimates.times.optimizer[row], one, times, at),
            step=runtime.step_seconds,
            wait=float(estimates.wait_share[row]),
            messages=messages,
        )


def _sent(times: StageTimes, at: int) -> Floats:
    """What of every action is spent with messages, [kinds, S]; all of a split backward's in the
    half that makes gradients of inputs."""
    forward, backward = times.forward_sent[at], times.backward_sent[at]
    return np.stack([forward, backward, backward, np.zeros_like(backward)])


def _shared_out(ranks: Floats, one: Candidates, times: StageTimes, at: int) -> Floats:
    """What ranks do once, [pp], divided among their stages by parameters, [S]."""
    place, parameters = one.ranks_of_columns, times.parameters[at]
    whole = np.bincount(place, parameters, minlength=one.pp)[place]
    share = np.where(whole > 0, parameters / np.maximum(whole, 1.0), 1 / one.vpp)
    result: Floats = ranks[place] * (share if one.vpp > 1 else 1.0)
    return result
