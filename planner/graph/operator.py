"""Operator and Collective: the nodes of every graph. networkx holds the shape, these the facts.

FLOPs count a multiply and an add as two, matrix products only (element-wise work is bounded by
bytes). Attention counts the whole s x s square, as torch's FlopCounter does; what a causal
kernel skips is the cost model's business. The backward is split into the gradient of the input
and the gradient of the weights, as zero-bubble schedules need.
"""

from dataclasses import dataclass, field
from typing import Literal

from planner.spec.profile import CollectiveOp, Phase
from planner.spec.runtime import Axis

Block = Literal["embedding", "layer", "head"]
Dims = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator on one rank.

    name: unique in its graph (`layer3.attention.q`). kind and dims: what is computed, in the
    words that the profiler times (see planner.graph.transformer). forward_flops,
    input_gradient_flops, weight_gradient_flops: matrix-product FLOPs. forward_bytes,
    backward_bytes: read and written once each. parameters: elements held by this rank.
    replicated: the parameters are the same on every tp rank. saved_bytes: kept by this
    operator from forward to backward, not counting what another operator keeps already.
    splits: dims that a mesh axis can divide.
    """

    name: str
    kind: str
    dims: Dims
    forward_flops: int = 0
    input_gradient_flops: int = 0
    weight_gradient_flops: int = 0
    forward_bytes: int = 0
    backward_bytes: int = 0
    parameters: int = 0
    replicated: bool = False
    saved_bytes: int = 0
    splits: tuple[tuple[str, Axis], ...] = field(default=())

    @property
    def backward_flops(self) -> int:
        """FLOPs of the whole backward."""
        return self.input_gradient_flops + self.weight_gradient_flops

    def flops(self, phase: Phase) -> int:
        """FLOPs of one phase."""
        return self.forward_flops if phase == "forward" else self.backward_flops

    def bytes_moved(self, phase: Phase) -> int:
        """Bytes read and written in one phase."""
        return self.forward_bytes if phase == "forward" else self.backward_bytes


@dataclass(frozen=True, slots=True)
class Collective:
    """One collective of a sharded view. message_bytes: the full tensor, not the shard."""

    name: str
    op: CollectiveOp
    axis: Axis
    message_bytes: int
    phase: Phase


Node = Operator | Collective
