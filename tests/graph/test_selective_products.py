"""Oracle: torch's own selective checkpointing under the policy that `products` describes.

The policy keeps what attention, reduce-scatters and every second matrix product return. What torch
holds behind the forward and which products its backward runs again must be what the graph says.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)
from torch.utils.flop_counter import FlopCounterMode

from executor.transformer.model import Transformer, meta_model
from planner.graph import recompute, transformer
from planner.graph.operator import Operator
from planner.spec.model import ModelSpec
from tests.examples import llama_like, with_attention
from tests.graph.saved import BATCH, SEQ, held, view

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SPECS = {
    "llama": llama_like(),
    "one-key-head": llama_like(kv_heads=1),
    "qwen3": with_attention(llama_like(head_dim=8), qk_norm=True),
    "no-gate": llama_like(gated=False),
}
ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default


def contexts() -> Any:
    """Fresh counters for the forward and for the second one, as each counts for itself."""
    counters: dict[bool, Iterator[int]] = {again: itertools.count() for again in (False, True)}

    def policy(ctx: Any, operation: Any, *args: Any, **more: Any) -> CheckpointPolicy:
        kept = operation is ATTENTION
        if operation is torch.ops.aten.mm.default:
            kept = next(counters[ctx.is_recompute]) % 2 == 0
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)


def made(spec: ModelSpec, dtype: str) -> Transformer:
    model = meta_model(spec.replace(stacks=(spec.main.replace(order=(0,)),)), SEQ)
    model = model.to(DTYPES[dtype]).to_empty(device="cpu")
    assert model.rotary is not None
    model.rotary.fill()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.1, 0.1)
    return model


def products_run(run: Callable[[], Tensor]) -> int:
    """FLOPs of the matrix products of one forward and backward."""
    with FlopCounterMode(display=False) as counter:
        run().float().sum().backward()
    return int(counter.get_flop_counts()["Global"][torch.ops.aten.mm])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPECS)
def test_torch_keeps_and_runs_again_what_the_graph_says(name: str, dtype: str) -> None:
    spec, model = SPECS[name], made(SPECS[name], dtype)
    layer = model.layers["0"]
    leaf = torch.rand(BATCH, SEQ, spec.hidden, dtype=DTYPES[dtype]).requires_grad_()
    plain = functools.partial(layer, leaf, model.rotary)
    keeping = functools.partial(
        checkpoint, layer, leaf, model.rotary, use_reentrant=False, context_fn=contexts
    )
    seen = view(dtype, "flash")
    graph = transformer.layer_graph(spec, seen)
    inputs = recompute.input_bytes(spec, seen)
    charged = recompute.saved_bytes(graph, "selective", inputs, seen, "products")
    assert held(model, keeping, leaf) == charged - inputs  # the leaf was given
    again = recompute.run_again(graph, "selective", True, "products")
    linear = [node for node in again if isinstance(node, Operator) and node.kind == "linear"]
    assert linear
    more = products_run(keeping) - products_run(plain)
    assert more == sum(node.forward_flops for node in linear)


def test_what_is_kept_is_between_nothing_and_the_input() -> None:
    for spec in SPECS.values():
        seen = view("bf16", "flash")
        graph, inputs = transformer.layer_graph(spec, seen), recompute.input_bytes(spec, seen)
        none, products, full = (
            recompute.saved_bytes(graph, mode, inputs, seen, "products")
            for mode in ("none", "selective", "full")
        )
        assert full < products < none
        again = recompute.run_again(graph, "selective", True, "products")
        assert set(again) < set(recompute.run_again(graph, "full", stops_early=True))
