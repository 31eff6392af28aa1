"""Small valid configurations of every family, drawn at random, as keyword arguments of the
transformers config classes, with the name of the model class.

Odd sizes are wanted: heads that are no powers of two, tables narrower than the stream, one layer.
"""

from typing import Any

from hypothesis import strategies as st

Draw = Any
Kwargs = dict[str, Any]
flag = st.booleans()
small = st.integers(1, 3)
odd = st.integers(1, 9)
even = st.sampled_from([2, 4, 6, 10, 14])
wide = st.integers(3, 40)
vocab = st.integers(7, 60)
gates = st.sampled_from(["silu", "gelu", "relu"])
acts = st.sampled_from(["gelu", "gelu_new", "relu", "silu"])
DECODER_HEADS = ("ForCausalLM", "ForSequenceClassification", "ForTokenClassification", "Model")


def optional(draw: Draw, **choices: st.SearchStrategy) -> Kwargs:
    """Some of the keys, so that the defaults of the classes are met too."""
    return {key: draw(choice) for key, choice in choices.items() if draw(flag)}


def _head(draw: Draw, prefix: str, endings: tuple[str, ...], least: int = 2) -> tuple[str, Kwargs]:
    ending = draw(st.sampled_from(endings))
    labels = {"num_labels": draw(st.integers(least, 5))} if "Classification" in ending else {}
    return prefix + ending, labels


def _rotary(draw: Draw, *, own_width: bool) -> Kwargs:
    """The keys of Llama. own_width: the class knows a head_dim."""
    kv_heads, group, width = draw(small), draw(small), draw(even)
    heads = kv_heads * group
    hidden = heads * width
    free = {"head_dim": draw(even)} if own_width and draw(flag) else {"head_dim": width}
    return {
        "num_hidden_layers": draw(st.integers(1, 4)),
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": draw(wide),
        "vocab_size": draw(vocab),
        "tie_word_embeddings": draw(flag),
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
        **(free if own_width else {}),
        **optional(draw, max_position_embeddings=st.integers(16, 99), rms_norm_eps=st.just(1e-5)),
    }


def _windows(draw: Draw, layers: int) -> Kwargs:
    """Sliding layers; named ones only where windows are switched on, else there is no mask."""
    kinds = st.sampled_from(["full_attention", "sliding_attention"])
    sizes = {"sliding_window": st.integers(1, 20), "max_window_layers": st.integers(0, 4)}
    if not draw(flag):
        return {"use_sliding_window": False} | optional(draw, **sizes)
    named = {"layer_types": st.lists(kinds, min_size=layers, max_size=layers)}
    return {"use_sliding_window": True} | optional(draw, **sizes, **named)


@st.composite
def gpt2(draw: Draw) -> tuple[str, Kwargs]:
    heads, width = draw(small), draw(odd)
    endings = ("LMHeadModel", *DECODER_HEADS[1:], "ForQuestionAnswering")
    name, labels = _head(draw, "GPT2", endings)
    return name, labels | {
        "n_layer": draw(small),
        "n_embd": heads * width,
        "n_head": heads,
        "vocab_size": draw(vocab),
        "bos_token_id": 1,
        "eos_token_id": 1,
        "tie_word_embeddings": draw(flag),
        **optional(
            draw,
            n_inner=st.none() | wide,
            n_positions=st.integers(16, 40),
            activation_function=acts,
        ),
    }


@st.composite
def gpt_neox(draw: Draw) -> tuple[str, Kwargs]:
    heads, width = draw(small), draw(st.sampled_from([8, 24, 40]))
    name, labels = _head(draw, "GPTNeoX", (*DECODER_HEADS, "ForQuestionAnswering"))
    return name, labels | {
        "num_hidden_layers": draw(small),
        "hidden_size": heads * width,
        "num_attention_heads": heads,
        "intermediate_size": draw(wide),
        "vocab_size": draw(vocab),
        **optional(
            draw,
            tie_word_embeddings=flag,
            attention_bias=flag,
            use_parallel_residual=flag,
            hidden_act=acts,
            rotary_pct=st.sampled_from([0.25, 0.5, 1.0]),
            rotary_emb_base=st.sampled_from([5000, 20_000]),
        ),
    }


@st.composite
def opt(draw: Draw) -> tuple[str, Kwargs]:
    heads, width = draw(small), draw(odd)
    name, labels = _head(
        draw, "OPT", ("ForCausalLM", "ForSequenceClassification", "ForQuestionAnswering", "Model")
    )
    return name, labels | {
        "num_hidden_layers": draw(small),
        "hidden_size": heads * width,
        "num_attention_heads": heads,
        "ffn_dim": draw(wide),
        "vocab_size": draw(vocab),
        **optional(
            draw,
            max_position_embeddings=st.integers(16, 40),
            word_embed_proj_dim=odd,
            do_layer_norm_before=flag,
            enable_bias=flag,
            layer_norm_elementwise_affine=flag,
            tie_word_embeddings=flag,
            activation_function=acts,
            _remove_final_layer_norm=flag,
        ),
    }


@st.composite
def llama(draw: Draw) -> tuple[str, Kwargs]:
    name, labels = _head(draw, "Llama", (*DECODER_HEADS, "ForQuestionAnswering"))
    extra = optional(draw, attention_bias=flag, mlp_bias=flag, hidden_act=gates)
    return name, labels | _rotary(draw, own_width=True) | extra


@st.composite
def mistral(draw: Draw) -> tuple[str, Kwargs]:
    name, labels = _head(draw, "Mistral", (*DECODER_HEADS, "ForQuestionAnswering"))
    extra = optional(draw, sliding_window=st.none() | st.integers(1, 20))
    return name, labels | _rotary(draw, own_width=True) | extra


@st.composite
def qwen2(draw: Draw) -> tuple[str, Kwargs]:
    name, labels = _head(draw, "Qwen2", (*DECODER_HEADS, "ForQuestionAnswering"))
    shape = _rotary(draw, own_width=False)
    return name, labels | shape | _windows(draw, shape["num_hidden_layers"])


@st.composite
def qwen3(draw: Draw) -> tuple[str, Kwargs]:
    name, labels = _head(draw, "Qwen3", (*DECODER_HEADS, "ForQuestionAnswering"))
    shape = _rotary(draw, own_width=True)
    extra = optional(draw, attention_bias=flag)
    return name, labels | shape | extra | _windows(draw, shape["num_hidden_layers"])


@st.composite
def gemma(draw: Draw) -> tuple[str, Kwargs]:
    name, labels = _head(draw, "Gemma", DECODER_HEADS)
    return name, labels | _rotary(draw, own_width=True) | optional(draw, attention_bias=flag)


@st.composite
def gemma2(draw: Draw) -> tuple[str, Kwargs]:
    name, labels = _head(draw, "Gemma2", DECODER_HEADS)
    extra = optional(
        draw,
        attention_bias=flag,
        sliding_window=st.integers(1, 20),
        hidden_activation=gates,
        attn_logit_softcapping=st.none() | st.just(20.0),
    )
    return name, labels | _rotary(draw, own_width=True) | extra


@st.composite
def gemma3_text(draw: Draw) -> tuple[str, Kwargs]:
    name = draw(st.sampled_from(["Gemma3ForCausalLM", "Gemma3TextModel"]))
    shape = _rotary(draw, own_width=True)
    kinds = st.sampled_from(["full_attention", "sliding_attention"])
    layers = shape["num_hidden_layers"]
    extra = optional(
        draw,
        attention_bias=flag,
        sliding_window=st.integers(1, 20),
        layer_types=st.lists(kinds, min_size=layers, max_size=layers),
        sliding_window_pattern=st.integers(1, 3),
    )
    return name, shape | extra


@st.composite
def phi3(draw: Draw) -> tuple[str, Kwargs]:
    name, labels = _head(draw, "Phi3", DECODER_HEADS)
    shape = _rotary(draw, own_width=False)
    width = shape["hidden_size"] // shape["num_attention_heads"]
    part = {"partial_rotary_factor": 0.5} if width % 4 == 0 and draw(flag) else {}
    extra = optional(draw, sliding_window=st.none() | st.integers(1, 20))
    return name, labels | shape | part | extra


def _experts(draw: Draw, name: str) -> Kwargs:
    count = draw(st.integers(1, 6))
    return {name: count, "num_experts_per_tok": draw(st.integers(1, count))}


@st.composite
def mixtral(draw: Draw) -> tuple[str, Kwargs]:
    name, labels = _head(draw, "Mixtral", (*DECODER_HEADS, "ForQuestionAnswering"))
    shape = _rotary(draw, own_width=True) | _experts(draw, "num_local_experts")
    return name, labels | shape | optional(draw, sliding_window=st.integers(1, 20))


def _sparse(draw: Draw) -> Kwargs:
    return {
        **_experts(draw, "num_experts"),
        "moe_intermediate_size": draw(wide),
        **optional(
            draw,
            decoder_sparse_step=st.integers(1, 3),
            mlp_only_layers=st.none() | st.lists(st.integers(0, 4), max_size=3),
        ),
    }


@st.composite
def qwen2_moe(draw: Draw) -> tuple[str, Kwargs]:
    name, labels = _head(draw, "Qwen2Moe", (*DECODER_HEADS, "ForQuestionAnswering"))
    shape = _rotary(draw, own_width=False) | _sparse(draw)
    shape["shared_expert_intermediate_size"] = draw(wide)
    extra = optional(draw, qkv_bias=flag)
    return name, labels | shape | extra | _windows(draw, shape["num_hidden_layers"])


@st.composite
def qwen3_moe(draw: Draw) -> tuple[str, Kwargs]:
    name, labels = _head(draw, "Qwen3Moe", (*DECODER_HEADS, "ForQuestionAnswering"))
    shape = _rotary(draw, own_width=True) | _sparse(draw)
    extra = optional(
        draw, attention_bias=flag, use_sliding_window=flag, sliding_window=st.integers(1, 20)
    )
    return name, labels | shape | extra


@st.composite
def gpt_oss(draw: Draw) -> tuple[str, Kwargs]:
    name, labels = _head(draw, "GptOss", DECODER_HEADS)
    shape = _rotary(draw, own_width=True) | _experts(draw, "num_local_experts")
    kinds = st.sampled_from(["full_attention", "sliding_attention"])
    layers = shape["num_hidden_layers"]
    extra = optional(
        draw,
        attention_bias=flag,
        sliding_window=st.integers(1, 20),
        layer_types=st.lists(kinds, min_size=layers, max_size=layers),
    )
    return name, labels | shape | extra


@st.composite
def deepseek_v3(draw: Draw) -> tuple[str, Kwargs]:
    name, labels = _head(draw, "DeepseekV3", DECODER_HEADS)
    shape = _rotary(draw, own_width=False)
    shape["num_key_value_heads"] = shape["num_attention_heads"]
    groups, per_group = draw(small), draw(st.integers(2, 3))
    experts = groups * per_group
    return name, labels | shape | {
        "n_routed_experts": experts,
        "n_group": groups,
        "topk_group": draw(st.integers(1, groups)),
        "num_experts_per_tok": draw(st.integers(1, per_group)),
        "moe_intermediate_size": draw(wide),
        "n_shared_experts": draw(st.integers(1, 2)),
        "first_k_dense_replace": draw(st.integers(0, 3)),
        "q_lora_rank": draw(st.none() | odd),
        "kv_lora_rank": draw(odd),
        "qk_nope_head_dim": draw(odd),
        "qk_rope_head_dim": draw(even),
        "v_head_dim": draw(odd),
        **optional(draw, attention_bias=flag, num_nextn_predict_layers=st.integers(0, 2)),
    }


def _encoder(draw: Draw) -> Kwargs:
    heads, width = draw(small), draw(odd)
    return {
        "num_hidden_layers": draw(small),
        "hidden_size": heads * width,
        "num_attention_heads": heads,
        "intermediate_size": draw(wide),
        **optional(draw, hidden_act=acts),
    }


def _text_encoder(draw: Draw, prefix: str) -> tuple[str, Kwargs]:
    endings = (
        "ForMaskedLM",
        "ForSequenceClassification",
        "ForTokenClassification",
        "ForQuestionAnswering",
        "Model",
    )
    name, labels = _head(draw, prefix, endings)
    extra = optional(
        draw, max_position_embeddings=st.integers(16, 40), type_vocab_size=st.integers(1, 3)
    )
    return name, labels | {"vocab_size": draw(vocab)} | _encoder(draw) | extra


@st.composite
def bert(draw: Draw) -> tuple[str, Kwargs]:
    return _text_encoder(draw, "Bert")


@st.composite
def roberta(draw: Draw) -> tuple[str, Kwargs]:
    name, kwargs = _text_encoder(draw, "Roberta")
    return name, kwargs | optional(draw, pad_token_id=st.integers(0, 3))


@st.composite
def vit(draw: Draw) -> tuple[str, Kwargs]:
    name, labels = _head(draw, "ViT", ("ForImageClassification", "Model"))
    sides = st.sampled_from([8, 12, 17])
    patches = st.sampled_from([2, 3, 4])
    return name, labels | _encoder(draw) | {
        "image_size": draw(sides | st.tuples(sides, sides).map(list)),
        "patch_size": draw(patches | st.tuples(patches, patches).map(list)),
        **optional(draw, num_channels=small, qkv_bias=flag),
    }


@st.composite
def t5(draw: Draw) -> tuple[str, Kwargs]:
    endings = (
        "ForConditionalGeneration",
        "ForSequenceClassification",
        "ForQuestionAnswering",
        "Model",
    )
    name, labels = _head(draw, "T5", endings)
    return name, labels | {
        "vocab_size": draw(vocab),
        "d_model": draw(wide),
        "num_heads": draw(small),
        "d_ff": draw(wide),
        "num_layers": draw(small),
        **optional(
            draw,
            d_kv=odd,
            num_decoder_layers=st.none() | small,
            relative_attention_num_buckets=st.sampled_from([4, 8, 10]),
            feed_forward_proj=st.sampled_from(["relu", "gated-gelu", "gated-silu", "gelu"]),
        ),
    }


def _pair(draw: Draw) -> Kwargs:
    heads = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (3, 1), (3, 3)]))
    return {
        "vocab_size": draw(vocab),
        "d_model": 6 * draw(small),
        "encoder_layers": draw(small),
        "decoder_layers": draw(small),
        "encoder_attention_heads": heads[0],
        "decoder_attention_heads": heads[1],
        "encoder_ffn_dim": draw(wide),
        "decoder_ffn_dim": draw(wide),
        **optional(draw, activation_function=acts),
    }


@st.composite
def bart(draw: Draw) -> tuple[str, Kwargs]:
    endings = (
        "ForConditionalGeneration",
        "ForSequenceClassification",
        "ForQuestionAnswering",
        "Model",
    )
    # transformers writes no id2label for 2 labels and then reads the class default, 3
    name, labels = _head(draw, "Bart", endings, least=3)
    return name, labels | _pair(draw) | optional(draw, max_position_embeddings=st.integers(16, 40))


@st.composite
def marian(draw: Draw) -> tuple[str, Kwargs]:
    tokens = {"pad_token_id": 1, "decoder_start_token_id": 1}
    shared = draw(flag)
    two = {"decoder_vocab_size": draw(vocab), "tie_word_embeddings": draw(flag)}
    return draw(st.sampled_from(["MarianMTModel", "MarianModel"])), {
        **_pair(draw),
        **tokens,
        "share_encoder_decoder_embeddings": shared,
        **({} if shared else two),
        **optional(draw, max_position_embeddings=st.integers(16, 40)),
    }


@st.composite
def whisper(draw: Draw) -> tuple[str, Kwargs]:
    tokens = dict.fromkeys(
        ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1
    )
    name = draw(st.sampled_from(["WhisperForConditionalGeneration", "WhisperModel"]))
    return name, _pair(draw) | tokens | optional(
        draw,
        num_mel_bins=st.integers(1, 9),
        max_source_positions=st.integers(8, 20),
        max_target_positions=st.integers(8, 20),
        tie_word_embeddings=flag,
    )


FAMILIES = {
    make.__name__: make()
    for make in (
        gpt2,
        gpt_neox,
        opt,
        llama,
        mistral,
        qwen2,
        qwen3,
        gemma,
        gemma2,
        gemma3_text,
        phi3,
        mixtral,
        qwen2_moe,
        qwen3_moe,
        deepseek_v3,
        gpt_oss,
        bert,
        roberta,
        vit,
        t5,
        bart,
        marian,
        whisper,
    )
}
