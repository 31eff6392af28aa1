"""Encoder-only families: BERT, RoBERTa and ViT.

| field         | bert                         | roberta                 | vit                     |
|---------------|------------------------------|-------------------------|-------------------------|
| sizes         | num_hidden_layers, hidden_size, num_attention_heads, intermediate_size           |
| vocab         | vocab_size                   | vocab_size              | none: num_channels (3)  |
|               |                              |                         | patches of patch_size   |
|               |                              |                         | (16) of image_size (224)|
| max_positions | max_position_embeddings: 512 | the same, less the rows | patches + 1             |
|               |                              | up to pad_token_id (1)  |                         |
| token_types   | type_vocab_size: 2           | the same                | none                    |
| norms         | after; one over the embedding                          | before; a final one     |
| norm_eps      | layer_norm_eps: 1e-12                                                            |
| biases        | everywhere                                             | qkv_bias: true; the     |
|               |                                                        | others always           |
| activation    | hidden_act: gelu                                                                 |
| tied          | tie_word_embeddings: true                              |                         |

RoBERTa counts positions from pad_token_id + 1 on, so the first rows of its table stand for no
position. An untied masked language model has one bias here; transformers 5 keeps a second one
that computes nothing.
Source: configuration and modeling files of transformers 5.23.0.
"""

from planner.spec.huggingface import heads
from planner.spec.huggingface.keys import Keys
from planner.spec.huggingface.layers import Fields, mlp, multi_head, stack


def bert(keys: Keys) -> Fields:
    """BERT: norms after, two tables besides the tokens'."""
    longest = keys.size("max_position_embeddings", missing=512)
    return _text(keys, "bert", longest, offset=0)


def roberta(keys: Keys) -> Fields:
    """RoBERTa: BERT with positions that start after the padding's."""
    rows = keys.size("max_position_embeddings", missing=512)
    offset = keys.size("pad_token_id", missing=1, least=0) + 1
    if rows <= offset:
        keys.contradict(
            "max_position_embeddings", f"{rows} rows, and the first {offset} are no use"
        )
    return _text(keys, "roberta", rows - offset, offset)


def _text(keys: Keys, family: str, longest: int, offset: int) -> Fields:
    for key in ("is_decoder", "add_cross_attention"):
        keys.absent(key, f"{family} is read as an encoder")
    vocab = keys.size("vocab_size")
    embedding = {
        "vocab": vocab,
        "max_positions": longest,
        "positions": "learned",
        "position_offset": offset,
        "token_types": keys.size("type_vocab_size", missing=2),
        "norm": True,
    }
    head = heads.of_encoder(keys, vocab)
    return _encoder(keys, family, embedding, head, placement="post", qkv=True)


def vit(keys: Keys) -> Fields:
    """ViT: patches of an image, a class token in front."""
    patches, area = _patches(keys)
    embedding = {
        "max_positions": patches + 1,
        "positions": "learned",
        "convolutions": [{"channels": keys.size("num_channels", missing=3), "kernel": area}],
        "class_token": True,
    }
    hidden = keys.size("hidden_size")
    head = heads.of_images(keys)
    if keys.size("pooler_output_size", missing=hidden, null=hidden) != hidden:
        keys.contradict("pooler_output_size", f"only hidden_size, {hidden}, is supported")
    qkv = keys.flag("qkv_bias", True)
    return _encoder(keys, "vit", embedding, head, placement="pre", qkv=qkv)


def _patches(keys: Keys) -> tuple[int, int]:
    (height, width), (rows, columns) = _pair(keys, "image_size", 224), _pair(keys, "patch_size", 16)
    if rows > height or columns > width:
        keys.contradict(
            "patch_size", f"{rows} x {columns} is more than the image, {height} x {width}"
        )
        return 1, 1
    return (height // rows) * (width // columns), rows * columns


def _pair(keys: Keys, key: str, missing: int) -> tuple[int, int]:
    value = keys.data.get(key)
    if not isinstance(value, list | tuple):
        side = keys.size(key, missing=missing)
        return side, side
    if len(value) != 2:
        keys.refuse(key, f"{value!r} is neither a side nor [height, width]")
        return 1, 1
    sides = Keys({key: value[0]}, keys.where), Keys({key: value[1]}, keys.where)
    height, width = (side.size(key) for side in sides)
    keys.problems += [problem for side in sides for problem in side.problems]
    return height, width


def _encoder(
    keys: Keys, family: str, embedding: Fields, head: Fields, *, placement: str, qkv: bool
) -> Fields:
    hidden, count = keys.size("hidden_size"), keys.size("num_attention_heads")
    head_dim = keys.share("num_attention_heads", hidden, count)
    attention = multi_head(count, head_dim, bias=qkv, causal=False) | {"o_bias": True}
    activation = keys.activation("hidden_act", "gelu")
    layer = {
        "attention": attention,
        "feed_forward": mlp(keys.size("intermediate_size"), activation, gated=False, bias=True),
        "placement": placement,
    }
    layers = [layer] * keys.layers("num_hidden_layers")
    return {
        "family": family,
        "hidden": hidden,
        "stacks": [stack("encoder", embedding, layers, final_norm=placement == "pre")],
        "norm": "layernorm",
        "norm_eps": keys.number("layer_norm_eps", 1e-12),
        **head,
    }
