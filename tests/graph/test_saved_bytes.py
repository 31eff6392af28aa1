"""Oracle: what torch keeps from forward to backward, to the byte.

The instruments are in tests/graph/saved.py. Parameters and rotary tables are there anyway and
count in neither.

One layer of the executor on a CPU keeps, r = b*s rows, w the width of a number, W = max(w, 4):

    tensor                        bytes             kept by
    input x                       r h w             LayerNorm; an RMSNorm instead, made of
                                                    elementary operators: x in fp32, r h W
    x / rms                       r h W             RMSNorm: the product with its weight, if any
    mean, 1 / deviation           2 r w             LayerNorm (at the precision of x)
    1 / rms                       4 r               RMSNorm: two products, one tensor
    normed x                      r h w             q, k, v linears: the same tensor thrice
    q, k before their norms       2 r d W per head  qk_norm: as RMSNorm above, 1 / rms beside
    q, k, v (rotated)             r (a+2g) d w      flash: g key heads, not repeated
    log of the softmax' sum       4 r a             flash
    q, k, v scaled, all heads     3 r a d W         math: in fp32, key heads repeated
    softmax                       b a s s W         math: the second product reads the same
    attention output              r a d w           o linear (flash keeps the same)
    sum after attention           r h w             the second norm, as the first
    normed sum                    r h w             gate and up linears: the same tensor
    up, or gate and up            r f w each        gelu, silu: their input; the product with up
    act(gate)                     r f w             the product with up (relu: its own too)
    input of down                 r f w             down linear (relu without gate: its own too)

Nothing is kept by rotary positions, biases, residual sums and views. An embedding keeps the
indices it was given: 8 r for tokens and 8 s for positions, the same for every sequence. The
head keeps a norm's tensors, the projection's input r h w, the logarithm of the softmax
r V W, the targets 8 r, and the loss its divisor, one number. Under tensor parallelism a table
and a loss of V/t rows also keep which tokens are other ranks' (r bytes), and the loss the sum of
the exponentials (r W).
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.graph import recompute, transformer
from planner.spec.layout import LayerChoice
from planner.spec.model import ModelSpec
from tests.examples import gpt2_like, llama_like, with_attention
from tests.graph.saved import BATCH, SEQ, held, hooked, kept_by, view

torch = pytest.importorskip("torch")

import torch.distributed as dist  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.testing._internal.distributed.fake_pg import FakeStore  # noqa: E402

from executor.parallel.recompute import recompute as recompute_layers  # noqa: E402
from executor.parallel.tensor_parallel import divide  # noqa: E402
from executor.transformer.model import Transformer, meta_model  # noqa: E402

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MODES = ("none", "selective", "full")
DIVISOR_BYTES = 4

SPECS = {
    "gpt2": gpt2_like(),
    "gpt2-kv-groups": gpt2_like(kv_heads=2, hidden=40, head_dim=6, ffn=56),
    "gpt2-no-bias": gpt2_like(attention_bias=False, output_bias=False, mlp_bias=False),
    "gpt2-rms": gpt2_like(norm="rmsnorm", activation="gelu"),
    "gpt2-bare-norms": gpt2_like(norm_affine=False),
    "opt": gpt2_like(activation="relu"),
    "llama": llama_like(),
    "llama-all-heads": llama_like(kv_heads=8, hidden=48, head_dim=10, ffn=72),
    "llama-one-key-head": llama_like(kv_heads=1, tied_embeddings=True),
    "llama-layernorm": llama_like(norm="layernorm", attention_bias=True),
    "llama-bare-norms": llama_like(norm_affine=False, activation="relu"),
    "qwen3": with_attention(llama_like(head_dim=8), qk_norm=True),
    "neox-like": with_attention(gpt2_like(positions="none", head_dim=12), rotary_dim=4),
}


def made(spec: ModelSpec, dtype: str, seq: int = SEQ) -> Transformer:
    return filled(meta_model(spec, seq), dtype)


def filled(model: Transformer, dtype: str) -> Transformer:
    model = model.to(DTYPES[dtype]).to_empty(device="cpu")
    if model.rotary is not None:
        model.rotary.fill()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.1, 0.1)
    return model


def attention(kernel: str) -> Any:
    return contextlib.nullcontext() if kernel == "flash" else sdpa_kernel(SDPBackend.MATH)


def check_layer(
    spec: ModelSpec, dtype: str, kernel: str, mode: str, batch: int = BATCH, seq: int = SEQ
) -> None:
    spec = spec.replace(stacks=(spec.main.replace(order=(0,)),))
    model = made(spec, dtype, seq)
    recompute_layers(model, [LayerChoice(recompute=mode)])
    layer, leaf = model.layers["0"], torch.rand(batch, seq, spec.hidden, dtype=DTYPES[dtype])
    leaf.requires_grad_()

    def run() -> Any:
        with attention(kernel):
            return layer(leaf.clone(), model.rotary)

    seen = view(dtype, kernel, batch, seq)
    inputs = recompute.input_bytes(spec, seen)
    charged = recompute.saved_bytes(transformer.layer_graph(spec, seen), mode, inputs, seen)
    assert held(model, run, leaf) == charged
    if mode == "none":
        assert hooked(model, run) == charged


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kernel", ["flash", "math"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPECS)
def test_a_layer_keeps_what_the_graph_charges(
    name: str, dtype: str, kernel: str, mode: str
) -> None:
    check_layer(SPECS[name], dtype, kernel, mode)


@st.composite
def decoders(draw: st.DrawFn) -> ModelSpec:
    """Plain decoders with every choice that the executor knows, in small and odd sizes."""
    groups, queries = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 2, 5]))
    head_dim = draw(st.sampled_from([2, 6, 8]))
    base = llama_like(
        hidden=draw(st.sampled_from([8, 30, 64])),
        heads=groups * queries,
        kv_heads=groups,
        head_dim=head_dim,
        ffn=draw(st.sampled_from([7, 64])),
        gated=draw(st.booleans()),
        activation=draw(st.sampled_from(["gelu", "gelu_tanh", "silu", "relu"])),
        norm=draw(st.sampled_from(["layernorm", "rmsnorm"])),
        norm_affine=draw(st.booleans()),
        mlp_bias=draw(st.booleans()),
        positions="none",
    )
    return with_attention(
        base,
        rotary_dim=draw(st.sampled_from([0, 2, head_dim])),
        qk_norm=draw(st.booleans()),
        **{f"{name}_bias": draw(st.booleans()) for name in "qkvo"},
    )


@settings(deadline=None, max_examples=60)
@given(
    spec=decoders(),
    dtype=st.sampled_from(sorted(DTYPES)),
    kernel=st.sampled_from(["flash", "math"]),
    mode=st.sampled_from(MODES),
    batch=st.integers(1, 4),
    seq=st.integers(1, 40),
)
def test_any_layer_keeps_what_the_graph_charges(
    spec: ModelSpec, dtype: str, kernel: str, mode: str, batch: int, seq: int
) -> None:
    check_layer(spec, dtype, kernel, mode, batch, seq)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPECS)
def test_an_embedding_keeps_its_indices(name: str, dtype: str) -> None:
    model, spec = made(SPECS[name], dtype), SPECS[name]
    tokens = torch.zeros(BATCH, SEQ, dtype=torch.long)
    graph = transformer.embedding_graph(spec, view(dtype, "flash"))
    charged = kept_by(graph)
    assert held(model, lambda: model.embedding(tokens.clone()), tokens) == charged
    assert hooked(model, lambda: model.embedding(tokens.clone())) == charged


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPECS)
def test_a_head_keeps_what_the_graph_charges(name: str, dtype: str) -> None:
    model, spec = made(SPECS[name], dtype), SPECS[name]
    tokens = torch.zeros(BATCH, SEQ, dtype=torch.long)
    leaf = torch.rand(BATCH, SEQ, spec.hidden, dtype=DTYPES[dtype]).requires_grad_()
    graph = transformer.head_graph(spec, view(dtype, "flash"), holds_embedding=True)
    charged = kept_by(graph) + DIVISOR_BYTES

    def run() -> Any:
        return model.head(leaf.clone(), tokens.clone())

    assert held(model, run, leaf, tokens) == charged
    assert hooked(model, run) == charged


@pytest.mark.parametrize("modes", [MODES, ("none",) * 4, ("full", "none", "full", "selective")])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_a_model_keeps_the_sum_of_its_blocks(name: str, dtype: str, modes: tuple[str, ...]) -> None:
    spec = SPECS[name].replace(stacks=(SPECS[name].main.replace(order=(0,) * len(modes)),))
    model, seen = made(spec, dtype), view(dtype, "flash")
    recompute_layers(model, [LayerChoice(recompute=mode) for mode in modes])
    tokens = torch.zeros(BATCH, SEQ, dtype=torch.long)
    ends = (
        transformer.embedding_graph(spec, seen),
        transformer.head_graph(spec, seen, holds_embedding=True),
    )
    charged = sum(map(kept_by, ends))
    layer, inputs = transformer.layer_graph(spec, seen), recompute.input_bytes(spec, seen)
    charged += sum(recompute.saved_bytes(layer, mode, inputs, seen) for mode in modes)
    run = lambda: model(tokens.clone(), tokens.clone())  # noqa: E731
    assert held(model, run, tokens) == charged + DIVISOR_BYTES


@pytest.fixture(scope="module")
def group() -> Iterator[Any]:
    """Two ranks of which one is here: collectives do nothing, shapes and tensors are real."""
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield dist.group.WORLD
    dist.destroy_process_group()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_a_rank_of_two_keeps_what_its_view_charges(
    group: Any, name: str, dtype: str, mode: str
) -> None:
    spec = SPECS[name].replace(stacks=(SPECS[name].main.replace(order=(0,)),))
    seen = replace(view(dtype, "flash"), tp=2)
    whole = meta_model(spec, SEQ)
    divide(whole, 0, 2, group)
    model = filled(whole, dtype)
    recompute_layers(model, [LayerChoice(recompute=mode)])
    tokens = torch.zeros(BATCH, SEQ, dtype=torch.long)
    leaf = torch.rand(BATCH, SEQ // 2, spec.hidden, dtype=DTYPES[dtype]).requires_grad_()
    inputs, layer = recompute.input_bytes(spec, seen), transformer.layer_graph(spec, seen)
    embedding = transformer.embedding_graph(spec, seen)
    head = transformer.head_graph(spec, seen, holds_embedding=True)
    for run, charged in (
        (lambda: model.embedding(tokens.clone()), kept_by(embedding)),
        (
            lambda: model.layers["0"](leaf.clone(), model.rotary),
            recompute.saved_bytes(layer, mode, inputs, seen),
        ),
        (lambda: model.head(leaf.clone(), tokens.clone()), kept_by(head)),
    ):
        assert held(model, run, leaf, tokens) == charged
