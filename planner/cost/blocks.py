"""Blocks: time and bytes of the embedding, one layer and the head on one rank.

Everything a plan costs is built from these three, because layers repeat. A block's forward is
the sum of its operators (a layer's times the profile's composition factor, if it has one) and,
apart, of its tensor-parallel collectives; a layer takes at least the time its host needs to
launch it (runtime.layer_host_seconds, one third of it in the forward).

Full recomputation runs the layer's forward again inside the backward, including its
collectives. A runtime that stops early skips what comes after the last saved tensor: the down
projection, its scatter and the last residual.

On a machine whose ranks share cores all seconds are those of a rank that runs alone: what was
measured with k busy ranks is divided by slowdown(k), and the simulator multiplies again by the
slowdown of the moment.
"""

from dataclasses import dataclass
from functools import lru_cache

import networkx as nx

from planner.cost.collectives import CollectiveTimes, Floats
from planner.cost.operators import OperatorTimes
from planner.graph import transformer
from planner.graph.operator import Block, Collective, Operator
from planner.graph.view import RankView
from planner.spec.cluster import ClusterSpec
from planner.spec.model import ModelSpec
from planner.spec.plan import Plan
from planner.spec.profile import CollectiveOp, Phase, Profile
from planner.spec.provenance import Birth
from planner.spec.runtime import Runtime
from planner.spec.workload import Workload

PHASES: tuple[Phase, ...] = ("forward", "backward")

FORWARD_SHARE_OF_HOST = 1 / 3
"""Assumed: a backward launches about twice the kernels of a forward."""

SKIPPED_BY_EARLY_STOP = (".mlp.down", ".mlp.residual", ".mlp.scatter", ".mlp.leave")


@dataclass(frozen=True, slots=True)
class BlockCost:
    """Seconds per microbatch, bytes per microbatch, and parameters of a block on one rank.

    *_tp: tensor-parallel collectives, exposed. again: the recomputation of the forward.
    checkpoint_bytes: what full recomputation keeps instead of saved_bytes. widest_bytes: the
    largest activation gradient that the backward makes; weight_gradient_bytes: the largest
    weight gradient before it is added to its buffer. births: seconds of forward and backward
    compute by kind of number.
    """

    forward: float
    backward: float
    again: float
    forward_tp: float
    backward_tp: float
    again_tp: float
    saved_bytes: float
    checkpoint_bytes: float
    widest_bytes: float
    weight_gradient_bytes: float
    parameters: int
    replicated_parameters: int
    births: tuple[tuple[Birth, float], ...]


class Blocks:
    """Costs of the three blocks, by tensor-parallel degree and microbatch size, cached."""

    def __init__(
        self,
        model: ModelSpec,
        cluster: ClusterSpec,
        workload: Workload,
        runtime: Runtime,
        profile: Profile | None,
    ):
        self.model, self.cluster, self.workload = model, cluster, workload
        self.runtime, self.profile = runtime, profile
        flash = runtime.flash_attention
        self.operators = OperatorTimes(cluster, workload.dtype, flash, profile)
        self.collectives = CollectiveTimes(cluster, profile)
        self.cost = lru_cache(maxsize=4096)(self._cost)

    @classmethod
    def of_plan(cls, plan: Plan) -> "Blocks":
        """The blocks of a plan, from what the plan carries."""
        return cls(plan.model, plan.cluster, plan.workload, plan.runtime, plan.profile)

    def view(self, tp: int, micro_batch: int) -> RankView:
        """What one rank sees at a tensor-parallel degree and microbatch size."""
        return RankView(
            batch=micro_batch,
            seq=self.workload.seq_len,
            tp=tp,
            sequence_parallel=self.runtime.sequence_parallel,
            flash=self.runtime.flash_attention,
            fused_norms=self.cluster.accelerator.kind != "cpu",
            dtype=self.workload.dtype,
        )

    def graph(self, block: Block, tp: int, micro_batch: int) -> nx.DiGraph:
        """The block's operators and collectives on one rank."""
        view = self.view(tp, micro_batch)
        if block == "embedding":
            return transformer.embedding_graph(self.model, view)
        if block == "head":
            return transformer.head_graph(self.model, view, holds_embedding=False)
        return transformer.layer_graph(self.model, view)

    def _cost(self, block: Block, tp: int, micro_batch: int, stride: int, groups: int) -> BlockCost:
        """Cost of a block. stride: rank distance of tp neighbours; groups: tp groups per stage."""
        graph = self.graph(block, tp, micro_batch)
        operators = transformer.operators(graph)
        collectives = transformer.collectives(graph)
        births: dict[Birth, float] = {}
        layer = block == "layer"
        ahead, back = (self._composition(phase) if layer else 1.0 for phase in PHASES)
        forward = self._compute(operators, "forward", births) * ahead
        backward = self._compute(operators, "backward", births) * back
        host = self.runtime.layer_host_seconds if layer else 0.0
        forward_tp = self._exchange(collectives, "forward", stride, tp, groups)
        backward_tp = self._exchange(collectives, "backward", stride, tp, groups)
        kept = [op for op in operators if not self._skipped(op.name)]
        resent = [node for node in collectives if not self._skipped(node.name)]
        view = self.view(tp, micro_batch)
        return BlockCost(
            forward=max(forward, host * FORWARD_SHARE_OF_HOST - forward_tp),
            backward=max(backward, host * (1 - FORWARD_SHARE_OF_HOST) - backward_tp),
            again=self._compute(kept, "forward", {}) * ahead if layer else 0.0,
            forward_tp=forward_tp,
            backward_tp=backward_tp,
            again_tp=self._exchange(resent, "forward", stride, tp, groups) if layer else 0.0,
            saved_bytes=sum(op.saved_bytes for op in operators),
            checkpoint_bytes=view.outer_rows * self.model.hidden * view.element_bytes,
            widest_bytes=max(_widest_bytes(op, view.element_bytes) for op in operators),
            weight_gradient_bytes=max(op.parameters for op in operators) * view.element_bytes,
            parameters=sum(op.parameters for op in operators),
            replicated_parameters=sum(op.parameters for op in operators if op.replicated),
            births=tuple(births.items()),
        )

    def _skipped(self, name: str) -> bool:
        return self.runtime.recompute_stops_early and name.endswith(SKIPPED_BY_EARLY_STOP)

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

    def _compute(
        self, operators: list[Operator], phase: Phase, births: dict[Birth, float]
    ) -> float:
        total = 0.0
        for operator in operators:
            seconds, birth = self.seconds(operator, phase)
            births[birth] = births.get(birth, 0.0) + seconds
            total += seconds
        return total

    def _composition(self, phase: Phase) -> float:
        """What a whole layer takes over the sum of its operators (1 where nobody measured)."""
        return self.profile.composition.get(phase, 1.0) if self.profile else 1.0

    def _exchange(
        self, collectives: list[Collective], phase: Phase, stride: int, tp: int, groups: int
    ) -> float:
        return sum(
            float(self.collective(node.op, tp, stride, groups, node.message_bytes))
            for node in collectives
            if node.phase == phase
        )

    def collective(
        self, op: CollectiveOp, ranks: int, stride: int, groups: int, size: Floats | float
    ) -> Floats:
        """Seconds of collectives on ranks that run alone (see the top of the file)."""
        seconds = self.collectives.seconds(op, ranks, stride, groups, size)
        busy = self.collectives.measured_busy(op, ranks, groups)
        return seconds * self.alone(busy)


def _widest_bytes(operator: Operator, size: int) -> int:
    """Bytes of the largest activation gradient that an operator's backward makes; the loss
    computes in fp32 at least."""
    dims = dict(operator.dims)
    if operator.kind == "linear":
        return dims["m"] * max(dims["k"], dims["n"]) * size
    if operator.kind == "attention":
        widths = (dims["heads"] + 2 * dims["kv_heads"]) * dims["head_dim"]
        return dims["batch"] * dims["seq"] * widths * size
    if operator.kind in ("cross_entropy", "parallel_cross_entropy"):
        return dims["rows"] * dims["vocab"] * max(size, transformer.LOSS_BYTES)
    return dims["rows"] * dims.get("width", 1) * size
