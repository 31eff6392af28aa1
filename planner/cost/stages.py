"""Stage times: what each stage of each candidate computes and communicates.

For a stage with n_k layers of kind k of which r_k recompute, all in seconds of one microbatch,

    forward  = sum_k n_k * layer_k.forward + [first] embedding.forward + [last] head.forward
    backward = sum_k n_k * layer_k.backward + r_k * layer_k.again + [first] ... + [last] ...

and likewise for the tensor-parallel collectives inside them. Once per step a stage reduces
its gradients,

    reduce = all_reduce over tp of the replicated parameters (sequence parallelism)
           + all_reduce over {first, last} of tied embeddings (pp > 1)
           + ZeRO 0: all_reduce over dp*cp; ZeRO 1: reduce_scatter over dp*cp

and updates its parameters (norm with one number summed over all ranks, AdamW on the own share,
zeroing; ZeRO 1 and 2 gather the new weights). ZeRO 2 scatters gradients in every backward, ZeRO 3
also gathers the weights before every forward and backward. With overlap (runtime.overlaps_dp)
the reduction of a layer hides behind the last backward of those before it, and slows it down:

    exposed = reduce - (1 - 1/layers) * min(reduce, last backward)      (planner.cost.overlap)
    reduce  = exposed + overlap_slowdown * (reduce - exposed)
"""

import functools
from dataclasses import dataclass

import numpy as np

from planner.cost import overlap
from planner.cost.blocks import FORWARD_SHARE_OF_HOST, Blocks, Division
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.graph.operator import Block, Operator
from planner.spec.layout import Layout
from planner.spec.profile import CollectiveOp
from planner.spec.runtime import Axis, Recompute

NORM_BYTES = 8
"""One fp64 number."""

ADAMW_BYTES = 28
"""fp32 AdamW reads gradient, weight and two moments and writes three of them: 7 * 4 bytes."""


AGAIN: dict[Recompute, tuple[str | None, str | None]] = {
    "none": (None, None),
    "selective": ("again_selective", None),
    "full": ("again", "again_tp"),
}
"""The fields of a block that a recompute mode adds to the backward: compute, collectives."""


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Seconds, shape [N, pp] unless said.

    forward, backward: per microbatch, with the collectives of *_tp inside. hop: [N], one
    transfer between stages. reduce: exposed gradient reduction. optimizer: the update.
    parameters: on one rank of the stage.
    """

    forward: Floats
    backward: Floats
    forward_tp: Floats
    backward_tp: Floats
    hop: Floats
    reduce: Floats
    optimizer: Floats
    parameters: Floats


def gradient_bytes(blocks: Blocks) -> int:
    """Bytes of one gradient element where it is accumulated and reduced."""
    size = blocks.element_bytes
    return max(size, 4) if blocks.runtime.gradient_dtype == "fp32" else size


def kind_counts(blocks: Blocks, counts: Ints) -> Ints:
    """Layers of each kind in each stage, [N, pp, kinds]. counts: layers per stage, [N, pp]."""
    order = [tuple(each) for each in blocks.model.order]
    is_kind = np.array([[each == tuple(kind) for kind in blocks.kinds] for each in order])
    before = np.concatenate([np.zeros((1, len(blocks.kinds)), np.int64), is_kind.cumsum(axis=0)])
    ends = counts.cumsum(axis=1)
    result: Ints = before[ends] - before[ends - counts]
    return result


@functools.lru_cache(maxsize=65_536)
def _division(
    tp: int, micro_batch: int, dp: int, pp: int, cp: int, ep: int, axis_order: tuple[Axis, ...]
) -> Division:
    degrees = {"tp": tp, "micro_batch": micro_batch, "dp": dp, "pp": pp, "cp": cp, "ep": ep}
    return Division.of(Layout(axis_order=axis_order, **degrees))


class BlockTables:
    """The costs of every block for a table of candidates: distinct ones, and who uses which."""

    def __init__(self, blocks: Blocks, candidates: Candidates):
        self.blocks, self.candidates = blocks, candidates
        keys = np.stack([candidates.tp, candidates.micro_batch, candidates.dp], axis=1)
        distinct, index = np.unique(keys, axis=0, return_inverse=True)
        self.index = index.reshape(-1)
        self.divisions = [self._division(*key) for key in distinct.tolist()]
        self.layers = kind_counts(blocks, candidates.counts)

    def _division(self, tp: int, micro_batch: int, dp: int) -> Division:
        same = self.candidates
        return _division(tp, micro_batch, dp, same.pp, same.cp, same.ep, same.axis_order)

    def column(self, block: Block, field: str) -> Floats:
        """One field of a block's cost per candidate, [N]."""
        costs = [self.blocks.cost(block, division) for division in self.divisions]
        return np.array([float(getattr(cost, field)) for cost in costs])[self.index]

    def over_layers(self, field: str) -> Floats:
        """The sum of a field over the layers of each stage, [N, pp]."""
        return self._over_kinds(field, self.layers)

    def over_recomputed(self, field: str) -> Floats:
        """The sum of a field over the layers that recompute, [N, pp].

        Where a stage recomputes some of its layers only, the kinds take equal shares.
        """
        share = self.candidates.recomputed / np.maximum(self.candidates.counts, 1)
        return self._over_kinds(field, self.layers * share[:, :, None])

    def over_stages(self, field: str, again: str | None = None) -> Floats:
        """The sum over everything that a stage holds, [N, pp]; again: of layers run again."""
        total = self.over_layers(field)
        if again is not None:
            total += self.over_recomputed(again)
        total[:, 0] += self.column("embedding", field)
        total[:, -1] += self.column("head", field)
        return total

    def _over_kinds(self, field: str, counted: Ints | Floats) -> Floats:
        total = np.zeros(self.candidates.counts.shape)
        for index, kind in enumerate(self.blocks.kinds):
            total += self.column(kind, field)[:, None] * counted[:, :, index]
        return total


@dataclass(frozen=True, slots=True)
class Held:
    """Parameters on one rank of each stage, [N, pp], and over how many ranks a copy is divided.

    dense: copies on dp*cp ranks; experts: on dp*cp*tp/ep (planner.graph.data_parallel). own: the
    part of both that one of those ranks updates under ZeRO. replicated: the same on all tp ranks.
    """

    dense: Floats
    experts: Floats
    replicated: Floats
    own: Floats

    @property
    def all(self) -> Floats:
        """All parameters on a rank."""
        return self.dense + self.experts


def stage_parameters(tables: BlockTables) -> Held:
    """Parameters of each stage."""
    candidates = tables.candidates
    dense = tables.over_stages("parameters")
    if candidates.pp == 1 and tables.blocks.model.tied_embeddings:
        dense[:, 0] -= _tied_elements(tables.blocks, candidates.tp)
    experts = tables.over_stages("expert_parameters")
    dense -= experts
    replicas = candidates.dp * candidates.cp
    expert_replicas = np.maximum(replicas * candidates.tp // candidates.ep, 1)
    own = np.ceil(dense / replicas[:, None]) + np.ceil(experts / expert_replicas[:, None])
    return Held(dense, experts, tables.over_stages("replicated_parameters"), own)


def stage_times(tables: BlockTables) -> StageTimes:
    """Times of every stage of every candidate."""
    blocks, candidates = tables.blocks, tables.candidates
    again, again_tp = AGAIN[candidates.recompute]
    forward_tp = tables.over_stages("forward_tp")
    backward_tp = tables.over_stages("backward_tp", again_tp)
    forward = tables.over_stages("forward") + forward_tp
    backward = tables.over_stages("backward", again) + backward_tp
    backward += blocks.runtime.microbatch_seconds
    forward, backward = _floored(blocks, candidates, forward, backward)
    held = stage_parameters(tables)
    gathers, scatters = _sharded(blocks, candidates, held, forward, backward)
    forward, backward = forward + gathers, backward + scatters
    reduction = _reduction(blocks, candidates, held)
    if blocks.runtime.overlaps_dp:
        buckets, slowdown = np.maximum(candidates.counts, 1), blocks.runtime.overlap_slowdown
        reduction = _beside(reduction, backward, buckets, slowdown)
    return StageTimes(
        forward=forward,
        backward=backward,
        forward_tp=forward_tp,
        backward_tp=backward_tp,
        hop=_hop(blocks, candidates),
        reduce=reduction,
        optimizer=_optimizer(blocks, candidates, held),
        parameters=held.all,
    )


def _floored(
    blocks: Blocks, candidates: Candidates, forward: Floats, backward: Floats
) -> tuple[Floats, Floats]:
    """Stage times with the runtime's floor where stages span nodes (see planner.spec.runtime)."""
    floor = blocks.runtime.stage_floor_seconds
    if not floor or candidates.pp == 1:
        return forward, backward
    ranks = candidates.dp * candidates.tp * candidates.pp * candidates.cp
    spread = ranks > blocks.cluster.devices_per_node
    least = (floor * candidates.tp * spread)[:, None] * candidates.counts
    return (
        np.maximum(forward, least * FORWARD_SHARE_OF_HOST),
        np.maximum(backward, least * (1 - FORWARD_SHARE_OF_HOST)),
    )


def _sharded(
    blocks: Blocks, candidates: Candidates, held: Held, forward: Floats, backward: Floats
) -> tuple[Floats, Floats]:
    """Exposed gathering of weights and scattering of gradients per microbatch, ZeRO 2 and 3.

    Every layer is a message of its own. A runtime that prefetches hides them behind the compute
    of other layers, but for one layer.
    """
    zero = candidates.zero[:, None]
    if not (zero > 1).any():
        return np.zeros_like(forward), np.zeros_like(backward)
    layers = np.maximum(candidates.counts, 1)
    size, grad = blocks.element_bytes, gradient_bytes(blocks)
    gather = _over_replicas(blocks, candidates, "all_gather", held, size, layers)
    scatter = _over_replicas(blocks, candidates, "reduce_scatter", held, grad, layers)
    ahead = np.where(zero > 2, gather, 0.0)
    behind = np.where(zero > 1, scatter, 0.0) + ahead
    if not blocks.runtime.prefetches_parameters:
        return ahead, behind
    slowdown = blocks.runtime.overlap_slowdown
    return _beside(ahead, forward, layers, slowdown), _beside(behind, backward, layers, slowdown)


def _beside(sent: Floats, computed: Floats, pieces: Ints, slowdown: float) -> Floats:
    """What communication beside compute adds: what it does not hide, and the slow-down."""
    left = overlap.exposed(sent, computed, pieces.astype(np.float64))
    result: Floats = left + slowdown * (sent - left)
    return result


def _meshes(candidates: Candidates) -> list[tuple[Layout, Ints]]:
    """The distinct meshes among the candidates, each with the rows that use it."""
    pairs = np.stack([candidates.dp, candidates.tp], axis=1)
    distinct, index = np.unique(pairs, axis=0, return_inverse=True)
    rows = [np.flatnonzero(index.reshape(-1) == each) for each in range(len(distinct))]
    return [(candidates.layout(int(each[0])), each) for each in rows]


def _hop(blocks: Blocks, candidates: Candidates) -> Floats:
    """Seconds to pass the activations of one microbatch to the next stage, shape [N].

    The slowest of the hops counts: a pipeline that leaves its node is as slow as that.
    """
    seconds = np.zeros(len(candidates))
    if candidates.pp == 1:
        return seconds
    for layout, rows in _meshes(candidates):
        batches = candidates.micro_batch[rows]
        view = blocks.view(layout.tp, 1, layout.cp)
        per_sequence = view.outer_rows * blocks.model.hidden * view.element_bytes
        sizes = batches.astype(np.float64) * per_sequence
        stride, groups = layout.stride("pp"), layout.dp * layout.tp * layout.cp
        seconds[rows] = blocks.collective("send_recv", layout.pp, stride, groups, sizes)
    return seconds


def _exchange(
    blocks: Blocks, candidates: Candidates, op: CollectiveOp, axis: Axis, sizes: Floats
) -> Floats:
    """Seconds of one collective per stage over an axis, shape [N, pp]."""
    seconds = np.zeros_like(sizes)
    for layout, rows in _meshes(candidates):
        ranks = getattr(layout, axis)
        groups = layout.dp * layout.tp * layout.cp // ranks
        seconds[rows] = blocks.collective(op, ranks, layout.stride(axis), groups, sizes[rows])
    return seconds


def _over_replicas(
    blocks: Blocks,
    candidates: Candidates,
    op: CollectiveOp,
    held: Held,
    size: int,
    messages: Ints | int = 1,
) -> Floats:
    """Seconds of collectives per stage over all ranks that hold the same parameters.

    size: bytes of one parameter. messages: into how many equal ones a stage's are cut.
    """
    seconds = np.zeros_like(held.dense)
    dense, experts = held.dense * size / messages, held.experts * size / messages
    for layout, rows in _meshes(candidates):
        ranks, stride = layout.dp * layout.cp, min(layout.stride("dp"), layout.stride("cp"))
        seconds[rows] = blocks.collective(op, ranks, stride, layout.tp, dense[rows])
        ranks, stride = max(ranks * layout.tp // layout.ep, 1), min(stride, layout.stride("tp"))
        apart = stride * layout.ep
        seconds[rows] += blocks.collective(op, ranks, apart, layout.ep, experts[rows])
    result: Floats = seconds * messages
    return result


def _reduction(blocks: Blocks, candidates: Candidates, held: Held) -> Floats:
    size, zero = gradient_bytes(blocks), candidates.zero[:, None]
    total = np.zeros_like(held.dense)
    if blocks.runtime.sequence_parallel:
        total += _exchange(blocks, candidates, "all_reduce", "tp", held.replicated * size)
    total += _tied(blocks, candidates, size)
    whole = _over_replicas(blocks, candidates, "all_reduce", held, size)
    shards = _over_replicas(blocks, candidates, "reduce_scatter", held, size)
    result: Floats = total + np.where(zero == 0, whole, np.where(zero == 1, shards, 0.0))
    return result


def _tied(blocks: Blocks, candidates: Candidates, size: int) -> Floats:
    total = np.zeros(candidates.counts.shape)
    if candidates.pp == 1 or not blocks.model.tied_embeddings:
        return total
    for layout, rows in _meshes(candidates):
        matrix = float(_tied_elements(blocks, np.array(layout.tp))) * size
        stride = -(-layout.stride("pp") * layout.pp // 2)  # two ends of what the stages span
        seconds = blocks.collective(
            "all_reduce", 2, stride, layout.dp * layout.tp * layout.cp, matrix
        )
        total[rows, 0] = total[rows, -1] = seconds
    return total


def _tied_elements(blocks: Blocks, tp: Ints) -> Ints:
    """Elements of the tied matrix on one rank."""
    width = blocks.model.head.width or blocks.model.hidden
    result: Ints = -(-blocks.model.vocab // tp) * width
    return result


def _optimizer(blocks: Blocks, candidates: Candidates, held: Held) -> Floats:
    zero, grad = candidates.zero[:, None], gradient_bytes(blocks)
    own = np.where(zero > 0, held.own, held.all)
    seconds = _elementwise(blocks, "adamw", own, ADAMW_BYTES)
    seconds += _elementwise(blocks, "gradient_norm", own, grad)
    seconds += _elementwise(blocks, "zero_gradient", np.where(zero > 1, own, held.all), grad)
    gather = _over_replicas(blocks, candidates, "all_gather", held, blocks.element_bytes)
    seconds += _norm_exchange(blocks, candidates)[:, None]
    result: Floats = seconds + np.where((zero == 1) | (zero == 2), gather, 0.0)
    return result


def _norm_exchange(blocks: Blocks, candidates: Candidates) -> Floats:
    """One number summed over all ranks ends the gradient norm, shape [N]."""
    seconds = np.zeros(len(candidates))
    for layout, rows in _meshes(candidates):
        seconds[rows] = blocks.collective("all_reduce", layout.devices, 1, 1, NORM_BYTES)
    return seconds


def _elementwise(blocks: Blocks, kind: str, elements: Floats, bytes_each: int) -> Floats:
    distinct, index = np.unique(elements, return_inverse=True)
    seconds = [
        blocks.seconds(optimizer_operator(kind, int(count), bytes_each), "forward")[0]
        for count in distinct
    ]
    return np.array(seconds)[index].reshape(elements.shape)


def optimizer_operator(kind: str, count: int, bytes_each: int) -> Operator:
    """An operator of the optimiser over `count` elements."""
    dims = (("parameters", count),)
    return Operator(name=kind, kind=kind, dims=dims, forward_bytes=count * bytes_each)
