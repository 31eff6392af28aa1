"""Which layers see a window, family by family."""

import pytest

from tests.spec.huggingface.configs import (
    GEMMA2,
    MISTRAL,
    MIXTRAL,
    PHI3,
    QWEN2,
    QWEN2_MOE,
    QWEN3,
    QWEN3_MOE,
    name_of,
    read,
    refused,
)

FULL, SLIDING = "full_attention", "sliding_attention"
USED = {"use_sliding_window": True, "sliding_window": 16, "num_hidden_layers": 4}


def windows(data: dict, **changes: object) -> list[int | None]:
    stack = read(data, **changes).main
    return [stack.kinds[kind].attention.window for kind in stack.order]


@pytest.mark.parametrize(("data", "missing"), [(MISTRAL, 4096), (MIXTRAL, None), (PHI3, None)])
def test_one_window_for_all_layers(data, missing):
    assert windows(data) == [missing] * 2
    assert windows(data, sliding_window=16) == [16] * 2
    assert windows(data, sliding_window=None) == [None] * 2


@pytest.mark.parametrize("data", [QWEN2, QWEN3, QWEN2_MOE, QWEN3_MOE], ids=name_of)
def test_a_window_that_is_switched_off_says_nothing(data):
    assert windows(data) == [None] * 2
    assert windows(data, use_sliding_window=False, sliding_window=16) == [None] * 2
    assert windows(data, sliding_window=16, layer_types=[SLIDING, FULL]) == [None] * 2


@pytest.mark.parametrize("data", [QWEN2, QWEN3], ids=name_of)
def test_qwen_slides_from_max_window_layers_on(data):
    assert windows(data, **USED, max_window_layers=3) == [None, None, None, 16]
    assert windows(data, **USED, max_window_layers=0) == [16] * 4
    assert windows(data, **USED) == [None] * 4


def test_qwen2_moe_slides_on_each_second_layer_before_max_window_layers():
    assert windows(QWEN2_MOE, **USED) == [16, None, 16, None]
    assert windows(QWEN2_MOE, **USED, max_window_layers=2) == [16, None, None, None]


def test_qwen3_moe_slides_everywhere():
    assert windows(QWEN3_MOE, **USED, max_window_layers=3) == [16] * 4


@pytest.mark.parametrize("data", [QWEN2, QWEN3, QWEN2_MOE], ids=name_of)
def test_layer_types_say_it_one_by_one(data):
    types = [SLIDING, FULL, FULL, SLIDING]
    assert windows(data, **USED, layer_types=types) == [16, None, None, 16]
    assert windows(data, **USED, layer_types=["attention", *types[1:]]) == [None, None, None, 16]


def test_layer_types_of_gemma2():
    assert windows(GEMMA2, layer_types=[FULL, FULL, FULL, SLIDING]) == [None] * 3 + [4096]
    assert windows(GEMMA2, sliding_window=None) == [None] * 4


def test_layer_types_that_are_not_known_or_do_not_fit_are_refused():
    message = refused(GEMMA2, layer_types=["linear_attention"] * 4)
    assert "layer_types: 'linear_attention' is not supported; full_attention and" in message
    assert "layer_types: [1] is not supported" in refused(GEMMA2, layer_types=[[1]] * 4)
    assert "layer_types: names 1 layers of 4" in refused(GEMMA2, layer_types=[FULL])
    assert "layer_types: 'x' is not a list" in refused(GEMMA2, layer_types="x")
