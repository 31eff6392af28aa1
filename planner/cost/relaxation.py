"""Relaxation: what no cut of the layers into stages can beat, for many outer choices at once.

An outer choice fixes mesh, microbatch, ZeRO stage and schedule; where the p stages end and which
layers recompute is open. Three columns stand for all stages: E, the first rank without layers
(the embedding); H, the last without layers (the head and loss); A, a rank between them with all
L layers. With one stage, a single column holds everything and the bound is the time without
recomputation.

Time. t = forward + backward of a column. Stage times are sums over what a stage holds, and what
else enters them (floors, weights gathered beside compute) is a maximum of sums, so

    Theta = t_E + t_H + t_A + (p - 3) * microbatch_seconds + 2(p-1) * hop   <=  sum_i t_i
    tau   = t of a rank with the ceil(L/p) cheapest layers there are         <=  max_i t_i

because some stage holds at least ceil(L/p) layers. Where stages have a floor of so much per layer
(stage_floor_seconds) the ends may vanish in it, and Theta = max(sums without floors, floors). For m
microbatches (planner.search.inner.bounds proves the lines):

    1f1b         m > p:  (m + p - 1)/p * Theta,  Theta + (m - (p+1)/2) * tau;    always: m * tau
                 m <= p: Theta,  m * Theta / p
    gpipe        Theta + (m-1) * max(Theta/p, tau)
    chunked (v)  m * Theta/p + (p-1)/2 * (one layer),  m * tau
    split        m * max(Theta/p, tau)

After the pipeline: some stage holds ceil(L/p) layers, and every device waits for its update;
the reduction of the first stage, which ends last, holds at least the embedding's (beside compute:
the part of it that n <= L layers cannot hide). Where the backward is split another rank may end
last, so no reduction is counted.

Memory. A stage with at least ceil(L/p) layers holds at least their states and, with the
strongest recomputation, the checkpoints of the microbatches in flight; the last ranks have the
fewest in flight. In a V of two ranks the one without the embedding has no head either. It is a
lower bound on the peak of the fullest stage.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.cost.estimate import wait_share
from planner.cost.grids import KEEPING, PASSING, Grid, sums_over
from planner.cost.memory import least_passing_bytes, peak_bytes, state_bytes
from planner.cost.stages import StageTimes, stage_times
from planner.schedule.orders import SPLIT, V_SHAPED

SECONDS = ("forward", "forward_tp", "backward", "backward_tp")
"""Fields of a block that a microbatch takes."""


@dataclass(frozen=True, slots=True)
class Relaxed:
    """What the bounds of every schedule are made of, [N] each, in seconds (see the top).

    theta: without transfers. one: of the lightest layer. hop: of one transfer. reduce, update:
    after the pipeline. wait: share of the time until all is reduced.
    """

    choices: Candidates
    theta: Floats
    tau: Floats
    one: Floats
    hop: Floats
    reduce: Floats
    update: Floats
    wait: Floats
    fixed: float

    def take(self, rows: Ints) -> "Relaxed":
        """The chosen rows."""
        arrays = ("theta", "tau", "one", "hop", "reduce", "update", "wait")
        taken = {name: getattr(self, name)[rows] for name in arrays}
        return replace(self, choices=self.choices.take(rows), **taken)

    def step(self, schedule: str, hides_hops: bool, pipeline: Floats | float = 0.0) -> Floats:
        """A lower bound on the step under a schedule. pipeline: another bound on the pipeline."""
        p, m = self.choices.pp, self.choices.microbatches
        theta = self.theta if hides_hops else self.theta + 2 * (p - 1) * self.hop
        if p == 1:
            least: Floats = m * theta
        else:
            least = pipeline_bound(schedule, p, m, theta, self.tau, self.one)
        reduce = np.zeros_like(self.reduce) if schedule in SPLIT else self.reduce
        met = (np.maximum(least, pipeline) + reduce) * (1 + self.wait)
        step: Floats = met + self.update + self.fixed
        return step


def layer_seconds(blocks: Blocks, choices: Candidates) -> Floats:
    """What the layers alone take on the mean rank, m/p times their seconds, [N]: far cheaper than
    the bounds of `relax`, and never above them."""
    tables, whole = BlockTables(blocks, choices), blocks.kinds_before[-1]
    each = sum(
        count * tables.column(kind, name)
        for kind, count in zip(blocks.kinds, whole.tolist(), strict=True)
        for name in SECONDS
    )
    least: Floats = np.asarray(each * choices.microbatches / choices.pp)
    return least


def relax(blocks: Blocks, choices: Candidates) -> Relaxed:
    """The pieces of every row. choices: as planner.search.outer.space makes them, not yet cut."""
    wait, fixed = wait_share(blocks, choices), blocks.runtime.step_seconds
    if choices.pp == 1:
        times = stage_times(BlockTables(blocks, choices))
        whole, none = (times.forward + times.backward)[:, 0], np.zeros(len(choices))
        after = times.reduce[:, 0], times.optimizer[:, 0]
        return Relaxed(choices, whole, whole, none, none, *after, wait, fixed)
    table, p = _columns(blocks, choices), choices.pp
    tables = BlockTables(blocks, table)
    times = stage_times(tables)
    forward, backward = times.forward, times.backward
    if (choices.zero > 1).any():
        forward, backward = _without_gathers(blocks, table, forward, backward)
    each = forward + backward
    theta = each[:, :3].sum(axis=1) + (p - 3) * blocks.runtime.microbatch_seconds
    if blocks.runtime.stage_floor_seconds:
        # a floor takes in what else its stage does: either all sums or all floors
        bare = sum((tables.over_stages(name) for name in SECONDS), np.zeros_like(each))
        theta = np.maximum(
            bare[:, :3].sum(axis=1) + p * blocks.runtime.microbatch_seconds, each[:, 2]
        )
    tau = each[:, 3:].min(axis=1)
    one = each[:, 2] / blocks.model.layers
    if len(blocks.kinds) > 1:
        one = _lightest(tables)
    after = _reduced(blocks, times), times.optimizer[:, 3:].min(axis=1)
    return Relaxed(choices, theta, tau, one, times.hop, *after, wait, fixed)


def _lightest(tables: BlockTables) -> Floats:
    """Seconds of the lightest layer, without what it waits for, [N]."""
    kinds = tables.blocks.kinds
    apart = np.array([[tables.column(kind, name) for name in SECONDS] for kind in kinds])
    lightest: Floats = apart.sum(axis=1).min(axis=0)
    return lightest


def least_seconds(
    blocks: Blocks, choices: Candidates, pipeline_seconds: Floats | float = 0.0
) -> Floats:
    """A lower bound on the step of every row, [N].

    pipeline_seconds: another lower bound on the pipeline that is known, [N].
    """
    hides = hides_hops(blocks, choices)
    return relax(blocks, choices).step(choices.schedule, hides, pipeline_seconds)


def _without_gathers(
    blocks: Blocks, table: Candidates, forward: Floats, backward: Floats
) -> tuple[Floats, Floats]:
    """Seconds of the columns, E and H without the gathers of ZeRO 2 and 3, and A too where compute
    may hide them: an empty stage has a message of its own and exposes more than a full one. Then
    mixtures of several kinds go without, too: what compute cannot hide is least between corners.
    """
    cut = 2
    if blocks.runtime.prefetches_parameters:
        cut = 3 if len(blocks.kinds) == 1 else forward.shape[1]
    bare = stage_times(BlockTables(blocks, replace(table, zero=np.minimum(table.zero, 1))))
    return (
        np.concatenate([bare.forward[:, :cut], forward[:, cut:]], axis=1),
        np.concatenate([bare.backward[:, :cut], backward[:, cut:]], axis=1),
    )


def _reduced(blocks: Blocks, times: StageTimes) -> Floats:
    """What the first stage still reduces after the pipeline, at least, [N].

    Beside the last backward of n <= L layers at least 1/n of it stays exposed, and hiding the
    rest takes its slowdown.
    """
    if not blocks.runtime.overlaps_dp:
        return times.reduce[:, 0]
    shown, slowdown = 1 / blocks.model.layers, blocks.runtime.overlap_slowdown
    least: Floats = times.reduction[:, 0] * (shown + slowdown * (1 - shown))
    return least


def hides_hops(blocks: Blocks, choices: Candidates) -> bool:
    """Whether transfers pass beside the compute of other chunks."""
    return choices.vpp > 1 and blocks.runtime.overlaps_p2p


def pipeline_bound(
    schedule: str,
    p: int,
    m: Ints,
    theta: Floats,
    tau: Floats,
    one: Floats,
) -> Floats:
    """The lines at the top of the file, [N]."""
    if schedule == "gpipe":
        flow: Floats = theta + (m - 1) * np.maximum(theta / p, tau)
        return flow
    if schedule == "1f1b":
        many = np.maximum((m + p - 1) / p * theta, theta + (m - (p + 1) / 2) * tau)
        few = np.maximum(theta, m * theta / p)
        alternating: Floats = np.maximum(np.where(m > p, many, few), tau * m)
        return alternating
    # rank i idles for i layers, which is known of the mean rank and not of the fullest
    idle = (p - 1) / 2 * one if schedule in ("interleaved", "looped-bfs") else 0.0
    busy: Floats = np.maximum(theta / p * m + idle, tau * m)
    return busy


SEVERAL = 4
"""Kinds of layers up to which every order of taking them is tried. Assumed: 24 mixtures are cheap,
and models of the catalog have at most two kinds in a stack."""


def mixtures(blocks: Blocks, layers: int) -> Ints:
    """Ways to take so many layers of the model that no other way is cheaper than, [M, kinds].

    Kind after kind as many as the model has, in every order: the corners of what can be taken,
    where a sum over layers is least. Of more than SEVERAL kinds, all layers of one kind, as
    if the model had so many of it.
    """
    whole = blocks.kinds_before[-1]
    kinds = len(whole)
    if kinds > SEVERAL:
        return layers * np.eye(kinds, dtype=np.int64)
    found = set()
    for order in itertools.permutations(range(kinds)):
        taken, left = [0] * kinds, layers
        for kind in order:
            taken[kind] = min(left, int(whole[kind]))
            left -= taken[kind]
        found.add(tuple(taken))
    return np.array(sorted(found, reverse=True), dtype=np.int64)


def _columns(blocks: Blocks, choices: Candidates) -> Candidates:
    """Columns E, H, A, and one per mixture of ceil(L/p) layers between the ends."""
    p, whole = choices.pp, blocks.kinds_before[-1]
    shares = mixtures(blocks, -(-blocks.model.layers // p))
    none = np.zeros_like(whole)
    kinds = np.stack([none, none, whole, *shares])
    middle = 1 if p > 2 else -1
    ranks = np.array([0, p - 1, middle, *[middle] * len(shares)])
    return with_columns(choices, kinds, ranks)


def with_columns(choices: Candidates, kinds: Ints, ranks: Ints) -> Candidates:
    """The choices with columns of `kinds` layers, [S, kinds], on pipeline ranks `ranks`, [S]; no
    layer recomputes."""
    rows = len(choices)
    tiled = np.broadcast_to(kinds[None], (rows, *kinds.shape))
    return replace(
        choices,
        recompute="none",
        counts=tiled.sum(axis=2),
        kinds=tiled,
        recomputed=np.zeros_like(tiled),
        stage=ranks,
    )


def least_bytes(blocks: Blocks, choices: Candidates, held: int | None = None) -> Floats:
    """A lower bound on the peak of the fullest stage of every row, [N]; held: on that of a stage
    that holds at least so many layers (a single stage holds them all)."""
    p = choices.pp
    if p == 1:
        kinds, ranks = blocks.kinds_before[-1][None], np.array([0])
    else:
        shares = mixtures(blocks, held if held is not None else -(-blocks.model.layers // p))
        v_shaped = V_SHAPED & set(blocks.runtime.schedules)
        # rank -1 is neither first nor last, with as much in flight as the last
        two = [-1] if v_shaped else [0, 1]
        ends = np.array(two if p == 2 else [0, p - 2, p - 1])
        kinds = np.tile(shares, (len(ends), 1))
        ranks = np.repeat(ends, len(shares))
    # the states are the same whatever recomputes, so the least of both ways is of the microbatches
    passing, keeping = Grid.of(choices, PASSING), Grid.of(choices, KEEPING)
    least = least_passing_bytes(BlockTables(blocks, with_columns(passing.rows, kinds, ranks)))
    states = state_bytes(BlockTables(blocks, with_columns(keeping.rows, kinds, ranks)))
    fullest = sums_over(np.minimum, states, keeping.index, least, passing.index)
    return peak_bytes(blocks, fullest)
