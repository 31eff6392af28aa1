"""Gemma 1, 2 and 3 in the keys of Llama (see llama.py): wide heads and a tied table.

| type        | num_key_value_heads | max_position_embeddings | norms    | also                    |
|-------------|---------------------|-------------------------|----------|-------------------------|
| gemma       | 16                  | 8192                    | before   |                         |
| gemma2      | 4                   | 8192                    | sandwich | window on 0, 2, 4 ...,  |
|             |                     |                         |          | attn_logit_softcapping: |
|             |                     |                         |          | 50                      |
| gemma3_text | 4                   | 131072                  | sandwich | window on all but each  |
|             |                     |                         |          | 6th, qk_norm, a rotary  |
|             |                     |                         |          | base per type of layer  |

head_dim is 256, attention_bias false and tie_word_embeddings true where they are missing.
The activation is hidden_act (gemma; gelu means its tanh form there) or hidden_activation (2, 3).
gemma3 nests its sizes in text_config, and the files of transformers 4 leave out there what
equals the class default: NESTED_GEMMA3 is taken for granted there, and only there.
Source: configuration and modeling files of transformers 5.23.0.
"""

from planner.spec.huggingface import rope, windows
from planner.spec.huggingface.keys import Keys
from planner.spec.huggingface.layers import Fields, mlp
from planner.spec.huggingface.llama import Shape, decoder, grouped, windowed
from planner.spec.huggingface.rope import FULL, SLIDING

NESTED_GEMMA3 = {
    "num_hidden_layers": 26,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_attention_heads": 8,
    "vocab_size": 262_208,
}


def gemma(keys: Keys) -> Fields:
    """Gemma: wide heads and a tied table."""
    keys.absent("use_bidirectional_attention", "attention here is causal")
    shape = Shape(keys)
    bias = keys.flag("attention_bias", False)
    activation = keys.activation("hidden_act", "gelu_pytorch_tanh")
    tanh = "gelu_tanh" if activation == "gelu" else activation  # what transformers makes of it
    layer = {
        "attention": grouped(keys, shape, kv_heads=16, head_dim=256, qkv=bias, output=bias),
        "feed_forward": mlp(shape.ffn, tanh, gated=True),
    }
    layers = [layer] * shape.layers
    return decoder(keys, "gemma", shape, layers, max_positions=8192, tied=True)


def gemma2(keys: Keys) -> Fields:
    """Gemma 2: norms before and after, each second layer sees a window."""
    shape = Shape(keys)
    attention = {
        **_attention(keys, shape, cap=50.0),
        "rope_theta": rope.theta(keys),
    }
    layers = windowed(
        attention,
        _mlp(keys, shape),
        windows.alternate(keys, shape.layers),
        placement="sandwich",
    )
    return decoder(keys, "gemma2", shape, layers, max_positions=8192, tied=True)


def gemma3(keys: Keys) -> Fields:
    """Gemma 3: five layers with a window, then one without, each with its own rotary base."""
    shape = Shape(keys, NESTED_GEMMA3 if keys.inside else None)
    pattern = keys.size("sliding_window_pattern", "_sliding_window_pattern", missing=6, null=6)
    attention = {**_attention(keys, shape, cap=None), "qk_norm": True}
    layer_types = windows.types(keys, shape.layers, lambda i: (i + 1) % pattern != 0)
    thetas = rope.thetas_by_type(keys)
    window = {FULL: None, SLIDING: keys.size("sliding_window", missing=4096, null=None)}
    feed_forward = _mlp(keys, shape)
    layers = [
        {
            "attention": {**attention, "window": window[name], "rope_theta": thetas[name]},
            "feed_forward": feed_forward,
            "placement": "sandwich",
        }
        for name in layer_types
    ]
    return decoder(keys, "gemma3_text", shape, layers, max_positions=131_072, tied=True)


def _attention(keys: Keys, shape: Shape, cap: float | None) -> Fields:
    keys.absent("use_bidirectional_attention", "attention here is causal")
    bias = keys.flag("attention_bias", False)
    attention = grouped(
        keys, shape, kv_heads=4, head_dim=256, qkv=bias, output=bias, one_theta=False
    )
    return {**attention, "score_cap": keys.cap("attn_logit_softcapping", cap)}


def _mlp(keys: Keys, shape: Shape) -> Fields:
    return mlp(shape.ffn, keys.activation("hidden_activation", "gelu_pytorch_tanh"), gated=True)
