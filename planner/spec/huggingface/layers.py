"""Stacks and layers as the mapping of an architecture/1 document.

Layers are written one by one; equal ones become one kind.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Fields = dict[str, Any]
Layer = Mapping[str, Any]


def stack(
    name: str, embedding: Mapping[str, Any], layers: Sequence[Layer], *, final_norm: bool = True
) -> Fields:
    """A stack of the given layers, first to last."""
    kinds: list[Layer] = []
    for layer in layers:
        if layer not in kinds:
            kinds.append(layer)
    return {
        "name": name,
        "embedding": embedding,
        "kinds": kinds,
        "order": [kinds.index(layer) for layer in layers],
        "final_norm": final_norm,
    }


def multi_head(heads: int, head_dim: int, *, bias: bool, causal: bool, **others: Any) -> Fields:
    """Attention with as many key-value heads as query heads, and biases everywhere or nowhere."""
    biases = dict.fromkeys(("q_bias", "k_bias", "v_bias", "o_bias"), bias)
    shape = {"heads": heads, "kv_heads": heads, "head_dim": head_dim, "causal": causal}
    return {**shape, **biases, **others}


def mlp(ffn: int, activation: str, *, gated: bool, bias: bool = False) -> Fields:
    """A feed-forward part."""
    return {"ffn": ffn, "activation": activation, "gated": gated, "bias": bias}
