"""T5, BART, Marian and Whisper as ModelSpec."""

import pytest

from tests.spec.huggingface.configs import (
    BART,
    MARIAN,
    T5,
    WHISPER,
    name_of,
    read,
    refused,
    without,
)


@pytest.mark.parametrize("data", [T5, BART, MARIAN, WHISPER], ids=name_of)
def test_an_encoder_and_a_decoder_that_reads_it(data):
    encoder, decoder = read(data).stacks
    assert (encoder.name, decoder.name) == ("encoder", "decoder")
    (reads,), (writes,) = encoder.kinds, decoder.kinds
    assert not reads.attention.causal
    assert writes.attention.causal
    assert reads.cross_attention is None
    assert not writes.cross_attention.causal
    assert writes.cross_attention.key_width == writes.attention.key_width


def test_t5_and_its_defaults():
    model = read(T5)
    assert [len(stack.order) for stack in model.stacks] == [2, 2]
    attention = model.stacks[1].kinds[0].attention
    assert (attention.heads, attention.head_dim, attention.query_width) == (3, 64, 192)
    assert attention.relative_buckets == 32
    assert model.stacks[1].kinds[0].cross_attention.relative_buckets == 0
    assert not attention.q_bias
    assert (model.norm, model.norm_eps) == ("rmsnorm", 1e-6)
    assert all(stack.final_norm for stack in model.stacks)
    assert model.stacks[1].embedding.shared_table
    assert model.stacks[0].embedding.positions == "none"
    assert model.tied_embeddings


def test_t5_switches():
    model = read(T5, num_decoder_layers=5, d_kv=7)
    assert [len(stack.order) for stack in model.stacks] == [2, 5]
    assert model.main.kinds[0].attention.head_dim == 7
    assert read(T5, num_decoder_layers=None) == read(T5)
    assert not read(T5, tie_word_embeddings=False).tied_embeddings
    assert "is_decoder: True is not supported" in refused(T5, is_decoder=True)


def test_t5_by_its_other_spellings():
    keys = {"num_layers": "num_hidden_layers", "num_heads": "num_attention_heads"}
    keys["d_model"] = "hidden_size"
    other = {keys.get(key, key): value for key, value in T5.items()}
    assert read(other) == read(T5)


@pytest.mark.parametrize(
    ("theirs", "gated", "activation"),
    [
        ("relu", False, "relu"),
        ("gelu", False, "gelu"),
        ("gated-gelu", True, "gelu_tanh"),
        ("gated-silu", True, "silu"),
    ],
)
def test_the_feed_forward_part_of_t5(theirs, gated, activation):
    feed = read(T5, feed_forward_proj=theirs).main.kinds[0].feed_forward
    assert (feed.gated, feed.activation, feed.bias) == (gated, activation, False)


@pytest.mark.parametrize("value", ["gated-", "tanh", "gated-tanh", None, 3])
def test_an_unknown_feed_forward_part_is_refused(value):
    assert "feed_forward_proj: " in refused(T5, feed_forward_proj=value)


@pytest.mark.parametrize("data", [BART, MARIAN, WHISPER], ids=name_of)
def test_two_sides_of_their_own_sizes(data):
    encoder, decoder = read(data).stacks
    assert [len(encoder.order), len(decoder.order)] == [2, 3]
    assert [encoder.kinds[0].attention.heads, decoder.kinds[0].attention.heads] == [4, 8]
    assert decoder.kinds[0].cross_attention.heads == 8
    assert [encoder.kinds[0].feed_forward.ffn, decoder.kinds[0].feed_forward.ffn] == [32, 48]


def test_bart():
    model = read(BART)
    table = model.stacks[0].embedding
    assert (table.positions, table.position_rows, table.norm) == ("learned", 1026, True)
    assert model.stacks[1].embedding.shared_table
    assert all(stack.kinds[0].placement == "post" for stack in model.stacks)
    assert not any(stack.final_norm for stack in model.stacks)
    assert model.tied_embeddings


def test_marian():
    model = read(MARIAN)
    table = model.stacks[0].embedding
    assert (table.positions, table.position_rows, table.norm) == ("frozen", 1024, False)
    assert model.stacks[1].embedding.shared_table
    assert not any(stack.final_norm for stack in model.stacks)


def test_marian_with_two_vocabularies():
    two = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 70}
    model = read(MARIAN, **two)
    assert [stack.embedding.vocab for stack in model.stacks] == [100, 70]
    assert not model.stacks[1].embedding.shared_table
    assert model.head.classes == 70
    assert model.tied_embeddings
    assert not read(MARIAN, **two, tie_word_embeddings=False).tied_embeddings
    assert read(MARIAN, decoder_vocab_size=70).head.classes == 100


@pytest.mark.parametrize("data", [BART, MARIAN], ids=name_of)
def test_a_shared_table_without_a_tied_head_is_refused(data):
    message = refused(data, tie_word_embeddings=False)
    assert "tie_word_embeddings: false is not supported for shared tables; set it to" in message


def test_whisper():
    model = read(WHISPER, num_mel_bins=20)
    sound, words = (stack.embedding for stack in model.stacks)
    first, second = sound.convolutions
    assert (first.channels, first.kernel, first.stride, first.activated) == (20, 3, 1, True)
    assert (second.channels, second.kernel, second.stride, second.activated) == (64, 3, 2, True)
    assert (sound.positions, sound.position_rows, sound.vocab) == ("frozen", 1500, None)
    assert (words.positions, words.position_rows) == ("learned", 448)
    assert not words.shared_table
    attention = model.main.kinds[0].cross_attention
    assert (attention.q_bias, attention.k_bias, attention.v_bias) == (True, False, True)
    assert attention.o_bias
    assert all(stack.kinds[0].placement == "pre" for stack in model.stacks)
    assert all(stack.final_norm for stack in model.stacks)
    assert not read(WHISPER, tie_word_embeddings=False).tied_embeddings


def test_heads_of_either_side_must_divide():
    message = refused(without(BART, "d_model"), d_model=12)
    assert "decoder_attention_heads: missing, and hidden 12 is no multiple of heads 8" in message
