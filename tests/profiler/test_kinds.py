"""Each kind of operator runs what the contract says."""

import pytest
import torch
from torch.nn import functional

from planner.graph import transformer
from planner.graph.view import RankView
from planner.spec.documents import InputError
from profiler import kinds
from profiler.kinds import OperatorRequest
from tests.examples import gpt2_like, llama_like

DIMS = {
    "linear": {"m": 6, "k": 4, "n": 5, "bias": 1},
    "attention": {"batch": 2, "seq": 3, "heads": 4, "kv_heads": 2, "head_dim": 4},
    "attention_math": {"batch": 2, "seq": 3, "heads": 4, "kv_heads": 2, "head_dim": 4},
    "matmul_nt": {"m": 6, "n": 5, "k": 4},
    "matmul_nn": {"m": 6, "n": 5, "k": 4},
    "matmul_tn": {"m": 6, "n": 5, "k": 4},
    "layernorm": {"rows": 3, "width": 8},
    "rmsnorm": {"rows": 3, "width": 8},
    "rotary": {"rows": 3, "heads": 2, "head_dim": 4},
    "gelu": {"rows": 3, "width": 8},
    "gelu_tanh": {"rows": 3, "width": 8},
    "silu": {"rows": 3, "width": 8},
    "relu": {"rows": 3, "width": 8},
    "gated_silu": {"rows": 3, "width": 8},
    "gated_gelu": {"rows": 3, "width": 8},
    "residual": {"rows": 3, "width": 8},
    "embedding": {"rows": 3, "width": 8, "vocab": 11},
    "position_embedding": {"rows": 3, "width": 8, "positions": 5},
    "cross_entropy": {"rows": 3, "vocab": 11},
    "parallel_cross_entropy": {"rows": 3, "vocab": 11},
    "adamw": {"parameters": 10},
    "gradient_norm": {"parameters": 10},
    "zero_gradient": {"parameters": 10},
}


def request(kind: str, dtype: str = "fp32") -> OperatorRequest:
    return OperatorRequest(kind, DIMS[kind], dtype)


def play(work: kinds.Work) -> None:
    work.before_forward()
    work.forward()
    if work.has_backward:
        work.before_backward()
        work.backward()
        work.after_backward()


@pytest.mark.parametrize("dtype", ["fp32", "fp64", "bf16"])
@pytest.mark.parametrize("kind", DIMS)
def test_runs_forward_and_backward_again_and_again(kind: str, dtype: str) -> None:
    work = kinds.prepare(request(kind, dtype))
    for _ in range(3):
        play(work)
    assert work.has_backward == (kind not in kinds.FORWARD_ONLY)
    if work.has_backward:
        assert all(leaf.grad is not None for leaf in work.buffers.activations)


def test_the_graph_asks_only_for_known_kinds() -> None:
    for model in (gpt2_like(), llama_like()):
        for tp in (1, 2):
            graph = transformer.model_graph(model, RankView(2, 8, tp=tp, dtype="fp32"))
            for operator in transformer.operators(graph):
                play(kinds.prepare(OperatorRequest(operator.kind, dict(operator.dims), "fp32")))


@pytest.mark.parametrize("kind", ["linear", "layernorm", "embedding"])
def test_weight_gradients_accumulate(kind: str) -> None:
    make = kinds.Buffers(torch.float64, "cpu")
    weights: list[torch.Tensor] = []
    plain = make.weight
    make.weight = lambda *shape: weights.append(plain(*shape)) or weights[-1]  # type: ignore
    work = kinds.KINDS[kind](make, **DIMS[kind])
    play(work)
    once = weights[0].grad.clone()
    buffer = weights[0].grad.data_ptr()
    play(work)
    assert once.abs().sum() > 0
    assert torch.allclose(weights[0].grad, 2 * once)
    assert weights[0].grad.data_ptr() == buffer


def test_narrow_weights_accumulate_in_fp32() -> None:
    weight = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
    total = torch.zeros(3)
    kinds.accumulate(weight, total)
    for _ in range(2):
        (weight * 2).sum().backward()
    assert weight.grad is None
    assert total.tolist() == [4.0] * 3


def test_residual_adds_the_two_gradients() -> None:
    work = kinds.prepare(request("residual", "fp64"))
    play(work)
    assert torch.allclose(work.buffers.activations[0].grad, sum(work.gradients))


def test_shard_cross_entropy_of_a_whole_vocabulary_is_cross_entropy() -> None:
    logits = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    other = logits.detach().clone().requires_grad_()
    targets = torch.randint(7, (5,))
    loss = kinds.ShardCrossEntropy.apply(logits, targets)
    loss.backward()
    expected = functional.cross_entropy(other, targets)
    expected.backward()
    assert torch.allclose(loss, expected)
    assert torch.allclose(logits.grad, other.grad)


def test_attention_is_causal() -> None:
    q, k, v = (torch.randn(1, 4, 8, dtype=torch.float64) for _ in range(3))
    first = kinds.attend(q, k, v, 2, 2)
    k[:, 3], v[:, 3] = 0.0, 0.0
    second = kinds.attend(q, k, v, 2, 2)
    assert torch.allclose(first[:, :3], second[:, :3])
    assert not torch.allclose(first[:, 3], second[:, 3])


@pytest.mark.parametrize("kind", ["convolution", "gated_linear"])
def test_refuses_unknown_kinds(kind: str) -> None:
    with pytest.raises(InputError, match=kind):
        kinds.prepare(OperatorRequest(kind, {}, "fp32"))


@pytest.mark.parametrize("dtype", ["fp8", "tf32"])
def test_refuses_dtypes_a_cpu_has_not(dtype: str) -> None:
    with pytest.raises(InputError, match=dtype):
        kinds.prepare(request("linear", dtype))


def test_distinct_keeps_the_first_of_each() -> None:
    one, two = request("linear"), request("rmsnorm")
    assert kinds.distinct([one, two, request("linear"), two]) == [one, two]


@pytest.mark.parametrize("kind", DIMS)
def test_footprint_grows_with_every_dim(kind: str) -> None:
    size = kinds.footprint_bytes(request(kind))
    doubled = {name: 2 * value for name, value in DIMS[kind].items()}
    assert kinds.footprint_bytes(OperatorRequest(kind, doubled, "fp32")) >= 2 * size > 0
