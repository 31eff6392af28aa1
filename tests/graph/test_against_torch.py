"""Oracle: the torch model of the executor, on the meta device.

Parameters must be equal, FLOPs must be what FlopCounterMode counts (attention by the usual
formula, because the counter knows no CPU attention kernel). Saved bytes: test_saved_bytes.py.
"""

from typing import Any

import pytest

from planner.graph import counts, transformer
from planner.graph.view import RankView
from planner.spec import catalog, runnable
from planner.spec.model import ModelSpec
from tests.examples import gpt2_like, llama_like

torch = pytest.importorskip("torch")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from executor.transformer.model import meta_model  # noqa: E402

MODELS = [
    gpt2_like(),
    gpt2_like(tied_embeddings=False, attention_bias=False, output_bias=False),
    llama_like(),
    llama_like(kv_heads=8),
    llama_like(gated=False, activation="gelu", mlp_bias=True, hidden=40, head_dim=6),
    llama_like(norm="layernorm", positions="learned", tied_embeddings=True),
]


def runnable_models() -> list[str]:
    """The catalog models that the executor can build."""
    known = catalog.list_models()
    found = [name for name in known if not list(runnable.problems(catalog.find_model(name), 16))]
    some = {"gpt2", "llama3.1-8b", "qwen3-8b", "bert-large", "t5-11b", "gpt-neox-20b"}
    assert some <= set(found) < set(known)
    return found


@pytest.mark.parametrize("name", runnable_models())
def test_catalog_parameters_equal_torch(name: str) -> None:
    spec = catalog.find_model(name)
    made = meta_model(spec, 16)
    assert sum(p.numel() for p in made.parameters()) == counts.parameters(spec)


@pytest.mark.parametrize("spec", MODELS)
def test_parameters_equal_torch(spec: ModelSpec) -> None:
    assert sum(p.numel() for p in meta_model(spec, 16).parameters()) == counts.parameters(spec)


def attention_forward(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    batch, heads, seq, width = q
    return 4 * batch * heads * seq * k[2] * width


def attention_backward(grad: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return attention_forward(q, k, v) * 5 // 2


CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
}


@pytest.mark.parametrize("spec", MODELS)
def test_flops_equal_the_counter(spec: ModelSpec) -> None:
    batch, seq = 2, 16
    model = meta_model(spec, seq).to_empty(device="cpu")
    tokens = torch.zeros(batch, seq, dtype=torch.long)
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as forward:
        loss = model(tokens, tokens)
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as backward:
        loss.backward()
    graph = transformer.operators(transformer.model_graph(spec, RankView(batch, seq)))
    assert forward.get_total_flops() == sum(op.forward_flops for op in graph)
    assert forward.get_total_flops() == counts.forward_flops(spec, batch, seq)
    assert backward.get_total_flops() == sum(op.backward_flops for op in graph)
