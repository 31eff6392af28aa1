"""Blocks: time and bytes of the embedding, one layer of each kind and the head on one rank.

Everything a plan costs is built from these, because layers repeat. A block's forward is
the sum of its operators (a layer's times the profile's composition factor, if it has one) and,
apart, of its tensor-parallel collectives; a layer takes at least the time its host needs to
launch it (planner.cost.host).

Recomputation runs a part of the layer's forward again inside the backward, including its
collectives (planner.graph.recompute says which nodes).

On a machine whose ranks share cores all seconds are those of a rank that runs alone: what was
measured with k busy ranks is divided by slowdown(k), and the simulator multiplies again by the
slowdown of the moment. Messages over links that are no work of the cores stay as measured.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from planner.cost import overlap
from planner.cost.block_parts import BlockGraphs, Parts, is_routed
from planner.cost.collectives import CollectiveTimes, Floats
from planner.cost.column import MixedError, larger, smaller
from planner.cost.divisions import Division, Divisions, Register
from planner.cost.exchange import Exchange
from planner.cost.host import Host
from planner.cost.operators import OperatorTimes
from planner.cost.timed import Timed
from planner.graph.operator import Block, Collective, LayerKind, Node, Operator
from planner.graph.parts.attention import CORE_KINDS
from planner.graph.view import RankView
from planner.spec.calibration import Calibration
from planner.spec.cluster import ClusterSpec
from planner.spec.layer import Experts
from planner.spec.model import ModelSpec
from planner.spec.plan import Plan
from planner.spec.profile import CollectiveOp, Phase, Profile
from planner.spec.provenance import Birth
from planner.spec.runtime import ContextStyle, Runtime
from planner.spec.workload import DTYPE_BYTES, LOW_PRECISION, Workload, stored_dtype

PHASES: tuple[Phase, ...] = ("forward", "backward")

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class BlockCost:
    """Seconds per microbatch, bytes per microbatch, and parameters of a block on one rank.

    backward_weight: what of the backward's compute makes gradients of weights.
    *_tp: tensor-parallel collectives, exposed. again, again_selective: what full and selective
    recomputation run a second time. checkpoint_bytes, selective_bytes: what they keep instead of
    saved_bytes; *_left_bytes: how much more than that a split backward leaves of each between its
    halves. widest_bytes: the largest activation gradient that the backward makes;
    weight_gradient_bytes: the largest weight gradient before it is added to its buffer. births:
    seconds of forward and backward compute by kind of number.
    """

    forward: float
    backward: float
    backward_weight: float
    again: float
    again_selective: float
    again_selective_tp: float
    forward_tp: float
    backward_tp: float
    again_tp: float
    saved_bytes: float
    selective_bytes: float
    checkpoint_bytes: float
    saved_left_bytes: float
    selective_left_bytes: float
    checkpoint_left_bytes: float
    widest_bytes: float
    weight_gradient_bytes: float
    parameters: int
    replicated_parameters: int
    expert_parameters: int
    births: tuple[tuple[Birth, float], ...]


MANY = 8
"""From so many divisions on, one pass over columns takes less time than one by one (measured:
some 2 ms each way where no graph is built yet; 8 took least of 2, 4, 8, 24 for a whole space)."""
NUMBERS = tuple(name for name in BlockCost.__dataclass_fields__ if name != "births")


class Blocks:
    """Costs of the blocks of a model, by their division, cached.

    kinds: the kinds of layers there are, in the order of their first layer. kinds_before: how many
    of each kind stand before layer u, [layers + 1, kinds]. stored: the format of
    weights and activations. graphs: those of the model, if they have been built already.
    calibration: what the cluster and the runtime have been calibrated by, for bands and births.
    """

    def __init__(
        self,
        model: ModelSpec,
        cluster: ClusterSpec,
        workload: Workload,
        runtime: Runtime,
        profile: Profile | None,
        graphs: BlockGraphs | None = None,
        calibration: Calibration | None = None,
    ):
        self.model, self.cluster, self.workload = model, cluster, workload
        self.runtime, self.profile, self.calibration = runtime, profile, calibration
        order = model.order
        self.kinds = tuple(LayerKind(*each) for each in dict.fromkeys(order))
        self.kinds_before = _kinds_before(order, self.kinds)
        self.stored = stored_dtype(workload.dtype)
        self.graphs = graphs or BlockGraphs(model)
        self.operators = OperatorTimes(
            cluster, workload.dtype, runtime.flash_attention, profile, runtime.loss_passes
        )
        self.collectives = CollectiveTimes(cluster, profile)
        self.lines = None if profile else self.collectives.lines
        self.cost = lru_cache(maxsize=4096)(self._cost)
        self._registers: dict[Block, Register] = {}
        self.many = MANY

    @classmethod
    def of_plan(cls, plan: Plan) -> "Blocks":
        """The blocks of a plan, from what the plan carries."""
        asked = plan.model, plan.cluster, plan.workload, plan.runtime, plan.profile
        return cls(*asked, calibration=plan.calibration)

    def changed(self, **parts: Any) -> "Blocks":
        """The same question with another cluster, workload or runtime; the graphs are shared."""
        names = ("model", "cluster", "workload", "runtime", "profile")
        kept = {name: parts.get(name, getattr(self, name)) for name in names}
        graphs = self.graphs if kept["model"] is self.model else None
        return Blocks(**kept, graphs=graphs, calibration=self.calibration)

    @property
    def has_network(self) -> bool:
        """Whether ranks that share cores have links that take none of them (SharedCores)."""
        shared = self.cluster.shared_cores
        return shared is not None and shared.network

    @property
    def element_bytes(self) -> int:
        """Bytes of one stored weight or activation."""
        return DTYPE_BYTES[self.stored]

    def view(
        self,
        tp: int,
        micro_batch: int,
        cp: int = 1,
        ep: int = 1,
        etp: int = 1,
        cp_style: ContextStyle = "ring",
    ) -> RankView:
        """What one rank sees under a division."""
        return RankView(
            batch=micro_batch,
            seq=self.workload.seq_len,
            tp=tp,
            sequence_parallel=self.runtime.sequence_parallel,
            flash=self.runtime.flash_attention,
            fused_norms=self.runtime.fused_norms and self.cluster.accelerator.kind != "cpu",
            fused_gate=self.runtime.fused_gate,
            copies_keys_values=self.runtime.copies_keys_values,
            pads_experts=self.runtime.pads_experts and self.workload.dtype in LOW_PRECISION,
            fused_expert_bias=self.runtime.fused_expert_bias,
            quantized_inputs=self.runtime.quantizes_inputs and self.workload.dtype in LOW_PRECISION,
            dtype=self.stored,
            cp=cp,
            cp_style=cp_style,
            ep=ep,
            etp=etp,
        )

    def graph(self, block: Block, tp: int, micro_batch: int) -> nx.DiGraph:
        """The block's operators and collectives on one rank."""
        return self.graphs.graph(block, self.view(tp, micro_batch))

    def has_experts(self, block: Block) -> bool:
        """Whether a block is a layer with experts (or a head that holds such layers)."""
        if block == "head":
            return self.model.head.mtp_layers > 0
        if not isinstance(block, LayerKind):
            return False
        kind = self.model.stacks[block.stack].kinds[block.kind]
        return isinstance(kind.feed_forward, Experts)

    def costs(self, block: Block, divisions: Divisions, field: str) -> Floats:
        """One field of the block's cost under many divisions, [D]."""
        register = self._registers.get(block)
        if register is None:
            register = self._registers[block] = Register(NUMBERS)
        missing = register.missing(divisions)
        if missing is not None:
            register.add(missing, self._cost_columns(block, missing))
        return register.values(divisions, field)

    def _cost_columns(self, block: Block, divisions: Divisions) -> dict[str, Floats]:
        found = {name: np.zeros(len(divisions.rows)) for name in NUMBERS}
        for place, cost in self._alike(block, divisions):
            for name in NUMBERS:
                found[name][place] = getattr(cost, name)
        return found

    def _alike(
        self, block: Block, divisions: Divisions, *same: str
    ) -> Iterator[tuple[Ints | int, BlockCost]]:
        """Costs of divisions at once; of one tp where a branch tells those of several apart, one
        by one where that does not help, where they are few, or where a profile knows each."""
        for rows, alike in divisions.alike(*same):
            cost = self._together(block, alike, len(rows))
            if cost is not None:
                yield rows, cost
            elif same or len(rows) < self.many or self.profile is not None:
                yield from ((row, self.cost(block, divisions.one(row))) for row in rows.tolist())
            else:
                finer = self._alike(block, divisions.take(rows), "tp")
                yield from ((rows[place], each) for place, each in finer)

    def _together(self, block: Block, alike: Division, rows: int) -> BlockCost | None:
        """The cost of a column, None where that is not possible or does not pay."""
        if self.profile is not None or rows < self.many:
            return None
        try:
            return self._cost(block, alike)
        except MixedError:
            return None

    def _cost(self, block: Block, division: Division) -> BlockCost:
        """Cost of a block under a division, or under a column of them."""
        tp, runtime = division.tp, self.runtime
        degrees = division.cp, division.ep, division.etp
        view = self.view(tp, division.micro_batch, *degrees, division.cp_style)
        rules = runtime.recompute_stops_early, runtime.selective
        parts = self.graphs.parts_of(block, view, *rules)
        births: dict[Birth, float] = {}
        layer = isinstance(block, LayerKind)
        ahead, back = (self._composition(phase) if layer else 1.0 for phase in PHASES)
        timed, sent = Timed(self.seconds), self.exchange(division)
        forward = timed.compute(parts.operators, "forward", births) * ahead
        backward = timed.compute(parts.operators, "backward", births) * back
        cores = [node for node in parts.operators if node.kind in CORE_KINDS]
        ahead_cores = timed.forward(cores) * ahead
        back_cores = timed.compute(cores, "backward", {}) * back
        ahead_sent, back_sent = self._sent(parts, layer)
        forward, forward_tp = self._passed(forward, ahead_cores, ahead_sent, sent)
        beside = 0.0, 0.0
        if runtime.overlaps_tp_backward:
            inputs, weights = timed.gradients(parts.entered)
            beside = inputs * back, weights * back
        backward, backward_tp = self._passed(backward, back_cores, back_sent, sent, beside)
        again = again_tp = selective_tp = 0.0
        selective = timed.forward(parts.again_selective) * ahead
        if layer:
            host = Host.of(runtime, parts.experts)
            routed = timed.forward(parts.routed) * ahead if host.waits else 0.0
            forward = host.ahead(forward, forward_tp, routed, ahead_sent, sent)
            backward = host.behind(backward, backward_tp, back_sent, sent)
            again, again_tp = self._rerun(parts.again, host, timed, sent)
            if runtime.selective == "products":
                selective, selective_tp = self._rerun(parts.again_selective, host, timed, sent)
        saved, kept_selective = self._kept(parts, tp, layer)
        return BlockCost(
            forward=forward,
            backward=backward,
            backward_weight=backward * timed.weight_share(parts.operators),
            again=again,
            again_selective=selective,
            again_selective_tp=selective_tp,
            forward_tp=forward_tp,
            backward_tp=backward_tp,
            again_tp=again_tp,
            saved_bytes=saved,
            selective_bytes=kept_selective,
            checkpoint_bytes=parts.saved[2],
            saved_left_bytes=larger(parts.aside_bytes - saved, 0),
            selective_left_bytes=larger(parts.aside_bytes - kept_selective, 0),
            checkpoint_left_bytes=larger(parts.aside_bytes - parts.saved[2], 0),
            widest_bytes=parts.widest_bytes,
            weight_gradient_bytes=parts.weight_gradient_bytes,
            parameters=parts.parameters,
            replicated_parameters=parts.replicated_parameters,
            expert_parameters=parts.expert_parameters,
            births=tuple(births.items()),
        )

    def _kept(self, parts: Parts, tp: int, layer: bool) -> tuple[float, float]:
        """Bytes kept without and with selective recomputation, as this runtime keeps them."""
        none, selective, _ = parts.saved
        if not layer:
            return none, selective
        share = self.runtime.gathered_share
        share = float(self.runtime.keeps_gathered_inputs) if share is None else share
        fewer = (1 - share) * parts.ungathered_bytes(tp)
        scale = self.runtime.activation_scale
        gathered = fewer if self.runtime.selective == "core" else 0.0
        return scale * (none - fewer), scale * (selective - gathered)

    def _sent(self, parts: Parts, layer: bool) -> tuple[list[Collective], list[Collective]]:
        """The block's own collectives, forward and backward."""
        forward = [node for node in parts.collectives if node.phase == "forward"]
        backward = [node for node in parts.collectives if node.phase == "backward"]
        if layer and not self.runtime.keeps_gathered_inputs:
            backward += [node for node in forward if (node.op, node.axis) == ("all_gather", "tp")]
        return forward, backward

    def _rerun(
        self, nodes: Sequence[Node], host: Host, timed: Timed, sent: Exchange
    ) -> tuple[float, float]:
        """Compute and exposed exchange of the nodes of a layer whose forward runs again."""
        ahead = self._composition("forward")
        operators = [node for node in nodes if isinstance(node, Operator)]
        cores = [node for node in operators if node.kind in CORE_KINDS]
        routed = [node for node in operators if is_routed(node)] if host.waits else []
        moved = [n for n in nodes if isinstance(n, Collective) and n.phase == "forward"]
        compute, attention, copies = (timed.forward(n) * ahead for n in (operators, cores, routed))
        compute, exchange = self._passed(compute, attention, moved, sent)
        return host.ahead(compute, exchange, copies, moved, sent), exchange

    def _passed(
        self,
        compute: float,
        attention: float,
        nodes: Sequence[Collective],
        sent: Exchange,
        beside: tuple[float, float] = (0.0, 0.0),
    ) -> tuple[float, float]:
        """Compute and exposed exchange of one pass over a block (planner.cost.overlap).

        What is hidden slows the compute. attention: seconds of the cores, a part of compute.
        beside: seconds of the gradients, of inputs and of weights, of the products that tp enters.
        """
        tp, cp = sent.division.tp, sent.division.cp
        hidden = 0.0
        if steps := [node for node in nodes if node.axis == "cp" and node.op == "send_recv"]:
            early = [replace(node, count=smaller(node.count, cp - 1)) for node in steps]
            hidden = overlap.ring_hidden(sent.over(early), attention, 1.0 * cp)
        if self.overlaps_tp and tp > 1:
            over_tp = sent.over([node for node in nodes if node.axis == "tp"])
            hidden += over_tp - overlap.exposed(over_tp, compute - hidden, 1.0 * tp)
        elif self.runtime.overlaps_tp_backward and tp > 1:
            hidden += _beside_gradients(nodes, sent, *beside)
        if self.runtime.overlaps_experts and sent.division.ep > 1:
            dealt = sent.over([node for node in nodes if node.axis == "ep"])
            dealt = smaller(dealt, larger(compute - hidden, 0.0))
            hidden, compute = hidden + dealt, compute + overlap.DEALING * dealt
        left = sent.over(nodes) - hidden
        return compute + self.runtime.overlap_slowdown * hidden, left

    @property
    def overlaps_tp(self) -> bool:
        """Whether exchanges of tp pass beside the products they feed: no kernel does it in fp4."""
        return self.runtime.overlaps_tp and self.workload.dtype != "fp4"

    def alone(self, busy: int) -> float:
        """Factor from seconds measured with `busy` ranks to those of a rank alone."""
        shared = self.cluster.shared_cores
        return 1.0 / shared.factor(busy) if shared and self.profile else 1.0

    def seconds(self, operator: Operator, phase: Phase) -> tuple[float, Birth]:
        """Seconds of one phase of an operator on a rank alone, and how they are known."""
        estimate = self.operators.estimate(operator, phase)
        if estimate.birth == "assumed" or self.profile is None:
            return estimate
        return estimate.seconds * self.alone(self.profile.busy_ranks), estimate.birth

    def _composition(self, phase: Phase) -> float:
        """What a whole layer takes over the sum of its operators (1 where nobody measured)."""
        return self.profile.composition.get(phase, 1.0) if self.profile else 1.0

    def exchange(self, division: Division) -> Exchange:
        """What the collectives of a block take under a division."""
        once = self.runtime.sends_tokens_once
        per_node = self.cluster.devices_per_node if once else None
        inner = self.cluster.tiers[0]
        near = (inner.devices, inner.latency_seconds)
        apart = self.cluster.backend == "nccl" and len(self.cluster.tiers) > 1
        return Exchange(self.collective, self.lines, division, per_node, near if apart else None)

    def exchange_seconds(self, node: Collective, division: Division) -> float:
        """Seconds of one collective of a block."""
        return self.exchange(division).seconds(node)

    def collective(
        self, op: CollectiveOp, ranks: int, stride: int, groups: int, size: Floats | float
    ) -> Floats:
        """Seconds of collectives on ranks that run alone (see the top of the file)."""
        seconds = self.collectives.seconds(op, ranks, stride, groups, size)
        if self.profile is None or self.has_network:
            return seconds
        busy = self.collectives.measured_busy(op, ranks, groups)
        return seconds * self.alone(busy)


def _beside_gradients(
    nodes: Sequence[Collective], sent: Exchange, inputs: float, weights: float
) -> float:
    """Seconds of a backward's exchanges of tp that pass beside the products that tp enters.

    While the gradient of the input is made the input is gathered again, while that of the weights
    is made that of the input is reduced; over all such products of the block.
    """
    own = [node for node in nodes if node.axis == "tp"]
    again = sent.over([node for node in own if node.phase == "forward"])
    reducing = ("reduce_scatter", "all_reduce")
    reduced = sent.over([n for n in own if n.phase == "backward" and n.op in reducing])
    hidden: float = np.minimum(again, inputs) + np.minimum(reduced, weights)
    return hidden


def _kinds_before(order: Sequence[tuple[int, int]], kinds: Sequence[LayerKind]) -> Ints:
    is_kind = np.array([[each == tuple(kind) for kind in kinds] for each in order], dtype=np.int64)
    before: Ints = np.concatenate([np.zeros((1, len(kinds)), np.int64), is_kind.cumsum(axis=0)])
    return before
