"""ModelSpec: stacks, heads and tables that fit together."""

import pydantic
import pytest
from hypothesis import given

from planner.spec.model import Convolution, Embedding, Head, ModelSpec
from tests.examples import llama_like
from tests.spec.models import models

LLAMA = llama_like()
T5ISH = {
    "name": "pair",
    "family": "t5",
    "hidden": 8,
    "stacks": [
        {
            "name": side,
            "embedding": {"vocab": 20, "max_positions": 16, "shared_table": side == "decoder"},
            "kinds": [
                {
                    "attention": {"heads": 2, "kv_heads": 2, "head_dim": 3},
                    "cross_attention": {"heads": 2, "kv_heads": 2, "head_dim": 3}
                    if side == "decoder"
                    else None,
                    "feed_forward": {"ffn": 9, "gated": False, "activation": "relu"},
                }
            ],
            "order": [0, 0],
        }
        for side in ("encoder", "decoder")
    ],
    "head": {"classes": 20},
    "norm": "rmsnorm",
    "tied_embeddings": True,
}


def refused(**changes: object) -> str:
    with pytest.raises(pydantic.ValidationError) as caught:
        LLAMA.replace(**changes)
    return str(caught.value)


@given(models())
def test_every_layer_has_a_kind(model):
    assert model.layers == len(model.order)
    assert all(model.stacks[i].kinds[kind] for i, kind in model.order)
    assert (model.encoder is None) == (len(model.stacks) == 1)
    assert model.main is model.stacks[-1]
    assert model.max_positions == model.main.embedding.max_positions


@given(models())
def test_a_model_with_one_kind_of_layer_is_uniform(model):
    kinds = sum(len(stack.kinds) for stack in model.stacks)
    assert model.uniform == (kinds == 1)
    if model.uniform:
        assert model.layer == model.main.kinds[0]


def test_a_model_of_several_kinds_has_no_single_layer():
    with pytest.raises(AssertionError, match="pair has several kinds of layers"):
        _ = ModelSpec.model_validate(T5ISH).layer


def test_a_pair():
    model = ModelSpec.model_validate(T5ISH)
    assert model.encoder is model.stacks[0]
    assert model.order == ((0, 0), (0, 0), (1, 0), (1, 0))
    assert model.vocab == 20


def test_stacks_in_the_wrong_order_are_refused():
    turned = {**T5ISH, "stacks": T5ISH["stacks"][::-1]}
    with pytest.raises(pydantic.ValidationError, match="an encoder and then a decoder"):
        ModelSpec.model_validate(turned)


@pytest.mark.parametrize("which", [0, 1])
def test_cross_attention_belongs_to_the_decoder_of_two(which):
    alone = {**T5ISH, "stacks": [T5ISH["stacks"][1]]}
    both = {**T5ISH, "stacks": [T5ISH["stacks"][0], {**T5ISH["stacks"][0], "name": "decoder"}]}
    with pytest.raises(pydantic.ValidationError, match="has cross_attention"):
        ModelSpec.model_validate((alone, both)[which])


def test_the_first_stack_shares_no_table():
    stack = LLAMA.main
    table = stack.embedding.replace(shared_table=True)
    message = refused(stacks=(stack.replace(embedding=table),))
    assert "stacks.0.embedding.shared_table: the first stack has no other table" in message


def test_tied_embeddings_need_equal_tables():
    assert LLAMA.replace(tied_embeddings=True).tied_embeddings
    head = Head(classes=7)
    assert "the table is 96 x 32, the head 7 x 32" in refused(tied_embeddings=True, head=head)
    narrow = Head(classes=96, width=5)
    assert "the head 96 x 5; they must be equal" in refused(tied_embeddings=True, head=narrow)
    table = LLAMA.main.embedding.replace(width=5)
    stacks = (LLAMA.main.replace(embedding=table),)
    assert LLAMA.replace(stacks=stacks, head=narrow, tied_embeddings=True).head.width == 5


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ((0, 1), "kinds \\(0 .. 0\\) and no other"),
        ((), "at least 1 item"),
        ((-1,), "names \\[-1\\]"),
    ],
)
def test_an_order_names_each_kind_and_no_other(order, said):
    with pytest.raises(pydantic.ValidationError, match=said):
        LLAMA.main.replace(order=order)


@pytest.mark.parametrize(("kind", "classes"), [("none", 5), ("language_model", 0)])
def test_classes_go_with_the_kind_of_head(kind, classes):
    with pytest.raises(pydantic.ValidationError, match=f"classes={classes} does not go with"):
        Head(kind=kind, classes=classes)


def test_an_embedding_has_one_source():
    patches = (Convolution(channels=3, kernel=256),)
    assert Embedding(convolutions=patches, max_positions=4).vocab is None
    for wrong in ({}, {"vocab": 5, "convolutions": patches}):
        with pytest.raises(pydantic.ValidationError, match="give either vocab"):
            Embedding(max_positions=4, **wrong)
    with pytest.raises(pydantic.ValidationError, match="there is none"):
        Embedding(max_positions=4, convolutions=patches, width=7)


@pytest.mark.parametrize(("positions", "rows"), [("learned", 12), ("frozen", 12), ("none", 0)])
def test_rows_of_the_position_table(positions, rows):
    table = Embedding(vocab=5, max_positions=10, positions=positions, position_offset=2)
    assert table.position_rows == rows
