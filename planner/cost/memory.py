"""Memory: an upper bound on the bytes one rank of each stage holds, by purpose.

P parameters on the rank, d = dp, k microbatches in flight, n layers of which r recompute:

    weights      P * w                      w bytes of the workload's dtype
    gradients    P * g                      g = 4 where gradients accumulate in fp32, + 2 where
                                            the 16-bit gradients are kept beside them
    optimizer    P * (8 + 4 [master]) / d   (/ d from ZeRO 1 on; 16 for fp64)
    activations  k * (n - r) * saved + k * r * checkpoint
                 + [r > 0] saved            the layer being recomputed
                 + [first] k * tokens + [last] k_last * head
    logits       2 * rows * vocab / tp      gradient and probabilities beside the saved ones
    buffers      2 * widest activation gradient + largest weight gradient before it is added
                 + transfers between stages + the padded shard of ZeRO 1
    runtime      context + allocator slack * everything above

It is a promise: measured peaks must not exceed it (tests/test_promises.py).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.cost.pipeline import in_flight
from planner.cost.stages import block_column, block_table, gradient_bytes, stage_parameters
from planner.spec.workload import DTYPE_BYTES


@dataclass(frozen=True, slots=True)
class StageMemory:
    """Bytes per rank by stage, each [N, pp]; per_microbatch: what one forward adds."""

    weights: Floats
    gradients: Floats
    optimizer: Floats
    activations: Floats
    logits: Floats
    buffers: Floats
    runtime: Floats
    per_microbatch: Floats

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


def stage_memory(blocks: Blocks, candidates: Candidates) -> StageMemory:
    """Upper bounds for every stage of every candidate."""
    size = DTYPE_BYTES[blocks.workload.dtype]
    parameters, _ = stage_parameters(blocks, candidates)
    shards = np.where(candidates.zero > 0, candidates.dp, 1)[:, None]
    weights = parameters * size
    accumulated = gradient_bytes(blocks)
    beside = size if blocks.runtime.keeps_low_precision_gradients and size < accumulated else 0
    gradients = parameters * (accumulated + beside)
    moments = 2 * max(size, 4) + (4 if blocks.runtime.master_weights and size < 4 else 0)
    optimizer = np.ceil(parameters / shards) * moments
    held = in_flight(candidates.schedule, candidates.pp, candidates.microbatches)
    each, again = _per_microbatch(blocks, candidates)
    logits, buffers = _logits(blocks, candidates), _buffers(blocks, candidates, parameters, held)
    activations = held * each + again
    tensors = weights + gradients + optimizer + activations + logits + buffers
    slack = blocks.runtime.allocator_slack * tensors + blocks.runtime.context_bytes
    return StageMemory(weights, gradients, optimizer, activations, logits, buffers, slack, each)


def _per_microbatch(blocks: Blocks, candidates: Candidates) -> tuple[Floats, Floats]:
    layer = block_table(blocks, candidates, "layer")
    saved = block_column(layer, "saved_bytes")[:, None]
    recomputed = candidates.recomputed if candidates.recompute == "full" else 0
    kept = candidates.counts - recomputed
    checkpoint = block_column(layer, "checkpoint_bytes")[:, None]
    each = saved * kept + checkpoint * recomputed
    each[:, 0] += block_column(block_table(blocks, candidates, "embedding"), "saved_bytes")
    each[:, -1] += block_column(block_table(blocks, candidates, "head"), "saved_bytes")
    return each, np.where(np.asarray(recomputed) > 0, saved, 0.0) * np.ones_like(each)


def _logits(blocks: Blocks, candidates: Candidates) -> Floats:
    """The logits' gradient and one more copy while the loss runs, on the last stage."""
    logits = np.zeros(candidates.counts.shape)
    head = block_table(blocks, candidates, "head")
    logits[:, -1] = 2 * block_column(head, "widest_bytes")
    return logits


def _widest(blocks: Blocks, candidates: Candidates, field: str) -> Floats:
    """The largest of a field over the blocks of each stage (logits apart), [N, pp]."""
    layer = block_column(block_table(blocks, candidates, "layer"), field)
    widest = np.repeat(layer[:, None], candidates.pp, axis=1)
    ends = [("embedding", 0)] + ([("head", -1)] if field == "weight_gradient_bytes" else [])
    for block, stage in ends:
        own = block_column(block_table(blocks, candidates, block), field)
        widest[:, stage] = np.maximum(widest[:, stage], own)
    return widest


def _buffers(blocks: Blocks, candidates: Candidates, parameters: Floats, held: Ints) -> Floats:
    layer = block_table(blocks, candidates, "layer")
    widest = _widest(blocks, candidates, "widest_bytes")
    fresh = _widest(blocks, candidates, "weight_gradient_bytes")
    hop = block_column(layer, "checkpoint_bytes")[:, None] if candidates.pp > 1 else 0.0
    padding = DTYPE_BYTES[blocks.workload.dtype] * candidates.dp[:, None]
    sharded = parameters / candidates.dp[:, None] * gradient_bytes(blocks) + padding
    result: Floats = 2 * widest + fresh + 2 * held * hop
    return result + np.where(candidates.zero[:, None] > 0, sharded, 0.0)
