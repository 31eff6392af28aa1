"""ModelSpec: heads that fit together."""

import pydantic
import pytest

from planner.spec import catalog

LLAMA = catalog.find_model("llama3.1-8b")


def test_widths_of_the_projections():
    assert LLAMA.query_width == 4096
    assert LLAMA.kv_width == 1024
    assert LLAMA.replace(head_dim=256).query_width == 8192


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kv_heads": 3}, "heads=32 is not a multiple of kv_heads=3"),
        ({"head_dim": 127}, "head_dim=127 is odd"),
        ({"vocab": 1}, "greater than or equal to 2"),
        ({"sliding_window": 0}, "greater than or equal to 1"),
        ({"activation": "tanh"}, "gelu_tanh"),
    ],
)
def test_models_that_cannot_be_built_are_refused(changes, said):
    with pytest.raises(pydantic.ValidationError, match=said):
        LLAMA.replace(**changes)


def test_learned_positions_need_no_pairs():
    assert LLAMA.replace(head_dim=127, positions="learned").head_dim == 127
