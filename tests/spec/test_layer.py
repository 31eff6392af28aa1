"""LayerSpec: heads, experts and norms that fit together."""

import pydantic
import pytest
from hypothesis import given

from planner.spec.layer import MLP, Attention, Experts, Latent, LayerSpec
from tests.spec.models import attentions

ATTENTION = Attention(heads=8, kv_heads=2, head_dim=6, value_dim=5)
EXPERT = MLP(ffn=4, gated=True, activation="silu")
CROSS = Attention(heads=1, kv_heads=1, head_dim=2, latent=Latent(kv_rank=1))
LAYER = LayerSpec(attention=ATTENTION, feed_forward=EXPERT)


def test_widths_of_the_projections():
    assert (ATTENTION.query_width, ATTENTION.key_width) == (48, 12)
    assert (ATTENTION.value_width, ATTENTION.output_width) == (10, 40)
    plain = ATTENTION.replace(value_dim=None)
    assert (plain.value_head, plain.value_width, plain.output_width) == (6, 12, 48)


@given(attentions())
def test_as_many_query_as_key_columns_per_head(attention):
    assert attention.query_width * attention.kv_heads == attention.key_width * attention.heads
    assert attention.output_width * attention.kv_heads == attention.value_width * attention.heads


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kv_heads": 3}, "heads=8 is not a multiple of kv_heads=3"),
        ({"rotary_dim": 3}, "rotary_dim=3 is odd; rotary positions need pairs"),
        ({"rotary_dim": 8}, "rotary_dim=8 is more than head_dim=6"),
        ({"head_dim": 0}, "greater than or equal to 1"),
        ({"window": 0}, "greater than or equal to 1"),
        ({"latent": Latent(kv_rank=2)}, "latent attention needs kv_heads=2 equal to heads=8"),
        (
            {"latent": Latent(kv_rank=2), "kv_heads": 8, "rotary_dim": 6},
            "rotary_dim=6 below head_dim=6",
        ),
    ],
)
def test_attention_that_cannot_be_built_is_refused(changes, said):
    with pytest.raises(pydantic.ValidationError, match=said):
        ATTENTION.replace(**changes)


def test_heads_without_rotary_positions_need_no_pairs():
    assert ATTENTION.replace(head_dim=127).head_dim == 127


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"per_token": 5}, "per_token=5 is more than experts=4"),
        ({"shared_gate": True}, "shared_gate=true scales a shared MLP, and there is none"),
    ],
)
def test_experts_that_cannot_be_built_are_refused(changes, said):
    experts = Experts(experts=4, per_token=2, expert=EXPERT)
    assert experts.replace(shared=EXPERT, shared_gate=True).shared == EXPERT
    with pytest.raises(pydantic.ValidationError, match=said):
        experts.replace(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"parallel": True, "placement": "post"}, "parallel=true needs placement=pre"),
        ({"parallel": True, "cross_attention": ATTENTION}, "and no cross_attention"),
        ({"cross_attention": ATTENTION, "placement": "sandwich"}, "without cross_attention only"),
        ({"cross_attention": CROSS}, "for attention to the own stream only"),
        ({"feed_forward": {**dict(EXPERT), "activation": "tanh"}}, "gelu_tanh"),
    ],
)
def test_layers_that_cannot_be_built_are_refused(changes, said):
    assert LAYER.replace(parallel=True).parallel
    with pytest.raises(pydantic.ValidationError, match=said):
        LAYER.replace(**changes)
