"""Memory: an upper bound on the bytes one rank of each stage holds, by purpose.

P parameters on the rank, d = dp*cp ranks that hold the same (experts: dp*cp*tp/ep), k microbatches
in flight, n layers of which r recompute:

    weights      P * w                      w bytes of a stored weight (/ d in ZeRO 3)
    gradients    P * g                      g = 4 where gradients accumulate in fp32, + 2 where
                                            the 16-bit gradients are kept beside them (/ d from
                                            ZeRO 2 on)
    optimizer    P * (8 + 4 [master]) / d   (/ d from ZeRO 1 on; 16 for fp64)
    activations  k * (n - r) * saved + k * r * kept     kept: what recomputation leaves
                 + [r > 0] saved            what of the layer being recomputed is made again
                 + [first] k * tokens + [last] k * head
    logits       2 * rows * vocab / tp      gradient and probabilities beside the saved ones, or
                                            all that a runtime needs per logit (logit_bytes)
    buffers      2 * widest activation gradient + largest weight gradient before it is added
                 + transfers between stages + the padded shard of ZeRO 1 and up
                 + one layer's gradients (ZeRO 2 and 3) and two gathered layers (ZeRO 3)
    runtime      context + allocator slack * everything above

It is a promise: measured peaks must not exceed it (tests/test_promises.py).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.collectives import Floats
from planner.cost.pipeline import ends_in_flight, in_flight
from planner.cost.stages import BlockTables, gradient_bytes, stage_parameters
from planner.graph.elements import FP32_BYTES
from planner.graph.operator import Block
from planner.schedule import alive
from planner.schedule.orders import ONE_CHUNK, orders
from planner.spec.runtime import Recompute

KEPT: dict[Recompute, str] = {"selective": "selective_bytes", "full": "checkpoint_bytes"}
"""The field of a block that says what a recompute mode keeps."""


@dataclass(frozen=True, slots=True)
class StageMemory:
    """Bytes per rank, each [N, columns] (see Candidates).

    per_microbatch: what one forward of all chunks adds. instant: the part of activations, logits
    and buffers that only a running backward needs.
    """

    weights: Floats
    gradients: Floats
    optimizer: Floats
    activations: Floats
    logits: Floats
    buffers: Floats
    runtime: Floats
    per_microbatch: Floats
    instant: Floats

    PURPOSES: ClassVar[tuple[str, ...]] = (
        "weights",
        "gradients",
        "optimizer",
        "activations",
        "logits",
        "buffers",
        "runtime",
    )

    @property
    def total(self) -> Floats:
        """Upper bound per stage, [N, pp]."""
        result: Floats = np.sum([getattr(self, name) for name in self.PURPOSES], axis=0)
        return result

    def of_stage(self, row: int, stage: int) -> dict[str, float]:
        """Bytes by purpose of one stage of one candidate."""
        return {name: float(getattr(self, name)[row, stage]) for name in self.PURPOSES}


def stage_memory(tables: BlockTables) -> StageMemory:
    """Upper bounds for every stage of every candidate."""
    blocks, candidates = tables.blocks, tables.candidates
    size, zero = blocks.element_bytes, candidates.zero[:, None]
    states = stage_parameters(tables)
    parameters, own = states.all, states.own
    weights = np.where(zero > 2, own, parameters) * size
    accumulated = gradient_bytes(blocks)
    beside = size if blocks.runtime.keeps_low_precision_gradients and size < accumulated else 0
    gradients = np.where(zero > 1, own, parameters) * (accumulated + beside)
    moments = 2 * max(size, 4) + (4 if blocks.runtime.master_weights and size < 4 else 0)
    optimizer = np.where(zero > 0, own, parameters) * moments
    shape = (candidates.schedule, candidates.pp, candidates.microbatches, candidates.vpp)
    held, ends, again = in_flight(*shape), _ends(tables), _made_again(tables)
    layers = _per_microbatch(tables)
    logits, buffers = _logits(tables), _buffers(tables, own, held)
    kept = held * layers + ends_in_flight(*shape) * ends
    if candidates.modes is not None and candidates.vpp > 1:
        kept = _of_chunks(blocks, candidates)
    activations, each, instant = kept + again, layers + ends, again + logits + buffers
    tensors = weights + gradients + optimizer + activations + logits + buffers
    slack = blocks.runtime.allocator_slack * tensors + blocks.runtime.context_bytes
    return StageMemory(
        weights, gradients, optimizer, activations, logits, buffers, slack, each, instant
    )


def kept_bytes(tables: BlockTables) -> Floats:
    """What one microbatch keeps in each column from its forward to its backward."""
    return _per_microbatch(tables) + _ends(tables)


def _of_chunks(blocks: Blocks, candidates: Candidates) -> Floats:
    """What the chunks of a plan keep when a rank keeps most, [1, pp]: they may be uneven."""
    each = kept_bytes(BlockTables(blocks, candidates.by_chunk()))[0]
    name = ONE_CHUNK.get(candidates.schedule, candidates.schedule)
    made = orders(name, candidates.pp, int(candidates.microbatches[0]), candidates.vpp)
    return alive.most(made, each)[None]


def _per_microbatch(tables: BlockTables) -> Floats:
    """What the layers of a column keep of one microbatch."""
    each = tables.over_layers("saved_bytes")
    each -= tables.over_recomputed(lambda mode: "saved_bytes" if mode in KEPT else None)
    each += tables.over_recomputed(KEPT.get)
    return each


def _made_again(tables: BlockTables) -> Floats:
    """The largest that a layer of a column makes again, [N, columns]."""
    again = np.zeros(tables.candidates.counts.shape)
    for mode, layers in tables.recomputed.items():
        if mode in KEPT:
            most = np.where(layers.sum(axis=2) > 0, _most_made_again(tables, mode), 0.0)
            again = np.maximum(again, most)
    return again


def _most_made_again(tables: BlockTables, mode: Recompute) -> Floats:
    """All that a layer keeps, or its attention scores."""
    if mode == "full":
        return _widest(tables, "saved_bytes", ends=False)
    cores = [
        tables.column(kind, "saved_bytes") - tables.column(kind, "selective_bytes")
        for kind in tables.blocks.kinds
    ]
    most: Floats = np.max(cores, axis=0)[:, None]
    return most


def _ends(tables: BlockTables) -> Floats:
    """What the embedding and the head keep of one microbatch."""
    kept = np.zeros(tables.candidates.counts.shape)
    kept[:, 0] += tables.column("embedding", "saved_bytes")
    if tables.blocks.runtime.logit_bytes is None:
        kept[:, tables.candidates.last] += tables.column("head", "saved_bytes")
    return kept


def _logits(tables: BlockTables) -> Floats:
    """On the last stage: what the runtime needs per logit, or the logits' gradient and a copy."""
    candidates, per_logit = tables.candidates, tables.blocks.runtime.logit_bytes
    logits = np.zeros(candidates.counts.shape)
    widest = tables.column("head", "widest_bytes")
    if per_logit is None:
        logits[:, candidates.last] = 2 * widest
    else:
        logits[:, candidates.last] = (
            per_logit * widest / max(tables.blocks.element_bytes, FP32_BYTES)
        )
    return logits


def _widest(tables: BlockTables, field: str, ends: bool = True) -> Floats:
    """The largest of a field over the blocks of each stage (logits apart), [N, pp]."""
    layer = np.max([tables.column(kind, field) for kind in tables.blocks.kinds], axis=0)
    widest: Floats = np.repeat(layer[:, None], tables.candidates.counts.shape[1], axis=1)
    if not ends:
        return widest
    others: list[tuple[Block, int]] = [("embedding", 0)]
    others += [("head", tables.candidates.last)] if field == "weight_gradient_bytes" else []
    for block, stage in others:
        widest[:, stage] = np.maximum(widest[:, stage], tables.column(block, field))
    return widest


def _buffers(tables: BlockTables, own: Floats, held: Floats) -> Floats:
    blocks, candidates = tables.blocks, tables.candidates
    widest = _widest(tables, "widest_bytes")
    kept = _widest(tables, "checkpoint_bytes", ends=False)
    fresh = _widest(tables, "weight_gradient_bytes")
    hop = kept if candidates.pp > 1 else 0.0
    replicas, zero = (candidates.dp * candidates.cp)[:, None], candidates.zero[:, None]
    padding = blocks.element_bytes * replicas
    sharded = own * gradient_bytes(blocks) + padding
    layer = _widest(tables, "parameters")
    layers = np.where(zero > 1, layer * gradient_bytes(blocks), 0.0)
    layers += np.where(zero > 2, 2 * layer * blocks.element_bytes, 0.0)
    result: Floats = 2 * widest + fresh + 2 * held * hop + layers
    apart = (zero > 0) & (not blocks.runtime.scatters_in_place)
    return result + np.where(apart, sharded, 0.0)
