"""BERT, RoBERTa and ViT as ModelSpec."""

import pytest

from tests.spec.huggingface.configs import BERT, ROBERTA, VIT, name_of, read, refused


@pytest.mark.parametrize("data", [BERT, ROBERTA], ids=name_of)
def test_text_encoders(data):
    model = read(data)
    assert model.main.name == "encoder"
    assert model.layer.placement == "post"
    assert not model.main.final_norm
    assert model.main.embedding.norm
    assert model.main.embedding.token_types == 2
    attention = model.layer.attention
    assert not attention.causal
    assert attention.q_bias
    assert attention.o_bias
    assert model.layer.feed_forward.bias
    assert model.norm_eps == 1e-12


def test_positions_of_bert_start_at_the_first_row():
    table = read(BERT).main.embedding
    assert (table.max_positions, table.position_offset, table.position_rows) == (512, 0, 512)


def test_positions_of_roberta_start_after_the_padding():
    table = read(ROBERTA, max_position_embeddings=514).main.embedding
    assert (table.max_positions, table.position_offset, table.position_rows) == (512, 2, 514)
    table = read(ROBERTA, max_position_embeddings=514, pad_token_id=0).main.embedding
    assert (table.max_positions, table.position_rows) == (513, 514)
    message = refused(ROBERTA, max_position_embeddings=2)
    assert "max_position_embeddings: 2 rows, and the first 2 are no use" in message


@pytest.mark.parametrize("data", [BERT, ROBERTA], ids=name_of)
@pytest.mark.parametrize("key", ["is_decoder", "add_cross_attention"])
def test_decoders_of_encoder_families_are_refused(data, key):
    assert read(data, **{key: False}) == read(data)
    message = refused(data, **{key: True})
    assert f"{key}: True is not supported" in message
    assert "read as an encoder" in message


def test_vit():
    model = read(VIT)
    table = model.main.embedding
    assert (table.max_positions, table.position_rows) == (197, 197)
    assert table.class_token
    assert [(c.channels, c.kernel, c.activated) for c in table.convolutions] == [(3, 256, False)]
    assert table.vocab is None
    assert model.layer.placement == "pre"
    assert model.main.final_norm
    assert not model.layer.attention.causal


def test_images_and_patches_that_are_not_square():
    table = read(VIT, image_size=[32, 48], patch_size=[8, 16], num_channels=1).main.embedding
    assert table.max_positions == 4 * 3 + 1
    assert (table.convolutions[0].channels, table.convolutions[0].kernel) == (1, 128)
    assert read(VIT, image_size=230).main.embedding.max_positions == 197


def test_vit_biases():
    attention = read(VIT, qkv_bias=False).layer.attention
    assert not attention.q_bias
    assert attention.o_bias


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"patch_size": 300}, "patch_size: 300 x 300 is more than the image, 224 x 224"),
        ({"image_size": [1, 2, 3]}, "image_size: [1, 2, 3] is neither a side nor [height, width]"),
        ({"image_size": [0, 224]}, "image_size: 0 is not a whole number from 1 on"),
        ({"image_size": "224"}, "image_size: '224' is not a whole number"),
        ({"pooler_output_size": 8}, "pooler_output_size: only hidden_size, 64, is supported"),
    ],
)
def test_images_that_cannot_be_read_are_refused(changes, said):
    assert said in refused(VIT, **changes)
