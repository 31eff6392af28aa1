"""Operator and Collective: the nodes of every graph. networkx holds the shape, these the facts.

FLOPs count a multiply and an add as two, matrix products only (element-wise work is bounded by
bytes). Attention counts every query against every key it may be given, as torch's FlopCounter
does; what a causal kernel skips is `kernel_share`, the cost model's business. The backward is
split into the gradient of the input and the gradient of the weights, as zero-bubble schedules
need.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from planner.spec.profile import CollectiveOp, Phase
from planner.spec.runtime import Axis

Group = Axis | Literal["etp"]
"""What a collective runs over: a mesh axis, or expert tensor parallelism (inside ep's ranks)."""
Dims = tuple[tuple[str, int], ...]
Meaning = Literal[
    "batch",
    "sequence",
    "tokens",
    "hidden",
    "heads",
    "kv_heads",
    "ffn",
    "vocabulary",
    "classes",
    "experts",
    "rank",
]


@dataclass(frozen=True, slots=True)
class Split:
    """A dim of an operator that a mesh axis can divide, and what the dim is made of."""

    dim: str
    meaning: Meaning
    axis: Axis


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator on one rank.

    name: unique in its graph (`layer3.attention.q`). kind and dims: what is computed, in the
    words that the profiler times (see planner.graph.parts.elements). forward_flops,
    input_gradient_flops, weight_gradient_flops: matrix-product FLOPs. kernel_share: the part of
    them that a kernel which skips masked keys computes. forward_bytes, backward_bytes: read and
    written once each. parameters: elements held by this rank. replicated: the parameters are
    the same on every tp rank. expert: they belong to experts, which ep divides. trainable:
    they get gradients. saved_bytes: kept by this operator from forward to backward, not
    counting what another operator keeps already; selective_bytes: the part of them that
    selective recomputation makes again. cache_bytes: held in the key-value cache afterwards.
    splits: dims that a mesh axis can divide.
    """

    name: str
    kind: str
    dims: Dims
    forward_flops: int = 0
    input_gradient_flops: int = 0
    weight_gradient_flops: int = 0
    kernel_share: float = 1.0
    forward_bytes: int = 0
    backward_bytes: int = 0
    parameters: int = 0
    replicated: bool = False
    expert: bool = False
    trainable: bool = True
    saved_bytes: int = 0
    selective_bytes: int = 0
    cache_bytes: int = 0
    splits: tuple[Split, ...] = field(default=())

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
    """One collective of a sharded view. message_bytes: the full tensor, not the shard.

    count: how many of them in a row (the steps of a ring of send_recv). copies: how many of the
    ranks every token in the message goes to (per_token experts), for runtimes that send it once to
    a node.
    """

    name: str
    op: CollectiveOp
    axis: Group
    message_bytes: int
    phase: Phase
    count: int = 1
    copies: int = 1


Node = Operator | Collective


class LayerKind(NamedTuple):
    """One kind of layer of a model: its stack and its place among the stack's kinds."""

    stack: int
    kind: int


Block = Literal["embedding", "head"] | LayerKind
"""What a model is made of: everything before the first layer, a layer, everything behind."""
