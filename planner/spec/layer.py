"""LayerSpec: one kind of Transformer layer, as the papers write it.

x is the residual stream, A the attention, C the cross-attention of a decoder that reads an
encoder, F the feed-forward part (an MLP or experts), N a norm:

    pre       x = x + A(N x);  x = x + C(N x);  x = x + F(N x)
    post      x = N(x + A x);  x = N(x + C x);  x = N(x + F x)
    sandwich  x = x + N A(N x);  x = x + N F(N x)
    parallel  x = x + A(N x) + F(N' x)                                    (placement pre)
"""

from typing import Literal, Self

import pydantic

from planner.spec.documents import Frozen

Activation = Literal["gelu", "gelu_tanh", "silu", "relu"]
Placement = Literal["pre", "post", "sandwich"]


class Latent(Frozen):
    """Multi-head latent attention (DeepSeek-V2, 2024): queries, keys and values through low ranks.

    query_rank: width that the queries pass through, None for a plain projection. kv_rank: width
    that keys and values share, and what a cache stores beside one rotated key head.
    """

    query_rank: int | None = pydantic.Field(default=None, ge=1)
    kv_rank: int = pydantic.Field(ge=1)


class Attention(Frozen):
    """Multi-head attention; kv_heads < heads is grouped-query attention.

    head_dim: width of one query and key head; value_dim: of one value head, None for head_dim.
    window: keys each query sees, None for all. rotary_dim: how many of head_dim rotate, 0 for
    none. relative_buckets: learned biases per head by distance (T5), of the first layer of a
    stack. qk_norm: an RMS norm over each query and key head. score_cap: tanh limit of the scores.
    sinks: a learned number per head that takes part in the softmax of every query's scores.
    latent: low-rank projections instead of q, k and v; rotary_dim of head_dim then rotate, and
    the rotated part of the key is one head that all share.
    """

    heads: int = pydantic.Field(ge=1)
    kv_heads: int = pydantic.Field(ge=1)
    head_dim: int = pydantic.Field(ge=1)
    value_dim: int | None = pydantic.Field(default=None, ge=1)
    causal: bool = True
    window: int | None = pydantic.Field(default=None, ge=1)
    q_bias: bool = False
    k_bias: bool = False
    v_bias: bool = False
    o_bias: bool = False
    qk_norm: bool = False
    rotary_dim: int = pydantic.Field(default=0, ge=0)
    rope_theta: float = pydantic.Field(default=10_000.0, gt=0)
    relative_buckets: int = pydantic.Field(default=0, ge=0)
    score_cap: float | None = pydantic.Field(default=None, gt=0)
    sinks: bool = False
    latent: Latent | None = None

    @pydantic.model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}; "
                f"each key-value head serves the same number of query heads"
            )
        if self.rotary_dim % 2:
            raise ValueError(f"rotary_dim={self.rotary_dim} is odd; rotary positions need pairs")
        if self.rotary_dim > self.head_dim:
            raise ValueError(f"rotary_dim={self.rotary_dim} is more than head_dim={self.head_dim}")
        if self.latent and (self.kv_heads != self.heads or not self.rotary_dim < self.head_dim):
            raise ValueError(
                f"latent attention needs kv_heads={self.kv_heads} equal to heads={self.heads} "
                f"and rotary_dim={self.rotary_dim} below head_dim={self.head_dim}"
            )
        return self

    @property
    def query_width(self) -> int:
        """Columns of the query projection: heads * head_dim."""
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Columns of the key projection: kv_heads * head_dim."""
        return self.kv_heads * self.head_dim

    @property
    def value_head(self) -> int:
        """Width of one value head."""
        return self.head_dim if self.value_dim is None else self.value_dim

    @property
    def value_width(self) -> int:
        """Columns of the value projection: kv_heads * value_head."""
        return self.kv_heads * self.value_head

    @property
    def output_width(self) -> int:
        """Rows of the output projection: heads * value_head."""
        return self.heads * self.value_head


class MLP(Frozen):
    """Two matrices with an activation between, or three with a gate. bias: on every matrix."""

    ffn: int = pydantic.Field(ge=1)
    gated: bool
    activation: Activation
    bias: bool = False


class Experts(Frozen):
    """A mixture of experts: a router sends each token to per_token of them.

    expert: each of the experts. router_bias: of the router's matrix. shared: an MLP that every
    token passes besides; shared_gate: a learned number per token scales it.
    """

    experts: int = pydantic.Field(ge=1)
    per_token: int = pydantic.Field(ge=1)
    expert: MLP
    router_bias: bool = False
    shared: MLP | None = None
    shared_gate: bool = False

    @pydantic.model_validator(mode="after")
    def _enough_experts(self) -> Self:
        if self.per_token > self.experts:
            raise ValueError(f"per_token={self.per_token} is more than experts={self.experts}")
        if self.shared_gate and self.shared is None:
            raise ValueError("shared_gate=true scales a shared MLP, and there is none")
        return self


class LayerSpec(Frozen):
    """One kind of layer (see the top of the file for placement and parallel)."""

    attention: Attention
    cross_attention: Attention | None = None
    feed_forward: MLP | Experts
    placement: Placement = "pre"
    parallel: bool = False

    @pydantic.model_validator(mode="after")
    def _placement_fits(self) -> Self:
        if self.parallel and (self.placement != "pre" or self.cross_attention is not None):
            raise ValueError("parallel=true needs placement=pre and no cross_attention")
        if (cross := self.cross_attention) is not None and (
            cross.latent
            or cross.qk_norm
            or cross.rotary_dim
            or cross.relative_buckets
            or cross.sinks
        ):
            raise ValueError(
                "cross_attention: latent, qk_norm, rotary_dim, relative_buckets and sinks are for "
                "attention to the own stream only"
            )
        if self.cross_attention is not None and self.placement == "sandwich":
            raise ValueError("placement=sandwich is known for layers without cross_attention only")
        return self
