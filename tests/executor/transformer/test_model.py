import pytest
import torch

from executor.transformer.model import meta_model
from executor.transformer.rotary import Rotary
from planner.spec import plain
from planner.spec.model import ModelSpec
from tests.examples import gpt2_like, llama_like, with_attention
from tests.executor.plans import SEQ_LEN, SPECS, plain_model


def parameters(spec: ModelSpec) -> int:
    """The count of a paper: every matrix and vector by hand."""
    of, mlp, h = spec.layer.attention, plain.mlp(spec), spec.hidden
    wide, kv, f = of.heads * of.head_dim, of.kv_heads * of.head_dim, mlp.ffn
    attention = h * (wide + 2 * kv) + wide * h
    attention += wide * of.q_bias + kv * (of.k_bias + of.v_bias) + h * of.o_bias
    attention += 2 * of.head_dim * of.qk_norm * spec.norm_affine
    inner = 2 if mlp.gated else 1
    matrices = (inner + 1) * h * f + (inner * f + h) * mlp.bias
    norm = h * (2 if spec.norm == "layernorm" else 1) * spec.norm_affine
    ends = spec.vocab * h * (1 if spec.tied_embeddings else 2)
    ends += spec.max_positions * h * (spec.main.embedding.positions == "learned")
    return spec.layers * (attention + matrices + 2 * norm) + norm + ends


@pytest.mark.parametrize(
    "spec",
    [
        *SPECS.values(),
        gpt2_like(tied_embeddings=False, attention_bias=False),
        llama_like(gated=False, mlp_bias=True, output_bias=True, activation="relu"),
        llama_like(norm="layernorm", positions="learned", tied_embeddings=True, kv_heads=1),
        with_attention(gpt2_like(norm_affine=False), k_bias=False),
        with_attention(llama_like(), qk_norm=True, rotary_dim=2, o_bias=True),
        with_attention(llama_like(norm_affine=False), qk_norm=True),
    ],
)
def test_parameters_on_the_meta_device(spec: ModelSpec) -> None:
    model = meta_model(spec, SEQ_LEN)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters(spec)


@pytest.mark.parametrize("name", SPECS)
def test_later_tokens_do_not_change_earlier_logits(name: str) -> None:
    model, spec = plain_model(SPECS[name]), SPECS[name]
    tokens = torch.arange(SEQ_LEN)[None] % spec.vocab
    changed = tokens.clone()
    changed[0, 10:] = 3
    before, after = model(tokens), model(changed)
    assert torch.allclose(before[:, :10], after[:, :10], rtol=1e-12)
    assert not torch.allclose(before[:, 10:], after[:, 10:], rtol=1e-3)


def test_rotated_products_depend_on_distance_only() -> None:
    rotary = Rotary(llama_like(head_dim=8, heads=4, kv_heads=4).layer.attention, SEQ_LEN).double()
    rotary.fill()
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    rows = torch.ones(1, SEQ_LEN, 1, 1, dtype=torch.float64)
    products = rotary(rows * q)[0, :, 0] @ rotary(rows * k)[0, :, 0].T
    assert torch.allclose(products[1:, 1:], products[:-1, :-1])
    assert not torch.allclose(products[0], products[1])


def test_a_part_of_a_head_is_rotated() -> None:
    spec = with_attention(llama_like(head_dim=8, heads=4, kv_heads=4), rotary_dim=4)
    rotary = Rotary(spec.layer.attention, SEQ_LEN).double()
    rotary.fill()
    x = torch.randn(2, SEQ_LEN, 4, 8, dtype=torch.float64)
    whole = Rotary(llama_like(head_dim=4).layer.attention, SEQ_LEN).double()
    whole.fill()
    assert torch.equal(rotary(x)[..., 4:], x[..., 4:])
    assert torch.equal(rotary(x)[..., :4], whole(x[..., :4]))


def test_normed_heads_forget_their_length() -> None:
    model = plain_model(with_attention(SPECS["llama"], qk_norm=True))
    tokens = torch.arange(SEQ_LEN)[None]
    before = model(tokens)
    with torch.no_grad():
        for layer in model.layers.values():
            layer.attention.q.weight *= 1000.0
    assert torch.allclose(before, model(tokens), rtol=1e-2, atol=1e-4)


def test_grouped_queries_share_their_keys() -> None:
    """A model of one key head per group equals a full model whose key heads are repeated."""
    grouped, full = llama_like(kv_heads=4), llama_like(kv_heads=8)
    few, many = plain_model(grouped), plain_model(full)
    weights = few.state_dict()
    for name, value in weights.items():
        if name.endswith((".k.weight", ".v.weight")):
            heads = value.view(4, 4, -1).repeat_interleave(2, dim=0)
            weights[name] = heads.reshape(32, -1)
    many.load_state_dict(weights)
    tokens = torch.arange(SEQ_LEN)[None]
    assert torch.allclose(few(tokens), many(tokens), rtol=1e-10)


def test_loss_of_16_bit_logits_is_fp32() -> None:
    model = plain_model(SPECS["llama"]).bfloat16()
    tokens = torch.arange(SEQ_LEN)[None]
    assert model(tokens, tokens).dtype == torch.float32
