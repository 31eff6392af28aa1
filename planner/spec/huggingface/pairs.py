"""Encoder-decoder families: T5, BART, Marian and Whisper.

| field         | t5                           | bart                | marian    | whisper         |
|---------------|------------------------------|---------------------|-----------|-----------------|
| layers        | num_layers;                  | encoder_layers and decoder_layers               |
|               | num_decoder_layers: the same |                                                 |
| hidden        | d_model                      | d_model                                         |
| heads         | num_heads                    | encoder_attention_heads and decoder_...         |
| head_dim      | d_kv: 64                     | d_model / heads                                 |
| ffn           | d_ff                         | encoder_ffn_dim and decoder_ffn_dim             |
| vocab         | vocab_size                   | vocab_size          | the same, | vocab_size      |
|               |                              |                     | decoder_vocab_size          |
| max_positions | n_positions: 512, no table   | max_position_embeddings: 1024   | max_source_...: |
|               |                              |                     |           | 1500; max_      |
|               |                              |                     |           | target_...: 448 |
| positions     | relative_attention_num_      | learned, 2 rows     | frozen    | frozen; learned |
|               | buckets: 32                  | more; a norm        |           |                 |
| norms         | RMS, before; final ones;     | after                           | before; final   |
|               | layer_norm_epsilon: 1e-6     |                                 | ones            |
| activation    | feed_forward_proj: relu      | activation_function: gelu                       |
| biases        | none                         | everywhere                      | not on keys     |
| one table     | always                       | always              | share_encoder_decoder_      |
|               |                              |                     | embeddings: true | (sound)  |
| tied          | tie_word_embeddings: true                                                     |

T5 1.1 and FLAN-T5 say tie_word_embeddings false: the head is a matrix of its own, as in their
published checkpoints (transformers 5.23 ties it regardless when it builds one anew).
BART, and Marian that shares its tables, are refused untied: transformers 4 and 5 do not agree
on what that is.
Source: configuration and modeling files of transformers 5.23.0.
"""

from planner.spec.huggingface import heads
from planner.spec.huggingface.keys import WAY_OUT, Keys
from planner.spec.huggingface.layers import Fields, mlp, multi_head, stack


def t5(keys: Keys) -> Fields:
    """T5: relative positions, RMS norms, no biases; gated from version 1.1 on."""
    keys.absent("is_decoder", "T5 is read as an encoder and a decoder")
    vocab = keys.size("vocab_size")
    count = keys.layers("num_layers", "num_hidden_layers")
    layers = {"encoder": count}
    layers["decoder"] = keys.layers("num_decoder_layers", missing=count, null=count)
    longest = keys.size("n_positions", missing=512)
    return {
        "family": "t5",
        "hidden": keys.size("d_model", "hidden_size"),
        "stacks": [
            stack(
                side,
                {"vocab": vocab, "max_positions": longest, "shared_table": side == "decoder"},
                [_t5_layer(keys, side)] * layers[side],
            )
            for side in ("encoder", "decoder")
        ],
        "norm": "rmsnorm",
        "norm_eps": keys.number("layer_norm_epsilon", 1e-6),
        **heads.of_pair(keys, heads.PAIR, vocab),
    }


def _t5_layer(keys: Keys, side: str) -> Fields:
    count, width = keys.size("num_heads", "num_attention_heads"), keys.size("d_kv", missing=64)
    buckets = keys.size("relative_attention_num_buckets", missing=32)
    decodes = side == "decoder"
    attention = multi_head(count, width, bias=False, causal=decodes, relative_buckets=buckets)
    cross = multi_head(count, width, bias=False, causal=False)
    gated, activation = _t5_activation(keys)
    return {
        "attention": attention,
        "cross_attention": cross if decodes else None,
        "feed_forward": mlp(keys.size("d_ff"), activation, gated=gated),
    }


def _t5_activation(keys: Keys) -> tuple[bool, str]:
    value = keys.data.get("feed_forward_proj", "relu")
    name = value.removeprefix("gated-") if isinstance(value, str) else value
    gated = name != value
    theirs = "gelu_new" if gated and name == "gelu" else name
    return gated, keys.known_activation("feed_forward_proj", theirs, "relu")


def bart(keys: Keys) -> Fields:
    """BART: norms after, learned positions, one table."""
    _tied_only(keys)
    vocab = keys.size("vocab_size")
    embedding = {
        "vocab": vocab,
        "max_positions": keys.size("max_position_embeddings", missing=1024),
        "positions": "learned",
        "position_offset": 2,
        "norm": True,
    }
    embeddings = (embedding, {**embedding, "shared_table": True})
    head = heads.of_pair(keys, heads.PAIR, vocab, count=3)
    return _pair(keys, "bart", embeddings, head, placement="post")


def marian(keys: Keys) -> Fields:
    """Marian: BART with frozen positions, and two vocabularies if wished."""
    vocab = keys.size("vocab_size")
    theirs = keys.size("decoder_vocab_size", missing=vocab, null=vocab)
    shared = keys.flag("share_encoder_decoder_embeddings", True)
    if shared:
        _tied_only(keys)
    longest = keys.size("max_position_embeddings", missing=1024)
    embedding = {"vocab": vocab, "max_positions": longest, "positions": "frozen"}
    target = vocab if shared else theirs
    embeddings = (embedding, {**embedding, "vocab": target, "shared_table": shared})
    head = heads.of_pair(keys, heads.TRANSLATION, target)
    return _pair(keys, "marian", embeddings, head, placement="post")


def whisper(keys: Keys) -> Fields:
    """Whisper: two convolutions over a spectrogram, norms before, keys without bias."""
    vocab, hidden = keys.size("vocab_size"), keys.size("d_model", "hidden_size")
    sound = {
        "max_positions": keys.size("max_source_positions", missing=1500),
        "positions": "frozen",
        "convolutions": [
            {"channels": keys.size("num_mel_bins", missing=80), "kernel": 3, "activated": True},
            {"channels": hidden, "kernel": 3, "stride": 2, "activated": True},
        ],
    }
    longest = keys.size("max_target_positions", missing=448)
    words = {"vocab": vocab, "max_positions": longest, "positions": "learned"}
    head = heads.of_pair(keys, heads.SPEECH, vocab)
    return _pair(keys, "whisper", (sound, words), head, placement="pre", k_bias=False)


def _tied_only(keys: Keys) -> None:
    if not keys.flag("tie_word_embeddings", True):
        keys.refuse(
            "tie_word_embeddings",
            f"false is not supported for shared tables; set it to true, or {WAY_OUT}",
        )


def _pair(
    keys: Keys,
    family: str,
    embeddings: tuple[Fields, Fields],
    head: Fields,
    *,
    placement: str,
    k_bias: bool = True,
) -> Fields:
    hidden = keys.size("d_model", "hidden_size")
    sides = zip(("encoder", "decoder"), embeddings, strict=True)
    return {
        "family": family,
        "hidden": hidden,
        "stacks": [
            stack(
                side,
                embedding,
                [_layer(keys, side, hidden, k_bias) | {"placement": placement}]
                * keys.layers(f"{side}_layers"),
                final_norm=placement == "pre",
            )
            for side, embedding in sides
        ],
        "norm": "layernorm",
        **head,
    }


def _layer(keys: Keys, side: str, hidden: int, k_bias: bool) -> Fields:
    count = keys.size(f"{side}_attention_heads")
    head_dim = keys.share(f"{side}_attention_heads", hidden, count)
    decodes, activation = side == "decoder", keys.activation("activation_function", "gelu")
    attention = multi_head(count, head_dim, bias=True, causal=decodes) | {"k_bias": k_bias}
    return {
        "attention": attention,
        "cross_attention": {**attention, "causal": False} if decodes else None,
        "feed_forward": mlp(keys.size(f"{side}_ffn_dim"), activation, gated=False, bias=True),
    }
