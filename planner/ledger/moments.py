"""Moments: the most bytes that tensors take on one rank of a plan, moment by moment.

planner.cost.memory promises a bound, the sum of what may be needed at any time and the allocator's
slack. Here the actions of one rank are followed, as the executor of this project runs them:

    resident     weights, gradients, optimiser states (ZeRO divides those of experts over the ranks
                 that hold the same experts, fewer than dp; a parameter server has those of what it
                 serves), batch, tables of positions
    + alive      what every microbatch in flight keeps in every stage, and what the stage received
                 where that is not among it (a first norm in another format, norms behind blocks)
    + messages   F: one to the next stage per microbatch in flight (a send is let go once a later
                 message proves its arrival), a gradient to the stage before and what came from it;
                 B: what came from the next stage, and one that is not let go yet
    + passing    what the running action needs besides, the most of
                     F  head       the logits and their copy in the loss's format
                     B  head       one gradient of them (two of the loss's format where the
                                   vocabulary is whole: softmax and the loss have each their own);
                                   then, in their own format in place of what was kept of them,
                                   beside the matrix's; then the matrix's alone
                     F  layer      the widest activations, four of them where nothing is kept
                     B  layer      with the head's tensors gone: the layer made again, the largest
                                   weight gradient and the widest activation gradients, two of
                                   them where the MLP is gated
                     F, B  attention that stores its scores, in fp32 where nothing is fused: once
                           more than is kept (F), or the gradients of softmax and scores, and of a
                           learned bias, which adds up over the layers of a stack (B)
                     F, B  layer with experts: planner.ledger.expert_moments
                     B  embedding  with the layers' tensors gone: the table's gradient
                 ZeRO 2 and 3: the unit's gradients (B) and, with 3, its gathered weights besides;
                           of a matrix that both ends of one stage share also under its layers
                     I, W  a backward in two: I as B without gradients of matrices; what it puts
                           aside (planner.cost.deferred) takes the place of what was kept, layer by
                           layer, until W has made the largest of them, in the unit's gradients
    or, once per step, what a parameter server takes from one worker at a time

What later layers of the stage keep is not there yet in a layer's forward, and no more in its
backward. Left out: scratch space inside a kernel and what the backend copies.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import networkx as nx
import numpy as np

from planner.cost.blocks import BlockCost, Blocks
from planner.cost.deferred import Aside
from planner.cost.divisions import Division
from planner.cost.memory import batch_bytes, rotary_bytes
from planner.cost.stages import gradient_bytes
from planner.graph import transformer
from planner.graph.operator import Block, LayerKind
from planner.graph.parts.attention import CORE_KINDS, stores_scores
from planner.graph.parts.elements import FP32_BYTES
from planner.ledger import expert_moments
from planner.schedule.alive import ADDED
from planner.schedule.orders import ONE_CHUNK, SPLIT, Orders, orders
from planner.spec.layer import MLP, Experts
from planner.spec.plan import Plan
from planner.spec.runtime import Recompute

FIELDS = ("kept", "sent", "forward", "backward", "aside", "first_half", "second_half")
KEPT_WIDE, UNKEPT = 2, 4
"""Widest activations at once in a layer's forward, where the layer is kept and where it is not.
Fitted: read off recorded peaks (executor.alone.ledger) of Llama-3.1-8B and GPT-2 shapes on a CPU,
like the one and two of the backward; tests/ledger/test_rank.py holds other shapes to 3 %."""
KEPT: dict[Recompute, str] = {
    "none": "saved_bytes",
    "selective": "selective_bytes",
    "full": "checkpoint_bytes",
}
"""The field of a block that a recompute mode keeps."""


@dataclass(frozen=True, slots=True)
class StageBytes:
    """What one microbatch takes in one stage.

    kept: from its forward to its backward. sent: a message to the next stage. forward, backward:
    what passes while they run, beside what is kept. aside: from I to W; first_half, second_half:
    what passes while they run.
    """

    kept: float
    sent: float
    forward: float
    backward: float
    aside: float
    first_half: float
    second_half: float


@dataclass(frozen=True, slots=True)
class Copies:
    """Elements of flat buffers, and how many ranks one copy of them is divided over by ZeRO.

    served: how many of them a parameter server keeps the states of, where there are any.
    """

    elements: int
    shards: int
    served: int | None = None


def peak_bytes(blocks: Blocks, plan: Plan, rank: int, parameters: Iterable[Copies]) -> float:
    """The most that a rank holds. parameters: of all its stages, as they lie in memory."""
    made = _orders(plan)
    place = plan.layout.coordinates(rank)["pp"]
    sizes = [_stage(blocks, plan, stage) for stage in range(made.stages)]
    own = slice(made.starts[place], made.starts[place + 1])
    kind, stage = made.kind[own], made.stage[own]
    column = {name: np.array([getattr(s, name) for s in sizes])[stage] for name in FIELDS}
    held, aside = column["kept"], column["aside"]
    before = np.append(0.0, np.cumsum(np.choose(kind, (held, -held, aside - held, -aside))))[:-1]
    unsent = np.cumsum(ADDED[kind] * column["sent"])
    ahead = held + unsent + column["forward"]
    passing = ahead, column["backward"], column["first_half"], column["second_half"]
    most = before + np.choose(kind, passing)
    kept = tuple(parameters)
    pushed = max(each.served or 0 for each in kept) * gradient_bytes(blocks)
    return _resident(blocks, plan, kept) + max(float(most.max(initial=0.0)), pushed)


def _orders(plan: Plan) -> Orders:
    layout = plan.layout
    name = ONE_CHUNK.get(layout.schedule, layout.schedule) if layout.vpp > 1 else layout.schedule
    return orders(name, layout.pp, plan.microbatches, layout.vpp)


def _resident(blocks: Blocks, plan: Plan, parameters: Iterable[Copies]) -> float:
    layout, size, grad = plan.layout, blocks.element_bytes, gradient_bytes(blocks)
    moments = 2 * grad + (grad if grad != size else 0)
    held = 0.0
    for each in parameters:
        if each.served is not None:
            held += each.elements * (size + grad) + each.served * moments
            continue
        for stage, kept in ((3, size), (2, grad), (1, moments)):
            held += each.elements * kept / (each.shards if layout.zero >= stage else 1)
    seq_len = plan.workload.seq_len
    tokens = plan.microbatches * layout.micro_batch * seq_len / layout.cp
    tables = rotary_bytes(plan.model, seq_len, size)
    return held + float(batch_bytes(plan.model, np.asarray(tokens))) + tables


def _stage(blocks: Blocks, plan: Plan, stage: int) -> StageBytes:
    """Sizes of one stage of a plan."""
    own, layout, model = plan.stages[stage], plan.layout, plan.model
    division = Division.of(layout)
    kinds = [LayerKind(*model.order[own.first_layer + i]) for i in range(len(own.layers))]
    costs = [blocks.cost(kind, division) for kind in kinds]
    layers = [
        (kind, cost, choice.recompute)
        for kind, cost, choice in zip(kinds, costs, own.layers, strict=True)
    ]
    first, last = stage == 0, stage == len(plan.stages) - 1
    embedding, head = (blocks.cost(name, division) for name in ("embedding", "head"))
    kept = [getattr(cost, KEPT[mode]) for _, cost, mode in layers]
    in_layers = sum(kept)
    ends = (embedding.saved_bytes if first else 0.0) + (head.saved_bytes if last else 0.0)
    hop = hop_bytes(blocks, plan)
    ahead, behind = _unit(blocks, plan)
    passing = [_layer(blocks, plan, *each) for each in layers]
    # what later layers keep is not there yet, or no more
    later = [sum(kept[i + 1 :]) for i in range(len(kept))]
    table = _tied_elements(blocks, plan, head) if first and last else 0.0
    forward, backward = (
        [each[way] - less + held * table for each, less in zip(passing, later, strict=True)]
        for way, held in ((0, ahead), (1, behind))
    )
    logits_ahead, logits_back = _logits(blocks, head, layout.tp)
    if last:
        forward.append(logits_ahead + ahead * head.parameters)
        backward = [each - head.saved_bytes for each in backward]
        backward.append(logits_back + ahead * head.parameters)
        backward.append(_head_gradient(blocks, plan, head))
    if first:
        made = embedding.weight_gradient_bytes + behind * embedding.parameters
        backward.append(made + hop - in_layers)
    aside, first_half, second_half = 0.0, 0.0, 0.0
    if layout.schedule in SPLIT:
        halves = _Halves(blocks, plan, layers, embedding, head)
        aside, first_half, second_half = halves.sizes(first, last)
    received = 0.0 if first or _keeps_input(blocks, plan, layers) else hop
    return StageBytes(
        kept=in_layers + ends + received,
        sent=0.0 if last else hop,
        forward=max(forward, default=0.0) + (0.0 if first else 2 * hop),
        backward=max(backward, default=0.0) + (0.0 if last else 2 * hop),
        aside=aside,
        first_half=first_half + (0.0 if last else 2 * hop),
        second_half=second_half,
    )


Layers = list[tuple[LayerKind, BlockCost, Recompute]]
"""Of one stage, with what each recomputes."""


def _keeps_input(blocks: Blocks, plan: Plan, layers: Layers) -> bool:
    """Whether what a stage has received is among what its first layer keeps."""
    if not layers:
        return False
    kind, _, mode = layers[0]
    layout = plan.layout
    fused = blocks.view(layout.tp, layout.micro_batch, layout.cp).fused_norms
    widens = plan.model.norm == "rmsnorm" and not fused and blocks.element_bytes < FP32_BYTES
    placement = plan.model.stacks[kind.stack].kinds[kind.kind].placement
    return mode == "full" or (placement != "post" and not widens)


def _tied_elements(blocks: Blocks, plan: Plan, head: BlockCost) -> float:
    """Of a matrix that embedding and head of one stage share: a unit in use from the first of them
    to the other, under all layers."""
    tied = plan.model.tied_embeddings
    return head.weight_gradient_bytes / blocks.element_bytes if tied else 0.0


@dataclass(frozen=True, slots=True)
class _Halves:
    """The two halves of a stage's backward."""

    blocks: Blocks
    plan: Plan
    layers: Layers
    embedding: BlockCost
    head: BlockCost

    def sizes(self, first: bool, last: bool) -> tuple[float, float, float]:
        """What I puts aside in all, and what passes in I and in W. first, last: of all stages."""
        layout, size = self.plan.layout, self.blocks.element_bytes
        ahead, behind = _unit(self.blocks, self.plan)
        kept = [getattr(cost, KEPT[mode]) for _, cost, mode in self.layers]
        put = [Aside.of(self._graph(kind), size) for kind, _, _ in self.layers]
        rest = [cost.parameters - cost.expert_parameters for _, cost, _ in self.layers]
        most = []
        if last:
            kept.append(self.head.saved_bytes)
            put.append(Aside.of(self._graph("head"), size))
            rest.append(self.head.parameters)
            _, logits = _logits(self.blocks, self.head, layout.tp)
            most.append(logits + ahead * self.head.parameters)
        held = [each.held for each in put]
        for i, each in enumerate(self.layers):
            _, passing = _layer(self.blocks, self.plan, *each, whole=False)
            most.append(passing + sum(held[i + 1 :]) - sum(kept[i + 1 :]))
        if first:
            table = self.embedding.weight_gradient_bytes + behind * self.embedding.parameters
            most.append(table + hop_bytes(self.blocks, self.plan) + sum(held) - sum(kept))
        made = (
            one.largest + (behind - ahead) * elements
            for one, elements in zip(put, rest, strict=True)
        )
        return float(sum(held)), max(most, default=0.0), max(made, default=0.0)

    def _graph(self, block: Block) -> nx.DiGraph:
        layout = self.plan.layout
        shape = layout.tp, layout.micro_batch, layout.cp, layout.ep, layout.etp, layout.cp_style
        return self.blocks.graphs.graph(block, self.blocks.view(*shape))


def _layer(
    blocks: Blocks,
    plan: Plan,
    kind: LayerKind,
    cost: BlockCost,
    mode: Recompute,
    whole: bool = True,
) -> tuple[float, float]:
    """What passes in the forward and in the backward of one layer. whole: not only its I."""
    ahead, behind = _unit(blocks, plan)
    # a checkpoint is the input of the layer that is made again
    again = 0.0 if mode == "none" else cost.saved_bytes - getattr(cost, KEPT[mode])
    if blocks.has_experts(kind):
        layout = plan.layout
        shape = layout.tp, layout.micro_batch, layout.cp, layout.ep, layout.etp, layout.cp_style
        passing = expert_moments.sizes(blocks, kind, blocks.view(*shape), cost)
        alone = layout.dp * layout.cp * layout.tp == layout.ep * layout.etp
        own_ahead, own_behind = (0, 0) if alone else (ahead, behind)
        units = own_ahead * passing.parameters + ahead * passing.rest_parameters
        forward = units + (passing.unkept if mode == "full" else passing.ahead)
        second = units + passing.second if mode == "full" else 0.0
        gradients = own_behind - own_ahead, ahead, (behind - ahead) * whole
        return forward, again + max(second, passing.behind(own_ahead, *gradients))
    forward = (UNKEPT if mode == "full" else KEPT_WIDE) * cost.widest_bytes
    backward = (1 + _gated(blocks)) * cost.widest_bytes + cost.weight_gradient_bytes * whole
    scores, later, bias = _scores(blocks, plan, kind)
    forward, backward = max(forward, scores), max(backward, 2 * scores - later) + bias
    return forward + ahead * cost.parameters, again + backward + (
        behind if whole else ahead
    ) * cost.parameters


def _scores(blocks: Blocks, plan: Plan, kind: LayerKind) -> tuple[int, int, int]:
    """Bytes of the scores of a layer's attention to its own stream, of what the layer keeps behind
    it and of its learned bias, where scores are stored."""
    of, layout = blocks.model.stacks[kind.stack].kinds[kind.kind].attention, plan.layout
    view = blocks.view(layout.tp, layout.micro_batch, layout.cp)
    if not stores_scores(view, of):
        return 0, 0, 0
    size = view.element_bytes
    each = view.part(of.heads) * view.seq // view.cp * min(view.seq, of.window or view.seq)
    wide = size if view.fused_norms else max(size, FP32_BYTES)
    made = list(transformer.operators(transformer.layer_graph(blocks.model, view, "", *kind)))
    core = next(i for i, op in enumerate(made) if op.kind in CORE_KINDS)
    later = sum(op.saved_bytes for op in made[core + 1 :])
    return view.batch * each * wide, later, each * size * bool(of.relative_buckets)


def _gated(blocks: Blocks) -> bool:
    feeds = [kind.feed_forward for stack in blocks.model.stacks for kind in stack.kinds]
    return any(feed.gated for feed in feeds if isinstance(feed, MLP)) or any(
        isinstance(feed, Experts) for feed in feeds
    )


def _unit(blocks: Blocks, plan: Plan) -> tuple[int, int]:
    """Bytes that every parameter of a unit takes while its forward or backward runs."""
    zero = plan.layout.zero
    gathered = blocks.element_bytes if zero == 3 else 0
    return gathered, gathered + (gradient_bytes(blocks) if zero > 1 else 0)


def hop_bytes(blocks: Blocks, plan: Plan) -> int:
    """Bytes of the activations of one microbatch between two stages, on one rank."""
    tokens = plan.layout.micro_batch * plan.workload.seq_len // plan.layout.cp
    if plan.runtime.sequence_parallel:
        tokens //= plan.layout.tp
    return tokens * plan.model.hidden * blocks.element_bytes


def _logits(blocks: Blocks, head: BlockCost, tp: int) -> tuple[float, float]:
    """What the logits take in the forward and in the backward besides what the head keeps."""
    wide, size = max(blocks.element_bytes, FP32_BYTES), blocks.element_bytes
    logits = head.widest_bytes / wide
    copied = wide if size < wide else 0
    # tp writes the gradient over what is kept, and copies it into the format of the logits
    gradient = (size if size < wide else 0) if tp > 1 else 2 * wide
    return logits * (size + copied), logits * gradient


def _head_gradient(blocks: Blocks, plan: Plan, head: BlockCost) -> float:
    """What the gradient of the head's matrix takes besides what the head keeps: while it is made,
    and, the logits' own gone, while it is added to the unit's."""
    ahead, behind = _unit(blocks, plan)
    wide, size = max(blocks.element_bytes, FP32_BYTES), blocks.element_bytes
    logits = head.widest_bytes / wide
    made = ahead * head.parameters - logits * (wide - size)
    added = behind * head.parameters - logits * wide
    return head.weight_gradient_bytes + max(made, added)
