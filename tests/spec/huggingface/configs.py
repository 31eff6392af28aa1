"""The smallest config.json of every family: the sizes without which nothing can be said."""

import pytest

from planner.spec.documents import InputError
from planner.spec.huggingface import read_config
from planner.spec.model import ModelSpec

LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_attention_heads": 8,
    "vocab_size": 100,
}
ROUTED = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
SIDES = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 48,
    "vocab_size": 100,
}


def llama_like(model_type: str, **changes: object) -> dict[str, object]:
    return {**LLAMA, "model_type": model_type, **changes}


GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_embd": 64, "n_head": 4, "vocab_size": 100}
GPT_NEOX = llama_like("gpt_neox")
OPT = {
    "model_type": "opt",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "ffn_dim": 96,
    "num_attention_heads": 8,
    "vocab_size": 100,
}
MISTRAL = llama_like("mistral")
QWEN2 = llama_like("qwen2", num_attention_heads=32)
QWEN3 = llama_like("qwen3", num_attention_heads=32)
GEMMA = llama_like("gemma", num_attention_heads=16)
GEMMA2 = llama_like("gemma2", num_hidden_layers=4)
GEMMA3 = llama_like("gemma3_text", num_hidden_layers=7)
PHI3 = llama_like("phi3")
MIXTRAL = llama_like("mixtral", num_local_experts=4, num_experts_per_tok=2)
QWEN2_MOE = llama_like(
    "qwen2_moe",
    num_attention_heads=16,
    num_experts=6,
    shared_expert_intermediate_size=40,
    **ROUTED,
)
QWEN3_MOE = llama_like("qwen3_moe", num_experts=6, **ROUTED)
DEEPSEEK = llama_like(
    "deepseek_v3",
    num_hidden_layers=5,
    n_routed_experts=6,
    q_lora_rank=20,
    kv_lora_rank=10,
    qk_nope_head_dim=7,
    qk_rope_head_dim=4,
    v_head_dim=9,
    **ROUTED,
)
GPT_OSS = llama_like("gpt_oss", num_local_experts=6, num_experts_per_tok=2)
BERT = llama_like("bert")
ROBERTA = llama_like("roberta")
VIT = {key: value for key, value in llama_like("vit").items() if key != "vocab_size"}
T5 = {
    "model_type": "t5",
    "num_layers": 2,
    "d_model": 64,
    "d_ff": 96,
    "num_heads": 3,
    "vocab_size": 100,
}
BART = {"model_type": "bart", **SIDES}
MARIAN = {"model_type": "marian", **SIDES}
WHISPER = {"model_type": "whisper", **SIDES}
ALL = [
    GPT2,
    GPT_NEOX,
    OPT,
    LLAMA,
    MISTRAL,
    QWEN2,
    QWEN3,
    GEMMA,
    GEMMA2,
    GEMMA3,
    PHI3,
    MIXTRAL,
    QWEN2_MOE,
    QWEN3_MOE,
    DEEPSEEK,
    GPT_OSS,
    BERT,
    ROBERTA,
    VIT,
    T5,
    BART,
    MARIAN,
    WHISPER,
]
DECODERS = ALL[:16]


def name_of(data: object) -> str:
    return str(data["model_type"]) if isinstance(data, dict) else str(data)


def read(data: dict, **changes: object) -> ModelSpec:
    return read_config({**data, **changes}, "a/config.json", "a")


def refused(data: dict, **changes: object) -> str:
    with pytest.raises(InputError) as caught:
        read(data, **changes)
    return str(caught.value)


def without(data: dict, *keys: str) -> dict:
    return {key: value for key, value in data.items() if key not in keys}
