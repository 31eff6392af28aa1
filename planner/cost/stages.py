"""Stage times: what each stage of each candidate computes and communicates.

For a stage with n layers of which r recompute, all in seconds of one microbatch,

    forward  = n * layer.forward + [first] embedding.forward + [last] head.forward
    backward = n * layer.backward + r * layer.again + [first] ... + [last] ...

and likewise for the tensor-parallel collectives inside them. Once per step a stage reduces
its gradients,

    reduce = all_reduce over tp of the replicated parameters (sequence parallelism)
           + all_reduce over {first, last} of tied embeddings (pp > 1)
           + ZeRO 0: all_reduce over dp; ZeRO >= 1: reduce_scatter over dp

and updates its parameters (norm with one number summed over all ranks, AdamW on the own share,
zeroing; ZeRO >= 1 gathers the new weights). With overlap (runtime.overlaps_dp) the reduction
hides behind the last backward except for one layer's bucket:

    exposed = max(reduce / layers, reduce - last backward)
"""

from dataclasses import dataclass

import numpy as np

from planner.cost.blocks import BlockCost, Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.graph.operator import Operator
from planner.spec.layout import Layout
from planner.spec.profile import CollectiveOp
from planner.spec.runtime import Axis
from planner.spec.workload import DTYPE_BYTES

NORM_BYTES = 8
"""One fp64 number."""

ADAMW_BYTES = 28
"""fp32 AdamW reads gradient, weight and two moments and writes three of them: 7 * 4 bytes."""


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
    size = DTYPE_BYTES[blocks.workload.dtype]
    return max(size, 4) if blocks.runtime.gradient_dtype == "fp32" else size


def block_table(blocks: Blocks, candidates: Candidates, block: str) -> tuple[list[BlockCost], Ints]:
    """The distinct costs of a block over the candidates, and which one each row uses."""
    keys = np.stack([candidates.tp, candidates.micro_batch, candidates.dp], axis=1)
    distinct, index = np.unique(keys, axis=0, return_inverse=True)
    costs = []
    for tp, micro_batch, dp in distinct.tolist():
        layout = Layout(dp=dp, tp=tp, pp=candidates.pp, axis_order=candidates.axis_order)
        costs.append(blocks.cost(block, tp, micro_batch, layout.stride("tp"), dp))
    return costs, index.reshape(-1)


def block_column(table: tuple[list[BlockCost], Ints], name: str) -> Floats:
    """One field of a block's cost per candidate, shape [N]."""
    costs, index = table
    return np.array([float(getattr(cost, name)) for cost in costs])[index]


def stage_parameters(blocks: Blocks, candidates: Candidates) -> tuple[Floats, Floats]:
    """Parameters per rank of each stage, and those replicated over tp, shape [N, pp]."""
    tables = {
        name: block_table(blocks, candidates, name) for name in ("layer", "embedding", "head")
    }
    totals = []
    for field in ("parameters", "replicated_parameters"):
        per_layer = block_column(tables["layer"], field)[:, None]
        total = per_layer * candidates.counts
        total[:, 0] += block_column(tables["embedding"], field)
        total[:, -1] += block_column(tables["head"], field)
        if candidates.pp == 1 and blocks.model.tied_embeddings and field == "parameters":
            tied = -(-blocks.model.vocab // candidates.tp) * blocks.model.hidden
            total[:, 0] -= tied
        totals.append(total)
    return totals[0], totals[1]


def stage_times(blocks: Blocks, candidates: Candidates) -> StageTimes:
    """Times of every stage of every candidate."""
    forward_tp = _over_blocks(blocks, candidates, "forward_tp", None)
    backward_tp = _over_blocks(blocks, candidates, "backward_tp", "again_tp")
    forward = _over_blocks(blocks, candidates, "forward", None) + forward_tp
    backward = _over_blocks(blocks, candidates, "backward", "again") + backward_tp
    parameters, replicated = stage_parameters(blocks, candidates)
    reduction = _reduction(blocks, candidates, parameters, replicated)
    if blocks.runtime.overlaps_dp:
        buckets = np.maximum(candidates.counts, 1)
        reduction = np.maximum(reduction / buckets, reduction - backward)
    return StageTimes(
        forward=forward,
        backward=backward,
        forward_tp=forward_tp,
        backward_tp=backward_tp,
        hop=_hop(blocks, candidates),
        reduce=reduction,
        optimizer=_optimizer(blocks, candidates, parameters),
        parameters=parameters,
    )


def _over_blocks(blocks: Blocks, candidates: Candidates, field: str, again: str | None) -> Floats:
    layer = block_table(blocks, candidates, "layer")
    total = block_column(layer, field)[:, None] * candidates.counts
    if again is not None and candidates.recompute == "full":
        total = total + block_column(layer, again)[:, None] * candidates.recomputed
    total[:, 0] += block_column(block_table(blocks, candidates, "embedding"), field)
    total[:, -1] += block_column(block_table(blocks, candidates, "head"), field)
    return total


def _meshes(candidates: Candidates) -> list[tuple[Layout, Ints]]:
    """The distinct meshes among the candidates, each with the rows that use it."""
    pairs = np.stack([candidates.dp, candidates.tp], axis=1)
    distinct, index = np.unique(pairs, axis=0, return_inverse=True)
    rows = [np.flatnonzero(index.reshape(-1) == each) for each in range(len(distinct))]
    return [(candidates.layout(int(each[0])), each) for each in rows]


def _hop(blocks: Blocks, candidates: Candidates) -> Floats:
    """Seconds to pass the activations of one microbatch to the next stage, shape [N]."""
    seconds = np.zeros(len(candidates))
    if candidates.pp == 1:
        return seconds
    for layout, rows in _meshes(candidates):
        batches = candidates.micro_batch[rows]
        view = blocks.view(layout.tp, 1)
        per_sequence = view.outer_rows * blocks.model.hidden * view.element_bytes
        sizes = batches.astype(np.float64) * per_sequence
        stride, groups = layout.stride("pp"), layout.dp * layout.tp
        seconds[rows] = blocks.collective("send_recv", 2, stride, groups, sizes)
    return seconds


def _exchange(
    blocks: Blocks, candidates: Candidates, op: CollectiveOp, axis: Axis, sizes: Floats
) -> Floats:
    """Seconds of one collective per stage over an axis, shape [N, pp]."""
    seconds = np.zeros_like(sizes)
    for layout, rows in _meshes(candidates):
        ranks = getattr(layout, axis)
        groups = layout.dp * layout.tp // ranks
        seconds[rows] = blocks.collective(op, ranks, layout.stride(axis), groups, sizes[rows])
    return seconds


def _reduction(
    blocks: Blocks, candidates: Candidates, parameters: Floats, replicated: Floats
) -> Floats:
    size = gradient_bytes(blocks)
    total = np.zeros_like(parameters)
    if blocks.runtime.sequence_parallel:
        total += _exchange(blocks, candidates, "all_reduce", "tp", replicated * size)
    total += _tied(blocks, candidates, size)
    whole = _exchange(blocks, candidates, "all_reduce", "dp", parameters * size)
    shards = _exchange(blocks, candidates, "reduce_scatter", "dp", parameters * size)
    result: Floats = total + np.where(candidates.zero[:, None] > 0, shards, whole)
    return result


def _tied(blocks: Blocks, candidates: Candidates, size: int) -> Floats:
    total = np.zeros(candidates.counts.shape)
    if candidates.pp == 1 or not blocks.model.tied_embeddings:
        return total
    for layout, rows in _meshes(candidates):
        matrix = -(-blocks.model.vocab // layout.tp) * blocks.model.hidden * size
        stride = layout.stride("pp") * (layout.pp - 1)
        seconds = blocks.collective("all_reduce", 2, stride, layout.dp * layout.tp, matrix)
        total[rows, 0] = total[rows, -1] = seconds
    return total


def _optimizer(blocks: Blocks, candidates: Candidates, parameters: Floats) -> Floats:
    shards = np.where(candidates.zero[:, None] > 0, candidates.dp[:, None], 1)
    own = np.ceil(parameters / shards)
    grad = gradient_bytes(blocks)
    seconds = _elementwise(blocks, "adamw", own, ADAMW_BYTES)
    seconds += _elementwise(blocks, "gradient_norm", own, grad)
    seconds += _elementwise(blocks, "zero_gradient", parameters, grad)
    weights = parameters * DTYPE_BYTES[blocks.workload.dtype]
    gather = _exchange(blocks, candidates, "all_gather", "dp", weights)
    seconds += _norm_exchange(blocks, candidates)[:, None]
    result: Floats = seconds + np.where(candidates.zero[:, None] > 0, gather, 0.0)
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
