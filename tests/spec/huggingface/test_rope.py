"""Rotary positions in the shapes of transformers 4 and 5."""

import pytest

from tests.spec.huggingface.configs import GPT_NEOX, LLAMA, MIXTRAL, PHI3, read, refused


@pytest.mark.parametrize(
    "shape",
    [
        {"rope_theta": 5e5},
        {"rope_theta": 500_000},
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
        {"rope_parameters": {"full_attention": {"rope_theta": 5e5}}},
        {"rope_parameters": {"rope_type": "default"}, "rope_theta": 5e5},
        {"rope_parameters": None, "rope_theta": 5e5},
        {"rope_parameters": {"rope_theta": 5e5}, "rope_theta": 7},
    ],
)
def test_rope_theta(shape):
    assert read(LLAMA, **shape).layer.attention.rope_theta == 5e5


def test_rope_theta_that_differs_by_layer_is_refused():
    by_layer = {"full": {"rope_theta": 1e6}, "sliding": {"rope_theta": 1e4}}
    assert "rope_theta differs by layer" in refused(LLAMA, rope_parameters=by_layer)


@pytest.mark.parametrize("theta", [True, "1e4", 0, [1.0], None])
def test_rope_theta_is_a_number(theta):
    assert "rope_theta: " in refused(LLAMA, rope_theta=theta)
    assert "rope_theta: " in refused(LLAMA, rope_parameters={"rope_theta": theta})


def test_rope_parameters_are_a_mapping():
    assert "rope_parameters: 7 is not a mapping" in refused(LLAMA, rope_parameters=7)


def test_the_base_of_mixtral_is_its_own():
    assert read(MIXTRAL).layer.attention.rope_theta == 1e6
    assert read(MIXTRAL, rope_theta=1e4).layer.attention.rope_theta == 1e4


@pytest.mark.parametrize(
    "shape",
    [
        {"rotary_pct": 0.5, "rotary_emb_base": 500},
        {"rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 500}},
    ],
)
def test_a_part_of_a_head_rotates_in_gpt_neox(shape):
    attention = read(GPT_NEOX, **shape).layer.attention
    assert (attention.rotary_dim, attention.rope_theta) == (4, 500)


@pytest.mark.parametrize(
    "shape",
    [{"partial_rotary_factor": 0.75}, {"rope_parameters": {"partial_rotary_factor": 0.75}}],
)
def test_a_part_of_a_head_rotates_in_phi3(shape):
    assert read(PHI3, **shape).layer.attention.rotary_dim == 6
    assert read(PHI3).layer.attention.rotary_dim == 8


def test_parts_that_cannot_rotate_are_refused():
    message = refused(GPT_NEOX, rotary_pct=0.4)
    assert "rotary_pct: 0.4 of head_dim 8 is 3 columns; an even number must rotate" in message
    assert "rotary_pct: 1.5 is more than 1" in refused(GPT_NEOX, rotary_pct=1.5)
    assert "is more than 1" in refused(GPT_NEOX, rotary_pct=float("inf"))
    assert "rotary_pct: 0 is not a number above 0" in refused(GPT_NEOX, rotary_pct=0)
