"""ModelSpec: what is computed, and nothing about where or how it is divided."""

from typing import Literal, Self

import pydantic

from planner.spec.documents import Document

Norm = Literal["layernorm", "rmsnorm"]
Activation = Literal["gelu", "gelu_tanh", "silu", "relu"]
Positions = Literal["learned", "rotary"]


class ModelSpec(Document):
    """A decoder-only Transformer.

    hidden: width of the residual stream. ffn: inner width of the MLP; `gated` MLPs have three
    matrices (gate, up, down), others two. kv_heads < heads is grouped-query attention.
    attention_bias: biases on Q, K, V; output_bias: on the attention's output projection;
    mlp_bias: on every MLP matrix. sliding_window: keys each query sees, None for all before it.
    published_parameters: the count the authors print, if they do.
    """

    SCHEMA = "model/1"

    name: str
    family: Literal["gpt2", "llama"]
    layers: int = pydantic.Field(ge=1)
    hidden: int = pydantic.Field(ge=1)
    heads: int = pydantic.Field(ge=1)
    kv_heads: int = pydantic.Field(ge=1)
    head_dim: int = pydantic.Field(ge=1)
    ffn: int = pydantic.Field(ge=1)
    vocab: int = pydantic.Field(ge=2)
    max_positions: int = pydantic.Field(ge=1)
    gated: bool
    activation: Activation
    norm: Norm
    positions: Positions
    tied_embeddings: bool
    attention_bias: bool
    output_bias: bool
    mlp_bias: bool
    norm_eps: float = pydantic.Field(default=1e-5, gt=0)
    rope_theta: float = pydantic.Field(default=10_000.0, gt=0)
    sliding_window: int | None = pydantic.Field(default=None, ge=1)
    source: str = ""
    published_parameters: int | None = None

    @pydantic.model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}; "
                f"each key-value head serves the same number of query heads"
            )
        if self.positions == "rotary" and self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} is odd; rotary positions need pairs")
        return self

    @property
    def query_width(self) -> int:
        """Columns of the query projection: heads * head_dim."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Columns of the key (or value) projection: kv_heads * head_dim."""
        return self.kv_heads * self.head_dim
