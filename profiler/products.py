"""Products: bare matrix products in the storage layouts that a linear layer needs.

out[m, n] = sum over k of A[m, k] * B[k, n]. A layout says how the operands lie in memory, rows
first: n as written, t transposed.

    matmul_nt    A[m, k], B[n, k]    the forward of a linear layer (weight [out, in])
    matmul_nn    A[m, k], B[k, n]    the gradient of its input
    matmul_tn    A[k, m], B[k, n]    the gradient of its weight

fp8 products exist in nt only (the hardware reads both operands along k; frameworks transpose the
others first), take e4m3 operands with one scale each and return 16 bits.
"""

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor

MATMULS = ("matmul_nt", "matmul_nn", "matmul_tn")
FP8 = torch.float8_e4m3fn
FP8_ALIGNMENT = 16
"""k and n of an fp8 product must be multiples of this (torch._scaled_mm)."""


def product(
    kind: str, m: int, n: int, k: int, dtype: torch.dtype, device: str
) -> Callable[[], Tensor]:
    """A function that runs one product on operands and a result made once."""
    if dtype == FP8:
        return _scaled(m, n, k, device)
    left = _operand(kind[-2] == "t", m, k, dtype, device)
    right = _operand(kind[-1] == "t", k, n, dtype, device)
    out = torch.empty(m, n, device=device, dtype=dtype)
    return lambda: torch.mm(left, right, out=out)


def _operand(turned: bool, rows: int, columns: int, dtype: torch.dtype, device: str) -> Tensor:
    """[rows, columns], stored by columns where turned."""
    shape = (columns, rows) if turned else (rows, columns)
    made = torch.randn(shape, device=device, dtype=torch.float32).to(dtype)
    return made.t() if turned else made


def _scaled(m: int, n: int, k: int, device: str) -> Callable[[], Tensor]:
    left = torch.randn(m, k, device=device).to(FP8)
    right = torch.randn(n, k, device=device).to(FP8).t()
    one = torch.ones((), device=device)
    # torch 2.11 and 2.13 both have this private call; the public one differs between them
    return lambda: torch._scaled_mm(left, right, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)


def has_fp8(device: str) -> bool:
    """Whether this device multiplies in fp8: tried on a small product."""
    with contextlib.suppress(RuntimeError, ValueError, AttributeError):
        _scaled(FP8_ALIGNMENT, FP8_ALIGNMENT, FP8_ALIGNMENT, device)()
        return True
    return False
