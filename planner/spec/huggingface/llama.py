"""Llama and the decoders that share its keys: mistral, qwen2, qwen3, phi3.

num_hidden_layers, hidden_size, num_attention_heads, intermediate_size (gated), vocab_size,
hidden_act (silu), rms_norm_eps (1e-6; phi3 1e-5), rope_theta (10000), and

| type    | num_key_value_heads | head_dim | max_position_embeddings | biases         | also    |
|---------|---------------------|----------|-------------------------|----------------|---------|
| llama   | heads               | h/heads  | 2048                    | attention_bias,|         |
|         |                     |          |                         | mlp_bias: false|         |
| mistral | 8                   | h/heads  | 131072                  | none           | window  |
| qwen2   | 32                  | h/heads  | 32768                   | q, k and v     | window  |
| qwen3   | 32                  | 128      | 32768                   | attention_bias:| window, |
|         |                     |          |                         | false          | qk_norm |
| phi3    | heads               | h/heads  | 4096                    | none           | window  |

num_key_value_heads null means heads; tie_word_embeddings is false where it is missing. phi3
stacks q, k, v and gate, up into one matrix each, which changes no count.
Source: configuration and modeling files of transformers 5.23.0.
"""

from collections.abc import Mapping

from planner.spec.huggingface import heads, rope, windows
from planner.spec.huggingface.keys import REQUIRED, WAY_OUT, Keys
from planner.spec.huggingface.layers import Fields, mlp, stack


class Shape:
    """The sizes that the keys of Llama name. granted: what stands for missing ones."""

    def __init__(self, keys: Keys, granted: Mapping[str, int] | None = None) -> None:
        known = granted or {}

        def size(key: str) -> int:
            return keys.size(key, missing=known.get(key, REQUIRED))

        layers = "num_hidden_layers"
        self.layers = keys.layers(layers, missing=known.get(layers, REQUIRED))
        self.hidden, self.heads = size("hidden_size"), size("num_attention_heads")
        self.ffn, self.vocab = size("intermediate_size"), size("vocab_size")


def llama(keys: Keys) -> Fields:
    """Llama: two switches for biases."""
    shape = Shape(keys)
    bias = keys.flag("attention_bias", False)
    layer = {
        "attention": grouped(keys, shape, kv_heads=shape.heads, qkv=bias, output=bias),
        "feed_forward": gated(keys, shape, bias=keys.flag("mlp_bias", False)),
    }
    return decoder(keys, "llama", shape, [layer] * shape.layers, max_positions=2048)


def mistral(keys: Keys) -> Fields:
    """Mistral: one window for all layers."""
    shape = Shape(keys)
    attention = grouped(keys, shape, kv_heads=8)
    layers = windowed(
        attention, gated(keys, shape), windows.everywhere(keys, shape.layers, missing=4096)
    )
    return decoder(keys, "mistral", shape, layers, max_positions=131_072)


def qwen2(keys: Keys) -> Fields:
    """Qwen2: biases on queries, keys and values."""
    shape = Shape(keys)
    attention = grouped(keys, shape, kv_heads=32, qkv=True)
    layers = windowed(attention, gated(keys, shape), windows.qwen(keys, shape.layers))
    return decoder(keys, "qwen2", shape, layers, max_positions=32_768)


def qwen3(keys: Keys) -> Fields:
    """Qwen3: norms over query and key heads, heads of their own width."""
    shape = Shape(keys)
    bias = keys.flag("attention_bias", False)
    attention = grouped(keys, shape, kv_heads=32, head_dim=128, qkv=bias, output=bias, qk_norm=True)
    layers = windowed(attention, gated(keys, shape), windows.qwen(keys, shape.layers))
    return decoder(keys, "qwen3", shape, layers, max_positions=32_768)


def phi3(keys: Keys) -> Fields:
    """Phi-3: a part of each head may rotate."""
    shape = Shape(keys)
    attention = grouped(keys, shape, kv_heads=shape.heads)
    attention["rotary_dim"] = rope.rotated(keys, attention["head_dim"])
    layers = windowed(
        attention, gated(keys, shape), windows.everywhere(keys, shape.layers, missing=None)
    )
    return decoder(keys, "phi3", shape, layers, max_positions=4096, norm_eps=1e-5)


def grouped(
    keys: Keys,
    shape: Shape,
    *,
    kv_heads: int,
    head_dim: int | None = None,
    qkv: bool = False,
    output: bool = False,
    qk_norm: bool = False,
    one_theta: bool = True,
    theta: float = 10_000.0,
) -> Fields:
    """Attention in the keys of Llama. kv_heads, head_dim, theta: what stands for missing ones."""
    width = keys.head_dim(shape.hidden, shape.heads, missing=head_dim)
    if width % 2:
        keys.contradict("head_dim", f"{width} is odd; rotary positions turn pairs; {WAY_OUT}")
    return {
        "heads": shape.heads,
        "kv_heads": keys.size("num_key_value_heads", missing=kv_heads, null=shape.heads),
        "head_dim": width,
        "rotary_dim": width,
        **({"rope_theta": rope.theta(keys, theta)} if one_theta else {}),
        **dict.fromkeys(("q_bias", "k_bias", "v_bias"), qkv),
        "o_bias": output,
        "qk_norm": qk_norm,
    }


def gated(keys: Keys, shape: Shape, *, bias: bool = False) -> Fields:
    """The gated MLP in the keys of Llama."""
    return mlp(shape.ffn, keys.activation("hidden_act", "silu"), gated=True, bias=bias)


def windowed(
    attention: Fields, feed_forward: Fields, by_layer: list[int | None], **others: str
) -> list[Fields]:
    """Layers that differ by their window only."""
    return [
        {"attention": {**attention, "window": window}, "feed_forward": feed_forward, **others}
        for window in by_layer
    ]


def decoder(
    keys: Keys,
    family: str,
    shape: Shape,
    layers: list[Fields],
    *,
    max_positions: int,
    tied: bool = False,
    norm_eps: float = 1e-6,
) -> Fields:
    """A decoder in the keys of Llama: RMS norms, no table of positions."""
    longest = keys.size("max_position_embeddings", missing=max_positions)
    embedding = {"vocab": shape.vocab, "max_positions": longest}
    return {
        "family": family,
        "hidden": shape.hidden,
        "stacks": [stack("decoder", embedding, layers)],
        "norm": "rmsnorm",
        "norm_eps": keys.number("rms_norm_eps", norm_eps),
        **heads.of_decoder(keys, shape.vocab, tied=tied),
    }
