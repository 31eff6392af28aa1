"""Messages: every message of one rank of a plan in one step, as the executor of this project sends
them, each with its predicted seconds.

m microbatches pass a rank's stages; a stage of layers L sends per microbatch

    forward    the forward collectives of its blocks (planner.graph)
    backward   their backward collectives, and the forward ones that recomputation runs again
    pipeline   activations and gradients, [micro_batch, seq / (cp * tp), hidden], to stages that lie
               on other ranks, and from them

and once per step, for all stages of the rank together (planner.graph.data_parallel),

    gradients  replicated parameters over tp, the tied matrix over {first, last}, then over the
               replicas: all_reduce (ZeRO 0) or reduce_scatter (ZeRO 1)
    optimizer  the norm, one fp64 number over all ranks; ZeRO 1: all_gather of the new weights

The gradients of experts are summed over the ranks that hold the same of them (group edp); how many
copies of tokens go where is that of balanced routing, and the counts that go ahead are left out.

ZeRO 2 and 3 send unit by unit and in every microbatch: planner.ledger.unit_messages. With hybrid
sharding ZeRO 1 scatters and gathers within a shard group and sums its part over the copies.
Parameter servers take gradients and send weights one by one: planner.ledger.server_messages.

What a rank of tp holds of a vocabulary is exact here (the last ones may hold fewer rows), where the
cost of a plan takes the largest share for all.
"""

import functools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import networkx as nx

from planner.cost.blocks import Blocks
from planner.cost.divisions import Division
from planner.cost.stages import NORM_BYTES, gradient_bytes
from planner.graph import recompute, transformer
from planner.graph.data_parallel import (
    COPIES,
    DataParallel,
    data_parallel,
    expert_data_parallel,
    flat_elements,
    parameters,
    replicated_gradients,
)
from planner.graph.operator import Collective, LayerKind, Node, Operator
from planner.ledger import moments, server_messages, unit_messages
from planner.schedule.orders import rank_of_stage
from planner.spec.ledger import Group, Ledger, Line, Message, Part
from planner.spec.plan import Plan
from planner.spec.profile import CollectiveOp

LINE_BYTES = 64
"""The executor's flat buffers start every parameter on such a boundary (executor.states.flat)."""


def predicted_ledger(blocks: Blocks, plan: Plan, rank: int) -> Ledger:
    """Messages and peak of one rank of a plan.

    Raises InputError for a rank it has not.
    """
    plan.check_rank(rank)
    lines: Counter[Line] = Counter()
    own = _Rank(blocks, plan, rank)
    for line, count in own.lines():
        lines[line] += count
    return Ledger(
        kind="predicted",
        title=f"{plan.model.name}: {plan.title}",
        rank=rank,
        messages=tuple(_message(blocks, plan, line, count) for line, count in lines.items()),
        peak_bytes=moments.peak_bytes(blocks, plan, rank, own.parameters()),
    )


class _Rank:
    """What one rank of a plan holds and sends. undivided: as if tp were 1."""

    def __init__(self, blocks: Blocks, plan: Plan, rank: int, undivided: bool = False):
        self.blocks, self.plan, self.layout = blocks, plan, plan.layout
        self.place = plan.layout.coordinates(rank) | ({"tp": 0} if undivided else {})
        layout, tp = plan.layout, 1 if undivided else plan.layout.tp
        self.view = blocks.view(
            tp, layout.micro_batch, layout.cp, layout.ep, layout.etp, layout.cp_style
        )
        self.rank = rank
        self.ranks = rank_of_stage(layout.schedule, layout.pp, layout.vpp)
        self.stages = [s for s, owner in enumerate(self.ranks) if owner == self.place["pp"]]
        self.first, self.last = 0 in self.stages, len(self.ranks) - 1 in self.stages

    def lines(self) -> Iterator[tuple[Line, int]]:
        """Lines with their counts; equal ones may come again."""
        for stage in self.stages:
            for graph, again in self._blocks(stage):
                yield from self._inside(graph, again)
            yield from self._between(stage)
        yield from self._once()

    @functools.cached_property
    def everything(self) -> nx.DiGraph:
        """All operators and collectives of the rank, without edges."""
        graph = nx.DiGraph()
        for stage in self.stages:
            for block, _ in self._blocks(stage):
                graph.add_nodes_from(block)
        return graph

    def parameters(self) -> Iterator[moments.Copies]:
        """The rank's flat buffers: of experts, which other ranks share, and of the rest."""
        if self.serves:
            yield moments.Copies(sum(self.served), 1, self.served[self.replica])
            return
        for experts, how in ((False, self.how), (True, self.how.of_experts(self.view))):
            graph = nx.DiGraph()
            found = transformer.operators(self.everything)
            graph.add_nodes_from(op for op in found if op.expert == experts)
            yield moments.Copies(flat_elements(graph, how), how.shards)

    @property
    def serves(self) -> bool:
        """Whether parameter servers keep the states."""
        return self.layout.sync == "parameter_server" and self.how.ranks > 1

    @property
    def replica(self) -> int:
        """This rank's index among those that hold the same parameters, in their order."""
        layout = self.layout
        alike = (
            other for each in layout.group(self.rank, "dp") for other in layout.group(each, "cp")
        )
        return sorted(alike).index(self.rank)

    @functools.cached_property
    def served(self) -> list[int]:
        """Elements of every server on this rank."""
        undivided = _Rank(self.blocks, self.plan, self.rank, undivided=True)
        both = (map(parameters, transformer.operators(r.everything)) for r in (undivided, self))
        found = (
            server_messages.Parameter(math.prod(whole), math.prod(own), same)
            for of_all, of_one in zip(*both, strict=True)
            for (whole, _), (own, same) in zip(of_all, of_one, strict=True)
        )
        return server_messages.shares(found, self.how)

    def _blocks(self, stage: int) -> Iterator[tuple[nx.DiGraph, Sequence[Node]]]:
        """Every block of a stage, and what of it runs a second time."""
        model, own = self.plan.model, self.plan.stages[stage]
        stops = self.plan.runtime.recompute_stops_early
        if stage == 0:
            for stack, each in enumerate(model.stacks):
                table = transformer.embedding_graph(model, self.view, stack)
                yield self._with_own_vocabulary(table, each.embedding.vocab or 0), ()
        if stage == 0 and model.encoder is not None:
            yield transformer.encoder_end_graph(model, self.view), ()
        for place, choice in enumerate(own.layers, start=own.first_layer):
            kind = LayerKind(*model.order[place])
            graph = transformer.layer_graph(model, self.view, f"layer{place}.", *kind)
            yield graph, recompute.run_again(graph, choice.recompute, stops)
        if stage == len(self.ranks) - 1:
            head = transformer.head_graph(model, self.view, holds_embedding=self.first)
            vocabulary = model.head.kind == "language_model"
            yield self._with_own_vocabulary(head, model.vocab if vocabulary else 0), ()

    def _with_own_vocabulary(self, graph: nx.DiGraph, whole: int) -> nx.DiGraph:
        """A block whose tables have the rows of this rank of tp, of `whole` of all of them."""
        each = self.view.part(whole)
        rows = min(max(whole - self.place["tp"] * each, 0), each)

        def own(node: Node) -> Node:
            if isinstance(node, Collective):
                return node
            cut = {split.dim for split in node.splits if split.meaning == "vocabulary"}
            dims = tuple((name, rows if name in cut else size) for name, size in node.dims)
            held = node.parameters // each * rows if cut else node.parameters
            return replace(node, dims=dims, parameters=held)

        return nx.relabel_nodes(graph, {node: own(node) for node in graph})

    def _inside(self, graph: nx.DiGraph, again: Sequence[Node]) -> Iterator[tuple[Line, int]]:
        """Collectives of a block in all microbatches."""
        repeated = [replace(node, phase="backward") for node in _collectives(again)]
        for node in [*transformer.collectives(graph), *repeated]:
            ranks = getattr(self.layout, node.axis)
            part: Part = "forward" if node.phase == "forward" else "backward"
            yield (part, node.op, node.axis, ranks, node.message_bytes), self._often(node)

    def _often(self, node: Collective) -> int:
        return node.count * self.plan.microbatches

    def _between(self, stage: int) -> Iterator[tuple[Line, int]]:
        """What a stage sends to its neighbours on other ranks, and takes from them."""
        layout, m = self.layout, self.plan.microbatches
        size = moments.hop_bytes(self.blocks, self.plan)
        for other in (stage - 1, stage + 1):
            if 0 <= other < len(self.ranks) and self.ranks[other] != self.place["pp"]:
                yield ("pipeline", "send", "pp", layout.pp, size), m
                yield ("pipeline", "recv", "pp", layout.pp, size), m

    @property
    def how(self) -> DataParallel:
        """How parameters are kept."""
        layout, blocks = self.layout, self.blocks
        return DataParallel(
            ranks=layout.dp * layout.cp,
            zero=layout.zero,
            weight_bytes=blocks.element_bytes,
            gradient_bytes=gradient_bytes(blocks),
            shard=layout.shard,
            line_bytes=LINE_BYTES,
        )

    def _once(self) -> Iterator[tuple[Line, int]]:
        """The reduction of gradients and the update."""
        layout, how = self.layout, self.how
        if layout.devices > 1:
            yield ("optimizer", "all_reduce", "everyone", layout.devices, NORM_BYTES), 1
        if how.zero > 1 and how.shards > 1:
            yield from self._of_units(how)
            return
        for node in replicated_gradients(self.everything, self.view, how, ""):
            yield ("gradients", node.op, "tp", layout.tp, node.message_bytes), 1
        yield from self._tied(how)
        if self.serves:
            yield from server_messages.per_step(self.served, self.replica, how)
            return
        for node in data_parallel(self.everything, how, ""):
            part: Part = "optimizer" if node.op == "all_gather" else "gradients"
            copies = node.name == COPIES
            group: Group = "replicas" if copies else "dp"
            ranks = how.ranks // how.shards if copies else how.shards
            yield (part, node.op, group, ranks, node.message_bytes), 1
        yield from self._of_experts(how.of_experts(self.view))

    def _of_experts(self, how: DataParallel) -> Iterator[tuple[Line, int]]:
        """The gradients and the new weights of experts, on the ranks that hold the same."""
        for node in expert_data_parallel(self.everything, how, ""):
            part: Part = "optimizer" if node.op == "all_gather" else "gradients"
            yield (part, node.op, "edp", how.ranks, node.message_bytes), 1

    def _of_units(self, how: DataParallel) -> Iterator[tuple[Line, int]]:
        """What ZeRO 2 and 3 send."""
        index = self.place["dp"] * self.layout.cp + self.place["cp"]
        placed = []
        for unit in self._units():
            shared = how.of_experts(self.view) if unit.experts else how
            placed.append(unit_messages.place(unit, shared, self.view, index % shared.shards))
        for line, count in unit_messages.per_microbatch(placed):
            yield line, count * self.plan.microbatches
        two_ends = self.first != self.last
        yield from unit_messages.per_step(placed, self.layout.tp, two_ends)

    def _units(self) -> Iterator[unit_messages.Unit]:
        last, tied = len(self.ranks) - 1, self.plan.model.tied_embeddings
        table: list[Operator] = []
        for stage in self.stages:
            for place, (graph, _) in enumerate(self._blocks(stage)):
                embedding = stage == 0 and place == 0
                head = stage == last and place == len(self.plan.stages[stage].layers) + (stage == 0)
                found = [op for op in transformer.operators(graph) if op.parameters]
                if tied and (embedding or head):
                    shared, found = _table(found)
                    table += shared
                for experts in (False, True):
                    if own := tuple(op for op in found if op.expert == experts):
                        largest = tuple(map(self._largest, own))
                        yield unit_messages.Unit(own, largest, experts=experts)
        if table:
            uses = len({0, last} & set(self.stages))
            yield unit_messages.Unit(tuple(table), tuple(table), tied=True, uses=uses)

    def _largest(self, operator: Operator) -> Operator:
        """An operator with the rows of a vocabulary that the first ranks of tp have."""
        cut = {split.dim for split in operator.splits if split.meaning == "vocabulary"}
        each = self.view.part(self.plan.model.vocab)
        rows = next((size for name, size in operator.dims if name in cut), 0)
        if not rows:
            return operator
        dims = tuple((name, each if name in cut else size) for name, size in operator.dims)
        return replace(operator, dims=dims, parameters=operator.parameters // rows * each)

    def _tied(self, how: DataParallel) -> Iterator[tuple[Line, int]]:
        model = self.plan.model
        if not model.tied_embeddings or self.first == self.last:
            return
        block = transformer.embedding_graph(model, self.view, stack=len(model.stacks) - 1)
        graph = self._with_own_vocabulary(block, model.vocab)
        tables = [op for op in transformer.operators(graph) if op.kind == "embedding"]
        elements = sum(op.parameters for op in tables)
        line = max(1, how.line_bytes // how.weight_bytes)
        size = -(-elements // line) * line * how.gradient_bytes
        yield ("gradients", "all_reduce", "tied", 2, size), 1


def _table(found: Sequence[Operator]) -> tuple[list[Operator], list[Operator]]:
    """The matrix of a vocabulary, and all else; an operator that has a bias too is both."""
    table, rest = [], []
    for op in found:
        dims = dict(op.dims)
        matrix = {"embedding": op.parameters, "linear": dims.get("n", 0) * dims.get("k", 0)}
        size = matrix.get(op.kind, 0)
        if size > op.parameters or all(split.meaning != "vocabulary" for split in op.splits):
            size = 0
        table += [replace(op, parameters=size)] * (size > 0)
        rest += [replace(op, parameters=op.parameters - size)] * (op.parameters > size)
    return table, rest


def _collectives(nodes: Sequence[Node]) -> list[Collective]:
    return [node for node in nodes if isinstance(node, Collective) and node.phase == "forward"]


def _message(blocks: Blocks, plan: Plan, line: Line, count: int) -> Message:
    part, op, group, ranks, size = line
    return Message(
        part=part,
        op=op,
        group=group,
        ranks=ranks,
        message_bytes=size,
        count=count,
        seconds=_seconds(blocks, plan, line),
    )


def _seconds(blocks: Blocks, plan: Plan, line: Line) -> float:
    """Predicted seconds of one message; a send waits for nobody."""
    _, op, group, ranks, size = line
    layout = plan.layout
    if op == "send":
        return 0.0
    kind: CollectiveOp = "send_recv" if op == "recv" else op
    if group == "tp" or group == "cp" or group == "ep" or group == "etp":
        node = Collective("", kind, group, size, "forward")
        return blocks.exchange_seconds(node, Division.of(layout))
    replicas = min(layout.stride("dp"), layout.stride("cp"))
    pp, members = layout.stride("pp"), layout.ep * layout.etp
    stride, groups = {
        "pp": (pp, layout.devices // layout.pp),
        "tied": (-(-pp * layout.pp // 2), layout.devices // layout.pp),
        "dp": (replicas, layout.tp),
        "edp": (members * min(replicas, layout.stride("tp")), members),
        "replicas": (replicas * (layout.shard or 1), layout.tp * (layout.shard or 1)),
        "everyone": (1, 1),
    }[group]
    return float(blocks.collective(kind, ranks, stride, groups, size))
