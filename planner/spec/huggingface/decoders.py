"""GPT-2, GPT-NeoX and OPT: what each key is called, and what a missing one means.

| field         | gpt2                 | gpt_neox                | opt                          |
|---------------|----------------------|-------------------------|------------------------------|
| layers        | n_layer              | num_hidden_layers       | num_hidden_layers            |
| hidden        | n_embd               | hidden_size             | hidden_size                  |
| heads         | n_head               | num_attention_heads     | num_attention_heads          |
| ffn           | n_inner; null: 4 h   | intermediate_size       | ffn_dim                      |
| max_positions | n_positions: 1024    | max_position_           | max_position_embeddings:     |
|               |                      | embeddings: 2048        | 2048                         |
| positions     | learned              | rotary, 0.25 of a head  | learned, 2 rows more         |
| activation    | activation_function: | hidden_act: gelu        | activation_function: relu    |
|               | gelu_new             |                         |                              |
| biases        | everywhere           | attention_bias: true;   | enable_bias: true            |
|               |                      | MLP always              |                              |
| norm_eps      | layer_norm_epsilon:  | layer_norm_eps: 1e-5    | 1e-5                         |
|               | 1e-5                 |                         |                              |
| tied          | true                 | false                   | true                         |
| also          |                      | use_parallel_residual:  | do_layer_norm_before: true,  |
|               |                      | true                    | word_embed_proj_dim, layer_  |
|               |                      |                         | norm_elementwise_affine: true|

gpt2 also reads the standard names (num_hidden_layers, hidden_size, num_attention_heads,
max_position_embeddings). OPT with its norms after (do_layer_norm_before false) has no final one.
Source: configuration and modeling files of transformers 5.23.0.
"""

from planner.spec.huggingface import heads, rope
from planner.spec.huggingface.keys import Keys
from planner.spec.huggingface.layers import Fields, mlp, multi_head, stack
from planner.spec.huggingface.llama import Shape


def gpt2(keys: Keys) -> Fields:
    """GPT-2: learned positions, layer norms, biases everywhere."""
    keys.absent("add_cross_attention", "a decoder without an encoder has no cross-attention")
    hidden = keys.size("n_embd", "hidden_size")
    count = keys.size("n_head", "num_attention_heads")
    ffn = keys.size("n_inner", missing=4 * hidden, null=4 * hidden)
    activation = keys.activation("activation_function", "gelu_new")
    head_dim = keys.share("n_head", hidden, count)
    layer = {
        "attention": multi_head(count, head_dim, bias=True, causal=True),
        "feed_forward": mlp(ffn, activation, gated=False, bias=True),
    }
    layers = keys.layers("n_layer", "num_hidden_layers")
    vocab = keys.size("vocab_size")
    longest = keys.size("n_positions", "max_position_embeddings", missing=1024)
    embedding = {"vocab": vocab, "max_positions": longest, "positions": "learned"}
    return {
        "family": "gpt2",
        "hidden": hidden,
        "stacks": [stack("decoder", embedding, [layer] * layers)],
        "norm": "layernorm",
        "norm_eps": keys.number("layer_norm_epsilon", 1e-5),
        **heads.of_decoder(keys, vocab, tied=True),
    }


def gpt_neox(keys: Keys) -> Fields:
    """GPT-NeoX and Pythia: attention and MLP side by side, a part of each head rotates."""
    shape = Shape(keys)
    head_dim = keys.share("num_attention_heads", shape.hidden, shape.heads)
    attention = multi_head(
        shape.heads,
        head_dim,
        bias=keys.flag("attention_bias", True),
        causal=True,
        rotary_dim=rope.rotated(keys, head_dim, 0.25, "rotary_pct"),
        rope_theta=rope.theta(keys, older="rotary_emb_base"),
    )
    layer = {
        "attention": attention,
        "feed_forward": mlp(
            shape.ffn, keys.activation("hidden_act", "gelu"), gated=False, bias=True
        ),
        "parallel": keys.flag("use_parallel_residual", True),
    }
    longest = keys.size("max_position_embeddings", missing=2048)
    embedding = {"vocab": shape.vocab, "max_positions": longest}
    return {
        "family": "gpt_neox",
        "hidden": shape.hidden,
        "stacks": [stack("decoder", embedding, [layer] * shape.layers)],
        "norm": "layernorm",
        "norm_eps": keys.number("layer_norm_eps", 1e-5),
        **heads.of_decoder(keys, shape.vocab, tied=False),
    }


def opt(keys: Keys) -> Fields:
    """OPT: norms before or after, a token table that may be narrower than the stream."""
    hidden, count = keys.size("hidden_size"), keys.size("num_attention_heads")
    vocab, ffn = keys.size("vocab_size"), keys.size("ffn_dim")
    bias, before = keys.flag("enable_bias", True), keys.flag("do_layer_norm_before", True)
    head_dim = keys.share("num_attention_heads", hidden, count)
    activation = keys.activation("activation_function", "relu")
    layer = {
        "attention": multi_head(count, head_dim, bias=bias, causal=True),
        "feed_forward": mlp(ffn, activation, gated=False, bias=bias),
        "placement": "pre" if before else "post",
    }
    layers = keys.layers("num_hidden_layers")
    width = keys.size("word_embed_proj_dim", missing=hidden, null=hidden)
    narrow = None if width == hidden else width
    embedding = {
        "vocab": vocab,
        "width": narrow,
        "max_positions": keys.size("max_position_embeddings", missing=2048),
        "positions": "learned",
        "position_offset": 2,
    }
    final = before and not keys.flag("_remove_final_layer_norm", False)
    return {
        "family": "opt",
        "hidden": hidden,
        "stacks": [stack("decoder", embedding, [layer] * layers, final_norm=final)],
        "norm": "layernorm",
        "norm_affine": keys.flag("layer_norm_elementwise_affine", True),
        **heads.of_decoder(keys, vocab, tied=True, width=narrow),
    }
