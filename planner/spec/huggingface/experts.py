"""Decoders with mixtures of experts, in the keys of Llama (see llama.py) and their own.

| type        | experts                | width of one          | layers with experts             |
|-------------|------------------------|-----------------------|---------------------------------|
| mixtral     | num_local_experts or   | intermediate_size     | all                             |
|             | num_experts            |                       |                                 |
| qwen2_moe   | num_experts            | moe_intermediate_size | each decoder_sparse_step-th (1),|
|             |                        |                       | none of mlp_only_layers         |
| qwen3_moe   | num_experts or         | moe_intermediate_size | the same                        |
|             | num_local_experts      |                       |                                 |
| deepseek_v3 | n_routed_experts or    | moe_intermediate_size | from first_k_dense_replace (3)  |
|             | num_local_experts      |                       | on                              |
| gpt_oss     | num_local_experts      | intermediate_size     | all                             |

Each token passes num_experts_per_tok of them. Other layers have an MLP of intermediate_size.
qwen2_moe passes every token through a shared
expert of shared_expert_intermediate_size, scaled by a gate; deepseek_v3 through one of
n_shared_experts (1) * moe_intermediate_size.
Class defaults: num_key_value_heads 8 (mixtral), 16 (qwen2_moe), 4 (qwen3_moe); rms_norm_eps 1e-5
(mixtral), 1e-6; rope_theta 1e6 (mixtral), 1e4; max_position_embeddings 131072 (mixtral), 32768,
4096 (deepseek_v3).

deepseek_v3 has latent attention: q_lora_rank (null: a plain query projection), kv_lora_rank,
qk_nope_head_dim + qk_rope_head_dim columns of a query and key head, v_head_dim of a value head.
Its num_nextn_predict_layers (num_mtp_layers) are not built by transformers, so head.mtp_layers
stays 0; to plan their training, save the model and set head.mtp_layers in the document.
The router's correction bias is a buffer, no parameter.

gpt_oss has a bias on every matrix (attention_bias for those of attention), router and experts
included, and a sink per head. Class defaults: num_key_value_heads 8, head_dim 64, rope_theta 1.5e5.
Source: configuration and modeling files of transformers 5.23.0.
"""

from planner.spec.huggingface import rope, windows
from planner.spec.huggingface.keys import WAY_OUT, Keys
from planner.spec.huggingface.layers import Fields, mlp
from planner.spec.huggingface.llama import Shape, decoder, gated, grouped


def mixtral(keys: Keys) -> Fields:
    """Mixtral: experts in every layer."""
    shape = Shape(keys)
    attention = grouped(keys, shape, kv_heads=8, theta=1e6)
    feed_forward = _routed(keys, "num_local_experts", "num_experts", ffn=shape.ffn)
    layers = [
        {"attention": {**attention, "window": window}, "feed_forward": feed_forward}
        for window in windows.everywhere(keys, shape.layers, missing=None)
    ]
    return decoder(keys, "mixtral", shape, layers, max_positions=131_072, norm_eps=1e-5)


def qwen2_moe(keys: Keys) -> Fields:
    """Qwen2-MoE: a gated shared expert beside the routed ones."""
    shape = Shape(keys)
    attention = grouped(keys, shape, kv_heads=16, qkv=keys.flag("qkv_bias", True))
    by_layer = windows.qwen(keys, shape.layers, alternating=True)
    activation = keys.activation("hidden_act", "silu")
    sparse = {
        **_routed(keys, "num_experts", ffn=keys.size("moe_intermediate_size")),
        "shared": mlp(keys.size("shared_expert_intermediate_size"), activation, gated=True),
        "shared_gate": True,
    }
    layers = _dense_or_sparse(keys, shape, attention, sparse, by_layer)
    return decoder(keys, "qwen2_moe", shape, layers, max_positions=32_768)


def qwen3_moe(keys: Keys) -> Fields:
    """Qwen3-MoE: norms over query and key heads, no shared expert."""
    shape = Shape(keys)
    bias = keys.flag("attention_bias", False)
    attention = grouped(keys, shape, kv_heads=4, qkv=bias, output=bias, qk_norm=True)
    by_layer = windows.if_used(keys, shape.layers)
    ffn = keys.size("moe_intermediate_size")
    sparse = _routed(keys, "num_experts", "num_local_experts", ffn=ffn)
    layers = _dense_or_sparse(keys, shape, attention, sparse, by_layer)
    return decoder(keys, "qwen3_moe", shape, layers, max_positions=32_768)


def deepseek_v3(keys: Keys) -> Fields:
    """DeepSeek-V3: latent attention, first dense layers, a shared expert."""
    shape = Shape(keys)
    if keys.size("moe_layer_freq", missing=1) != 1:
        keys.refuse("moe_layer_freq", f"only 1 is supported; {WAY_OUT}")
    attention, ffn = _latent(keys, shape), keys.size("moe_intermediate_size")
    sparse = _routed(keys, "n_routed_experts", "num_local_experts", ffn=ffn)
    if shared := keys.size("n_shared_experts", missing=1, null=0, least=0):
        sparse["shared"] = {**sparse["expert"], "ffn": shared * ffn}
    dense = keys.size("first_k_dense_replace", missing=3, null=0, least=0)
    layers = [
        {"attention": attention, "feed_forward": gated(keys, shape) if i < dense else sparse}
        for i in range(shape.layers)
    ]
    return decoder(keys, "deepseek_v3", shape, layers, max_positions=4096)


def gpt_oss(keys: Keys) -> Fields:
    """gpt-oss: sinks, windows on every second layer, biases on routers and experts."""
    shape = Shape(keys)
    bias = keys.flag("attention_bias", True)
    attention = grouped(
        keys, shape, kv_heads=8, head_dim=64, qkv=bias, output=bias, theta=150_000.0
    )
    expert = mlp(shape.ffn, keys.activation("hidden_act", "silu"), gated=True, bias=True)
    sparse = {
        "experts": keys.size("num_local_experts"),
        "per_token": keys.size("num_experts_per_tok"),
        "expert": expert,
        "router_bias": True,
    }
    layers = [
        {"attention": {**attention, "window": window, "sinks": True}, "feed_forward": sparse}
        for window in windows.alternate(keys, shape.layers, missing=128)
    ]
    return decoder(keys, "gpt_oss", shape, layers, max_positions=131_072, norm_eps=1e-5)


def _routed(keys: Keys, *spellings: str, ffn: int) -> Fields:
    return {
        "experts": keys.size(*spellings),
        "per_token": keys.size("num_experts_per_tok"),
        "expert": mlp(ffn, keys.activation("hidden_act", "silu"), gated=True),
    }


def _dense_or_sparse(
    keys: Keys, shape: Shape, attention: Fields, sparse: Fields, by_layer: list[int | None]
) -> list[Fields]:
    step, dense = keys.size("decoder_sparse_step", missing=1), keys.listed("mlp_only_layers")
    one = gated(keys, shape)
    return [
        {
            "attention": {**attention, "window": window},
            "feed_forward": one if i in dense or (i + 1) % step else sparse,
        }
        for i, window in enumerate(by_layer)
    ]


def _latent(keys: Keys, shape: Shape) -> Fields:
    if keys.size("num_key_value_heads", missing=shape.heads, null=shape.heads) != shape.heads:
        keys.contradict("num_key_value_heads", f"latent attention has one per head, {shape.heads}")
    rotated, bias = keys.size("qk_rope_head_dim"), keys.flag("attention_bias", False)
    if rotated % 2:
        keys.contradict("qk_rope_head_dim", f"{rotated} is odd; rotary positions turn pairs")
    query_rank = keys.size("q_lora_rank", null=0)
    return {
        "heads": shape.heads,
        "kv_heads": shape.heads,
        "head_dim": keys.size("qk_nope_head_dim") + rotated,
        "value_dim": keys.size("v_head_dim"),
        "rotary_dim": rotated,
        "rope_theta": rope.theta(keys),
        "latent": {"query_rank": query_rank or None, "kv_rank": keys.size("kv_lora_rank")},
        "q_bias": bias and bool(query_rank),
        "k_bias": bias,
        "o_bias": bias,
    }
