"""Bare products: each layout multiplies, and reads its operands as they lie."""

import pytest
import torch

from planner.spec.documents import InputError
from profiler import kinds, products
from profiler.kinds import OperatorRequest


@pytest.mark.parametrize("kind", products.MATMULS)
def test_every_layout_is_the_same_product(kind: str) -> None:
    made = [
        products._operand(kind[-2] == "t", 6, 4, torch.float64, "cpu"),
        products._operand(kind[-1] == "t", 4, 5, torch.float64, "cpu"),
    ]
    assert [tuple(each.shape) for each in made] == [(6, 4), (4, 5)]
    assert [each.is_contiguous() for each in made] == [kind[-2] == "n", kind[-1] == "n"]
    assert products.product(kind, 6, 5, 4, torch.float64, "cpu")().shape == (6, 5)


def test_the_layouts_are_those_of_a_linear_layer() -> None:
    """Forward nt, input gradient nn, weight gradient tn: what autograd asks for."""
    x, weight = torch.randn(6, 4), torch.randn(5, 4)
    gradient = torch.randn(6, 5)
    assert torch.allclose(torch.nn.functional.linear(x, weight), x @ weight.t())
    leaf, parameter = x.clone().requires_grad_(), weight.clone().requires_grad_()
    torch.nn.functional.linear(leaf, parameter).backward(gradient)
    assert torch.allclose(leaf.grad, gradient @ weight)
    assert torch.allclose(parameter.grad, gradient.t() @ x)


def test_fp8_multiplies_in_nt_and_returns_16_bits() -> None:
    assert products.has_fp8("cpu")  # torch has it on CPUs too, so that this path is tested
    out = products.product("matmul_nt", 16, 32, 64, products.FP8, "cpu")()
    assert (out.dtype, tuple(out.shape)) == (torch.bfloat16, (16, 32))
    kinds.prepare(OperatorRequest("matmul_nt", {"m": 16, "n": 16, "k": 16}, "fp8")).forward()
    with pytest.raises(InputError, match="fp8"):
        kinds.check(OperatorRequest("matmul_nn", {"m": 16, "n": 16, "k": 16}, "fp8"))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("kind", products.MATMULS)
def test_products_run_on_a_gpu(kind: str, dtype: str) -> None:
    request = OperatorRequest(kind, {"m": 256, "n": 128, "k": 64}, dtype)
    assert kinds.prepare(request, "cuda").run().is_cuda
