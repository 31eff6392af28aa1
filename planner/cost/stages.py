"""Stage times: what each stage of each candidate computes and communicates.

For a stage with n_k layers of kind k of which r_k recompute, all in seconds of one microbatch,

    forward  = sum_k n_k * layer_k.forward + [first] embedding.forward + [last] head.forward
    backward = sum_k n_k * layer_k.backward + r_k * layer_k.again + [first] ... + [last] ...

and likewise for the tensor-parallel collectives inside them. Once per step a stage reduces
its gradients,

    reduce = all_reduce over tp of the replicated parameters (sequence parallelism)
           + all_reduce over {first, last} of tied embeddings (pp > 1)
           + ZeRO 0: all_reduce over dp*cp; ZeRO 1: reduce_scatter over dp*cp
             parameter servers: push to them (executor.states.served)

and updates its parameters (norm with one number summed over all ranks, AdamW on the own share,
zeroing; ZeRO 1 and 2 gather the new weights, and workers pull them from servers). ZeRO 2 scatters
gradients in every backward, ZeRO 3 also gathers the weights before every forward and backward. With
overlap (runtime.overlaps_dp) the reduction of a layer hides behind the last backward of those
before it, and slows it down:

    exposed = reduce - (1 - 1/layers) * min(reduce, last backward)      (planner.cost.overlap)
    reduce  = exposed + overlap_slowdown * (reduce - exposed)
"""

from dataclasses import dataclass

import numpy as np

from planner.cost import overlap
from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.cost.column import column
from planner.cost.groups import by_group
from planner.cost.host import FORWARD_SHARE
from planner.graph.operator import Operator
from planner.spec.profile import CollectiveOp
from planner.spec.runtime import Recompute

NORM_BYTES = 8
"""One fp64 number."""

ADAMW_BYTES = 28
"""fp32 AdamW reads gradient, weight and two moments and writes three of them: 7 * 4 bytes."""


AGAIN: dict[Recompute, str | None] = {"selective": "again_selective", "full": "again"}
"""The field of a block that a recompute mode adds to the backward's compute."""
AGAIN_TP: dict[Recompute, str | None] = {"selective": "again_selective_tp", "full": "again_tp"}
"""The same for its collectives."""


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Seconds, shape [N, pp] unless said.

    forward, backward: per microbatch, with the collectives of *_tp inside. backward_weight: the
    gradients of weights, a part of backward; recomputation and collectives are in the other. hop:
    [N], one transfer between stages. reduce: exposed gradient reduction, of reduction, the whole
    of it. optimizer: the update. parameters: on one rank of the stage.
    forward_sent, backward_sent, optimizer_sent: what of forward, backward and optimizer is spent
    with messages, hidden ones left out (where a runtime has no floors).
    """

    forward: Floats
    backward: Floats
    backward_weight: Floats
    forward_tp: Floats
    backward_tp: Floats
    hop: Floats
    reduce: Floats
    reduction: Floats
    optimizer: Floats
    parameters: Floats
    forward_sent: Floats
    backward_sent: Floats
    optimizer_sent: Floats

    @property
    def backward_input(self) -> Floats:
        """The backward without the gradients of the weights."""
        return self.backward - self.backward_weight


def gradient_bytes(blocks: Blocks) -> int:
    """Bytes of one gradient element where it is accumulated and reduced."""
    size = blocks.element_bytes
    return max(size, 4) if blocks.runtime.widens_gradients(blocks.stored) else size


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
    if tables.blocks.model.tied_embeddings:
        both = tables.first & tables.last
        dense -= _tied_elements(tables.blocks, candidates.tp)[:, None] * both
    experts = tables.over_stages("expert_parameters")
    dense -= experts
    shards, expert_shards = candidates.shards[:, None], candidates.expert_replicas[:, None]
    own = np.ceil(dense / shards) + np.ceil(experts / expert_shards)
    return Held(dense, experts, tables.over_stages("replicated_parameters"), own)


@dataclass(frozen=True, slots=True)
class Bare:
    """What a stage does by itself, [N, S], before any of it meets the rest.

    forward, backward: sums over its blocks. sent: where ZeRO sends in every microbatch, the seconds
    before a forward and behind a backward. reduction: of gradients, once a step.
    """

    forward: Floats
    backward: Floats
    sent: tuple[Floats, Floats] | None
    reduction: Floats


def stage_times(tables: BlockTables) -> StageTimes:
    """Times of every stage of every candidate."""
    blocks, candidates = tables.blocks, tables.candidates
    held = stage_parameters(tables)
    bare = bare_times(tables, held)
    forward, backward, shown = settled(blocks, candidates, bare)
    forward_tp = tables.over_stages("forward_tp")
    backward_tp = tables.over_stages("backward_tp") + tables.over_recomputed(AGAIN_TP)
    computed, sent = _update(tables, held)
    return StageTimes(
        forward=forward,
        backward=backward,
        backward_weight=tables.over_stages("backward_weight"),
        forward_tp=forward_tp,
        backward_tp=backward_tp,
        hop=hop_seconds(blocks, candidates),
        reduce=shown,
        reduction=bare.reduction,
        optimizer=computed + sent,
        parameters=held.all,
        forward_sent=forward_tp + forward - bare.forward,
        backward_sent=backward_tp + backward - bare.backward,
        optimizer_sent=sent,
    )


def bare_times(tables: BlockTables, held: Held) -> Bare:
    """Sums over what every stage holds."""
    forward, backward = computed_seconds(tables)
    return Bare(forward, backward, *sent_seconds(tables, held))


def computed_seconds(tables: BlockTables) -> tuple[Floats, Floats]:
    """Forward and backward of a microbatch, with what recomputes, [N, S]."""
    forward = tables.over_stages("forward") + tables.over_stages("forward_tp")
    backward_tp = tables.over_stages("backward_tp") + tables.over_recomputed(AGAIN_TP)
    backward = tables.over_stages("backward") + tables.over_recomputed(AGAIN) + backward_tp
    chunks = 1 if tables.candidates.chunk is None else tables.candidates.vpp
    backward += tables.blocks.runtime.microbatch_seconds / chunks
    return forward, backward


def sent_seconds(tables: BlockTables, held: Held) -> tuple[tuple[Floats, Floats] | None, Floats]:
    """What the states send: with every microbatch (see Bare), and once a step, [N, S]."""
    blocks, candidates = tables.blocks, tables.candidates
    each = _sharded(blocks, candidates, held)
    return each, _reduction(blocks, candidates, held, tables)


def settled(blocks: Blocks, candidates: Candidates, bare: Bare) -> tuple[Floats, Floats, Floats]:
    """Forward, backward and the exposed reduction where floors and overlap are counted, [N, S].

    Of candidates only the rows and the layers of every column are read.
    """
    runtime = blocks.runtime
    forward, backward = _floored(blocks, candidates, bare.forward, bare.backward)
    pieces, slowdown = np.maximum(candidates.counts, 1), runtime.overlap_slowdown
    if bare.sent is not None:
        ahead, behind = bare.sent
        if runtime.prefetches_parameters:
            ahead = _beside(ahead, forward, pieces, slowdown)
            behind = _beside(behind, backward, pieces, slowdown)
        forward, backward = forward + ahead, backward + behind
    shown = bare.reduction
    if runtime.overlaps_dp:
        shown = beside_backward(blocks, candidates.counts, shown, backward)
    return forward, backward, shown


def beside_backward(blocks: Blocks, layers: Ints, reduction: Floats, backward: Floats) -> Floats:
    """What a reduction adds beside the last backward of so many layers, [N, S]."""
    pieces = np.maximum(layers, 1)
    return _beside(reduction, backward, pieces, blocks.runtime.overlap_slowdown)


def _floored(
    blocks: Blocks, candidates: Candidates, forward: Floats, backward: Floats
) -> tuple[Floats, Floats]:
    """Stage times with the runtime's floor where stages span nodes: what launching a layer takes
    and, after that, so much for each rank of tp."""
    floor, host = blocks.runtime.stage_floor_seconds, blocks.runtime.layer_host_seconds
    if not floor or candidates.pp == 1:
        return forward, backward
    ranks = candidates.replicas * candidates.tp * candidates.pp
    spread = ranks > blocks.cluster.devices_per_node
    least = ((host + floor * candidates.tp) * spread)[:, None] * candidates.counts
    return (
        np.maximum(forward, least * FORWARD_SHARE),
        np.maximum(backward, least * (1 - FORWARD_SHARE)),
    )


def _sharded(blocks: Blocks, candidates: Candidates, held: Held) -> tuple[Floats, Floats] | None:
    """Gathering of weights and scattering of gradients per microbatch, ZeRO 2 and 3.

    Every layer is a message of its own. A runtime that prefetches hides them behind the compute
    of other layers, but for one layer (`settled`).
    """
    zero = candidates.zero[:, None]
    if not (zero > 1).any():
        return None
    layers = np.maximum(candidates.counts, 1)
    size, grad = blocks.element_bytes, gradient_bytes(blocks)
    gather = _over_shards(blocks, candidates, "all_gather", held, size, layers)
    scatter = _over_shards(blocks, candidates, "reduce_scatter", held, grad, layers)
    ahead = np.where(zero > 2, gather, 0.0)
    return ahead, np.where(zero > 1, scatter, 0.0) + ahead


def _beside(sent: Floats, computed: Floats, pieces: Ints, slowdown: float) -> Floats:
    """What communication beside compute adds: what it does not hide, and the slow-down."""
    left = overlap.exposed(sent, computed, pieces.astype(np.float64))
    result: Floats = left + slowdown * (sent - left)
    return result


def _by_group(
    blocks: Blocks,
    op: CollectiveOp,
    ranks: Ints,
    stride: Ints,
    groups: Ints,
    sizes: Floats,
) -> Floats:
    """Seconds of one collective per row (and stage) in a group of each row's own. How many groups
    run at once matters only where a profile has measured it."""
    alike = groups if blocks.profile else 1
    return by_group(blocks.collective, blocks.lines, op, ranks, stride, alike, sizes)


def hop_seconds(blocks: Blocks, candidates: Candidates) -> Floats:
    """Seconds to pass the activations of one microbatch to the next stage, shape [N].

    The slowest of the hops counts: a pipeline that leaves its node is as slow as that. What the
    ranks of tp sent in pieces they gather.
    """
    if candidates.pp == 1:
        return np.zeros(len(candidates))
    sizes = hop_bytes(blocks, candidates)
    ranks, groups = np.full(len(candidates), candidates.pp), candidates.replicas * candidates.tp
    sent = _by_group(blocks, "send_recv", ranks, candidates.stride("pp"), groups, sizes)
    if not blocks.runtime.splits_hops or blocks.runtime.sequence_parallel:
        return sent
    tp, beside = candidates.tp, candidates.replicas
    whole = sizes * tp
    return sent + _by_group(blocks, "all_gather", tp, candidates.stride("tp"), beside, whole)


def hop_bytes(blocks: Blocks, candidates: Candidates) -> Floats:
    """Bytes that one rank passes to the next stage per microbatch, [N]."""
    rows = candidates.micro_batch * (blocks.workload.seq_len // candidates.cp)
    if blocks.runtime.sequence_parallel or blocks.runtime.splits_hops:
        rows = rows // candidates.tp
    return rows.astype(np.float64) * blocks.model.hidden * blocks.element_bytes


def _replica_stride(candidates: Candidates) -> Ints:
    return np.minimum(candidates.stride("dp"), candidates.stride("cp"))


def _over_experts(
    blocks: Blocks, candidates: Candidates, op: CollectiveOp, sizes: Floats
) -> Floats:
    """Seconds of collectives of the experts' parameters over all ranks that hold the same."""
    if not sizes.any():
        return np.zeros_like(sizes)
    stride = np.minimum(_replica_stride(candidates), candidates.stride("tp"))
    members = candidates.ep * candidates.etp
    return _by_group(blocks, op, candidates.expert_replicas, stride * members, members, sizes)


def _over_shards(
    blocks: Blocks,
    candidates: Candidates,
    op: CollectiveOp,
    held: Held,
    size: int,
    messages: Ints | int = 1,
) -> Floats:
    """Seconds of collectives per stage over the ranks that ZeRO divides the states over.

    size: bytes of one parameter. messages: into how many equal ones a stage's are cut.
    """
    dense, experts = held.dense * size / messages, held.experts * size / messages
    stride = _replica_stride(candidates)
    seconds = _by_group(blocks, op, candidates.shards, stride, candidates.tp, dense)
    result: Floats = (seconds + _over_experts(blocks, candidates, op, experts)) * messages
    return result


def _over_copies(blocks: Blocks, candidates: Candidates, held: Held, size: int) -> Floats:
    """Seconds to sum the shards of gradients over the copies that hybrid sharding leaves."""
    shards = candidates.shards
    copies = candidates.replicas // shards
    if (copies == 1).all():
        return np.zeros_like(held.dense)
    sizes = held.dense * size / shards[:, None]
    stride = _replica_stride(candidates) * shards
    return _by_group(blocks, "all_reduce", copies, stride, candidates.tp * shards, sizes)


def _over_replicas(blocks: Blocks, candidates: Candidates, held: Held, size: int) -> Floats:
    """Seconds to sum gradients over all ranks that hold the same parameters (ZeRO 0)."""
    stride = _replica_stride(candidates)
    dense = _by_group(
        blocks, "all_reduce", candidates.replicas, stride, candidates.tp, held.dense * size
    )
    experts = _over_experts(blocks, candidates, "all_reduce", held.experts * size)
    result: Floats = dense + experts
    return result


def served_parameters(tables: BlockTables, held: Held) -> Floats:
    """Parameters of the busiest server of a stage, where each parameter has one server, [N, pp]."""
    largest = tables.largest("weight_gradient_bytes") / tables.blocks.element_bytes
    result: Floats = np.maximum(held.all / tables.candidates.replicas[:, None], largest)
    return result


def _through_servers(
    blocks: Blocks, candidates: Candidates, served: Floats, bytes_each: int
) -> Floats:
    """Seconds to push gradients to parameter servers, or to pull weights back.

    Every replica is a worker and the server of some parameters, the busiest of `served` ones. On
    its link it takes the gradients of d - 1 others one after the other, and sends as many
    weights: (d-1) messages each way. Together they are an all_to_all; where messages were measured,
    d-1 of those, since that is how the executor sends them.
    """
    replicas, stride, groups = candidates.replicas, _replica_stride(candidates), candidates.tp
    size, count = served * bytes_each, replicas[:, None]
    if blocks.profile is None:
        return _by_group(blocks, "all_to_all", replicas, stride, groups, size * count)
    result: Floats = _by_group(blocks, "send_recv", replicas, stride, groups, size) * (count - 1)
    return result


def _reduction(blocks: Blocks, candidates: Candidates, held: Held, tables: BlockTables) -> Floats:
    size, zero = gradient_bytes(blocks), candidates.zero[:, None]
    total = np.zeros_like(held.dense)
    if blocks.runtime.sequence_parallel:
        groups, sizes = candidates.replicas, held.replicated * size
        stride = candidates.stride("tp")
        total += _by_group(blocks, "all_reduce", candidates.tp, stride, groups, sizes)
    total += _tied(blocks, candidates, size, tables)
    kinds = set(np.unique(candidates.zero).tolist())
    if 0 in kinds:
        whole = _over_replicas(blocks, candidates, held, size)
        if candidates.served.any():
            pushed = _through_servers(blocks, candidates, served_parameters(tables, held), size)
            whole = np.where(candidates.served[:, None], pushed, whole)
        total += np.where(zero == 0, whole, 0.0)
    if kinds - {0}:
        copies = _over_copies(blocks, candidates, held, size)
        shards = _over_shards(blocks, candidates, "reduce_scatter", held, size) if 1 in kinds else 0
        total += np.where(zero == 1, shards, 0.0) + np.where(zero > 0, copies, 0.0)
    return total


def _tied(blocks: Blocks, candidates: Candidates, size: int, tables: BlockTables) -> Floats:
    ends, both = tables.first | tables.last, tables.first & tables.last
    if candidates.pp == 1 or not blocks.model.tied_embeddings or both.any():
        return np.zeros(candidates.counts.shape)
    matrix = _tied_elements(blocks, candidates.tp).astype(np.float64) * size
    stride = -(-candidates.stride("pp") * candidates.pp // 2)  # two ends of what stages span
    pair, groups = np.full(len(candidates), 2), candidates.replicas * candidates.tp
    seconds = _by_group(blocks, "all_reduce", pair, stride, groups, matrix)
    result: Floats = seconds[:, None] * ends
    return result


def _tied_elements(blocks: Blocks, tp: Ints) -> Ints:
    """Elements of the tied matrix on one rank."""
    width = blocks.model.head.width or blocks.model.hidden
    result: Ints = -(-blocks.model.vocab // tp) * width
    return result


def update_seconds(tables: BlockTables, held: Held) -> Floats:
    """Seconds of the optimizer on every stage, [N, S]."""
    computed, sent = _update(tables, held)
    result: Floats = computed + sent
    return result


def _update(tables: BlockTables, held: Held) -> tuple[Floats, Floats]:
    """What of the update is computed and what is sent, [N, S]."""
    blocks, candidates = tables.blocks, tables.candidates
    zero, grad = candidates.zero[:, None], gradient_bytes(blocks)
    own = np.where(zero > 0, held.own, held.all)
    served = candidates.served[:, None]
    if served.any():
        share = served_parameters(tables, held)
        own = np.where(served, share, own)
    seconds = _elementwise(blocks, "adamw", own, ADAMW_BYTES)
    seconds += _elementwise(blocks, "gradient_norm", own, grad)
    seconds += _elementwise(blocks, "zero_gradient", np.where(zero > 1, own, held.all), grad)
    sent = np.broadcast_to(_norm_exchange(blocks, candidates)[:, None], seconds.shape)
    gathers = (zero == 1) | (zero == 2)
    if gathers.any():
        gather = _over_shards(blocks, candidates, "all_gather", held, blocks.element_bytes)
        sent = sent + np.where(gathers, gather, 0.0)
    if served.any():
        pulled = _through_servers(blocks, candidates, share, blocks.element_bytes)
        sent = sent + np.where(served, pulled, 0.0)
    return seconds, sent


def _norm_exchange(blocks: Blocks, candidates: Candidates) -> Floats:
    """One number summed over all ranks ends the gradient norm, shape [N]."""
    ranks = candidates.replicas * candidates.tp * candidates.pp
    one = np.ones(len(candidates), dtype=np.int64)
    return _by_group(blocks, "all_reduce", ranks, one, one, np.full(len(ranks), float(NORM_BYTES)))


def _elementwise(blocks: Blocks, kind: str, elements: Floats, bytes_each: int) -> Floats:
    """Seconds of an operator of the optimizer over so many elements; one by one where a profile
    may know each count."""
    if blocks.profile is None:
        seconds = np.zeros(elements.shape)
        some = elements >= 1
        if some.any():
            operator = optimizer_operator(kind, column(elements[some].astype(np.int64)), bytes_each)
            seconds[some] = blocks.seconds(operator, "forward")[0]
        return seconds
    distinct, index = np.unique(elements, return_inverse=True)
    each = [
        blocks.seconds(optimizer_operator(kind, int(count), bytes_each), "forward")[0]
        for count in distinct
    ]
    return np.array(each)[index].reshape(elements.shape)


def optimizer_operator(kind: str, count: int, bytes_each: int) -> Operator:
    """An operator of the optimiser over `count` elements."""
    dims = (("parameters", count),)
    return Operator(name=kind, kind=kind, dims=dims, forward_bytes=count * bytes_each)
