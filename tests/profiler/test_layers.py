"""The layers that are timed are the layers that are trained."""

import pytest
import torch

from executor.transformer.layer import Layer
from executor.transformer.rotary import Rotary
from planner.spec.model import ModelSpec
from profiler import layers
from tests.examples import gpt2_like, llama_like, with_attention

SEQ_LEN = 16


@pytest.mark.parametrize(
    "spec",
    [
        gpt2_like(norm_affine=False),
        llama_like(),
        with_attention(llama_like(head_dim=8), rotary_dim=4, qk_norm=True, q_bias=True),
    ],
)
def test_a_timed_layer_computes_what_the_executor_does(spec: ModelSpec) -> None:
    trained, timed = Layer(spec, spec.layer).double(), layers.Layer(spec).double()
    weights = {
        name.removeprefix("attention.").removeprefix("mlp."): value
        for name, value in trained.state_dict().items()
    }
    timed.load_state_dict(weights)
    rotary = Rotary(spec.layer.attention, SEQ_LEN).double()
    rotary.fill()
    x = torch.randn(2, SEQ_LEN, spec.hidden, dtype=torch.float64)
    expected = trained(x, rotary if spec.layer.attention.rotary_dim else None)
    assert torch.allclose(timed(x, rotary.cos, rotary.sin), expected, rtol=1e-12)
