"""Memory: an upper bound on the bytes one rank of each stage holds, by purpose.

P parameters on the rank, d = dp*cp ranks that hold the same (experts: dp*cp*tp/ep), k microbatches
in flight, n layers of which r recompute:

    weights      P * (w + q)                w bytes of a stored weight (/ d in ZeRO 3), q of its
                                            copies in fp4 (planner.spec.workload)
    gradients    P * g                      g = 4 where gradients accumulate in fp32, + 2 where
                                            the 16-bit gradients are kept beside them (/ d from
                                            ZeRO 2 on)
    optimizer    P * (8 + 4 [master]) / d   (/ d from ZeRO 1 on; 16 for fp64; parameter servers:
                                            P / d and the largest parameter instead of P)
    activations  k * (n - r) * saved + k * r * kept     kept: what recomputation leaves
                 + h * (n - r) * max(0, aside - saved)  of h microbatches between the halves of a
                 + h * r * max(0, aside - kept)         split backward: what I puts aside for W
                                            (planner.cost.deferred) in place of it
                 + [r > 0] saved            what of the layer being recomputed is made again
                 + [first] k * tokens + [last] k * head
    logits       2 * rows * vocab / tp      gradient and probabilities beside the saved ones, or
                                            all that a runtime needs per logit (logit_bytes)
    buffers      2 * widest activation gradient + largest weight gradient before it is added
                 + the step's tokens and targets, tables of positions
                 + transfers between stages + the padded shard of ZeRO 1 and up, or what a
                   server receives
                 + one layer's gradients (ZeRO 2 and 3) and two gathered layers (ZeRO 3)
    runtime      context + allocator slack * everything above

It is a promise: measured peaks must not exceed it (tests/test_promises.py).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.cost.pipeline import ends_in_flight, halfway, in_flight
from planner.cost.stages import Held, gradient_bytes, stage_parameters
from planner.graph.operator import Block
from planner.graph.parts.elements import FP32_BYTES
from planner.schedule import alive
from planner.schedule.orders import ONE_CHUNK, orders
from planner.spec.model import ModelSpec
from planner.spec.runtime import Recompute
from planner.spec.workload import WEIGHT_COPY_BYTES

KEPT: dict[Recompute, str | None] = {"selective": "selective_bytes", "full": "checkpoint_bytes"}
"""The field of a block that says what a recompute mode keeps."""
SAVED: dict[Recompute, str | None] = {"selective": "saved_bytes", "full": "saved_bytes"}
"""What it keeps otherwise."""
LEFT: dict[Recompute, str | None] = {
    "selective": "selective_left_bytes",
    "full": "checkpoint_left_bytes",
}
"""What a split backward leaves more than that between its halves."""
SAVED_LEFT: dict[Recompute, str | None] = {
    "selective": "saved_left_bytes",
    "full": "saved_left_bytes",
}
"""What it leaves more than that of a layer that does not recompute."""
INDEX_BYTES = 8
"""A token or a target."""


Columns = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class StageMemory:
    """Bytes per rank by stage, each [N, pp]; per_microbatch: what one forward adds.

    instant: the part of activations, logits and buffers that only a running backward needs.
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
    states, passing = _states(tables), _passing(tables)
    logits, buffers = passing.logits, passing.buffers + states.gathered + states.sharded
    activations = passing.kept + passing.again
    each, instant = passing.per_microbatch, passing.again + logits + buffers
    held = states.weights, states.gradients, states.optimizer
    tensors = held[0] + held[1] + held[2] + activations + logits + buffers
    slack = tables.blocks.runtime.allocator_slack * tensors + tables.blocks.runtime.context_bytes
    parts = *held, activations, logits, buffers, slack
    return StageMemory(*parts, per_microbatch=each, instant=instant)


def state_bytes(tables: BlockTables) -> Floats:
    """What a rank of every stage holds whatever its microbatches are, [N, S], without slack."""
    states = _states(tables)
    whole: Floats = states.weights + states.gradients + states.optimizer
    whole += states.gathered
    whole += states.sharded
    return whole


def least_passing_bytes(tables: BlockTables) -> Floats:
    """What it holds at least for its microbatches, however its states are kept, [N, S]: where no
    layer recomputes, as the tables say, or all do as strongly as the runtime can."""
    always, layers, ends, _ = passing_parts(tables)
    candidates, mode = tables.candidates, tables.blocks.runtime.recompute[-1]
    shape = candidates.schedule, candidates.pp, candidates.microbatches, candidates.vpp
    ranks = candidates.ranks_of_columns
    held, held_ends = in_flight(*shape)[:, ranks], ends_in_flight(*shape)[:, ranks]
    least: Floats = held * layers
    if (kept := KEPT.get(mode)) is not None:
        less = tables.over_layers("saved_bytes") - tables.over_layers(kept)
        again = np.where(_any_layer(tables.layers), made_again(tables, mode), 0.0)
        least = np.minimum(least, held * (layers - less) + again)
    return always + least + held_ends * ends


def peak_bytes(blocks: Blocks, tensors: Floats) -> Floats:
    """The peak where tensors need so many bytes."""
    runtime = blocks.runtime
    peak: Floats = tensors * (1 + runtime.allocator_slack) + runtime.context_bytes
    return peak


@dataclass(frozen=True, slots=True)
class _States:
    """Bytes of the states, [N, S]; gathered, sharded: the buffers that sharding them needs."""

    weights: Floats
    gradients: Floats
    optimizer: Floats
    gathered: Floats
    sharded: Floats


def _states(tables: BlockTables) -> _States:
    blocks, candidates = tables.blocks, tables.candidates
    size, zero = blocks.element_bytes, candidates.zero[:, None]
    states = stage_parameters(tables)
    parameters, own = states.all, states.own
    copies = WEIGHT_COPY_BYTES.get(blocks.workload.dtype, 0.0)
    weights = np.where(zero > 2, own, parameters) * (size + copies)
    accumulated = gradient_bytes(blocks)
    beside = size if blocks.runtime.keeps_low_precision_gradients and size < accumulated else 0
    gradients = np.where(zero > 1, own, parameters) * (accumulated + beside)
    moments = 2 * max(size, 4) + (4 if blocks.runtime.master_weights and size < 4 else 0)
    updated = np.where(zero > 0, own, parameters)
    if candidates.served.any():
        updated = np.where(candidates.served[:, None], _most_served(tables, states), updated)
    layer = _widest(tables, "parameters")
    gathered = np.where(zero > 1, layer * accumulated, 0.0)
    gathered += np.where(zero > 2, 2 * layer * size, 0.0)
    padded = updated * accumulated + size * candidates.shards[:, None]
    apart = (zero > 0) & (not blocks.runtime.scatters_in_place)
    sharded = np.where(apart | candidates.served[:, None], padded, 0.0)
    return _States(weights, gradients, updated * moments, gathered, sharded)


@dataclass(frozen=True, slots=True)
class _Passing:
    """Bytes of microbatches on their way, [N, S]. again: of a layer that is made again; buffers:
    gradients of activations and weights, transfers."""

    kept: Floats
    again: Floats
    logits: Floats
    buffers: Floats
    per_microbatch: Floats


def _passing(tables: BlockTables) -> _Passing:
    blocks, candidates = tables.blocks, tables.candidates
    shape = (candidates.schedule, candidates.pp, candidates.microbatches, candidates.vpp)
    ranks = candidates.ranks_of_columns
    held, ends = in_flight(*shape)[:, ranks], _ends(tables)
    layers, again = _per_microbatch(tables)
    kept = held * layers + ends_in_flight(*shape)[:, ranks] * ends
    kept = kept + halfway(*shape)[:, ranks] * left_bytes(tables)
    if candidates.chunks is not None:
        kept = _of_chunks(blocks, candidates.chunks)
    buffers = _gradients(tables)
    if candidates.pp > 1:
        buffers = buffers + 2 * held * _transfers(tables)
    return _Passing(kept, again, _logits(tables), buffers, layers + ends)


def passing_parts(tables: BlockTables) -> tuple[Floats, Floats, Floats, Floats]:
    """Of what is held for microbatches the part that is always there, that of each in flight, that
    of each whose embedding or head is held, and that of each between its I and W, [N, S]; chunks
    of a rank hold equal numbers of layers."""
    layers, again = _per_microbatch(tables)
    if tables.candidates.pp > 1:
        layers = layers + 2 * _transfers(tables)
    always = _gradients(tables) + _logits(tables) + again
    return always, layers, _ends(tables), left_bytes(tables)


def passing_line(tables: BlockTables) -> tuple[Floats, Floats]:
    """The same of gpipe and 1f1b without chunks, where ends are held as long as layers."""
    always, layers, ends, _ = passing_parts(tables)
    return always, layers + ends


def _gradients(tables: BlockTables) -> Floats:
    fresh = _widest(tables, "weight_gradient_bytes")
    buffers: Floats = 2 * _widest(tables, "widest_bytes") + fresh + _inputs(tables)[:, None]
    return buffers


def _inputs(tables: BlockTables) -> Floats:
    """The step's tokens and targets, and cosines and sines of all positions, [N]."""
    candidates, model = tables.candidates, tables.blocks.model
    seq = tables.blocks.workload.seq_len
    tokens = candidates.microbatches * candidates.micro_batch * seq / candidates.cp
    return batch_bytes(model, tokens) + rotary_bytes(model, seq, tables.blocks.element_bytes)


def batch_bytes(model: ModelSpec, tokens: Floats) -> Floats:
    """Tokens of every stack and targets."""
    return (len(model.stacks) + 1) * INDEX_BYTES * tokens


def rotary_bytes(model: ModelSpec, seq_len: int, element_bytes: int) -> int:
    """Tables of cosines and sines, where heads are rotated."""
    rotated = max(kind.attention.rotary_dim for stack in model.stacks for kind in stack.kinds)
    return 2 * seq_len * rotated * element_bytes


def _transfers(tables: BlockTables) -> Floats:
    return _widest(tables, "checkpoint_bytes", ends=False)


def kept_bytes(tables: BlockTables) -> Floats:
    """What one microbatch keeps in each column from its forward to its backward, [N, S]."""
    return _per_microbatch(tables)[0] + _ends(tables)


def left_bytes(tables: BlockTables) -> Floats:
    """What one microbatch keeps more between the halves of a split backward, [N, S]."""
    whole = tables.over_layers("saved_left_bytes") - tables.over_recomputed(SAVED_LEFT)
    return whole + tables.over_recomputed(LEFT)


def _of_chunks(blocks: Blocks, chunks: Candidates) -> Floats:
    """What the chunks of a plan keep when a rank keeps most, [1, pp]: they may be uneven."""
    name = ONE_CHUNK.get(chunks.schedule, chunks.schedule)
    made = orders(name, chunks.pp, int(chunks.microbatches[0]), chunks.vpp)
    tables = BlockTables(blocks, chunks)
    return alive.most(made, kept_bytes(tables)[0], left_bytes(tables)[0])[None]


def _per_microbatch(tables: BlockTables) -> tuple[Floats, Floats]:
    """What the layers of a stage keep of one microbatch, and while one of them runs again."""
    candidates = tables.candidates
    each = tables.over_layers("saved_bytes")
    if candidates.recompute == "none":
        return each, np.zeros_like(each)
    each = each - tables.over_recomputed(SAVED) + tables.over_recomputed(KEPT)
    again = np.where(
        _any_layer(candidates.recomputed), made_again(tables, candidates.recompute), 0.0
    )
    if candidates.selective is not None:
        less = np.where(_any_layer(candidates.selective), made_again(tables, "selective"), 0.0)
        again = np.maximum(again, less)
    return each, again


def _any_layer(chosen: Ints) -> Columns:
    """Which stages have a chosen layer, [N, S]."""
    found: Columns = np.any(chosen > 0, axis=2) if chosen.ndim == 3 else chosen > 0
    return found


def made_again(tables: BlockTables, mode: Recompute) -> Floats:
    """The largest that a layer makes again, [N, S or 1]: all it keeps, or its attention scores."""
    if mode == "full":
        return _widest(tables, "saved_bytes", ends=False)
    cores = [
        tables.column(kind, "saved_bytes") - tables.column(kind, "selective_bytes")
        for kind in tables.blocks.kinds
    ]
    again: Floats = np.max(cores, axis=0)[:, None]
    return again


def _ends(tables: BlockTables) -> Floats:
    """What the embedding and the head keep of one microbatch."""
    kept: Floats = tables.column("embedding", "saved_bytes")[:, None] * tables.first
    if tables.blocks.runtime.logit_bytes is None:
        kept = kept + tables.column("head", "saved_bytes")[:, None] * tables.last
    return kept


def _logits(tables: BlockTables) -> Floats:
    """On the last stage: what the runtime needs per logit, or the logits' gradient and a copy."""
    per_logit = tables.blocks.runtime.logit_bytes
    widest = tables.column("head", "widest_bytes")
    each = 2.0 if per_logit is None else per_logit / max(tables.blocks.element_bytes, FP32_BYTES)
    logits: Floats = (each * widest)[:, None] * tables.last
    return logits


def _widest(tables: BlockTables, field: str, ends: bool = True) -> Floats:
    """The largest of a field over the blocks of each stage (logits apart), [N, pp]."""
    layer = np.max([tables.column(kind, field) for kind in tables.blocks.kinds], axis=0)
    widest: Floats = np.repeat(layer[:, None], tables.candidates.counts.shape[1], axis=1)
    if not ends:
        return widest
    others: list[tuple[Block, Columns]] = [("embedding", tables.first)]
    others += [("head", tables.last)] if field == "weight_gradient_bytes" else []
    for block, columns in others:
        more = np.maximum(widest, tables.column(block, field)[:, None])
        widest = np.where(columns, more, widest)
    return widest


def _most_served(tables: BlockTables, states: Held) -> Floats:
    """An upper bound of what one server keeps: the largest parameter comes first, each goes to the
    least loaded server (Graham 1969), and those that tp does not divide may all go to one."""
    largest = tables.largest("weight_gradient_bytes") / tables.blocks.element_bytes
    share = states.all / tables.candidates.replicas[:, None] + largest + states.replicated
    result: Floats = np.minimum(share, states.all)
    return result
