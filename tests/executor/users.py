"""Users' files: small modules of every family, as a user would build them, without dropout.

RMS norms of transformers compute in fp32 whatever the format of the weights, so that sums in
another order end in other roundings; in their place stand torch's own, of the same formula.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

LLAMA = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
}
BERT = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def gpt2(**changes: Any) -> nn.Module:
    sizes = {"vocab_size": 97, "n_positions": 64, "n_embd": 32, "n_layer": 4, "n_head": 4}
    rates = dict.fromkeys(("attn_pdrop", "resid_pdrop", "embd_pdrop"), 0.0)
    return _made(GPT2LMHeadModel, GPT2Config(**(sizes | rates | changes)))


def llama() -> nn.Module:
    return _made(LlamaForCausalLM, LlamaConfig(**LLAMA))


def qwen2() -> nn.Module:
    return _made(Qwen2ForCausalLM, Qwen2Config(**LLAMA, tie_word_embeddings=True))


def bert_masked() -> nn.Module:
    return _made(BertForMaskedLM, BertConfig(**BERT))


def bert_tokens() -> nn.Module:
    return _made(BertForTokenClassification, BertConfig(**BERT, num_labels=5))


def bert_sequences() -> nn.Module:
    return _made(BertForSequenceClassification, BertConfig(**BERT, num_labels=3))


def t5(**changes: Any) -> nn.Module:
    sizes = {"vocab_size": 97, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2}
    more = {"num_heads": 4, "relative_attention_num_buckets": 8, "dropout_rate": 0.0}
    return _made(T5ForConditionalGeneration, T5Config(**(sizes | more | changes)))


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    each.__name__: each for each in (gpt2, llama, qwen2, bert_masked, bert_tokens, bert_sequences)
}
BUILDERS["t5"] = t5


def _made(kind: Any, config: Any) -> nn.Module:
    torch.manual_seed(0)
    model = kind._from_config(config, attn_implementation="sdpa")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    _replace_norms(model)
    return model


def _replace_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if type(child).__name__ in ("LlamaRMSNorm", "Qwen2RMSNorm", "T5LayerNorm"):
            made = nn.RMSNorm(len(child.weight), eps=child.variance_epsilon)
            made.weight = child.weight
            setattr(module, name, made)
        else:
            _replace_norms(child)
