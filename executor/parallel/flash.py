"""Flash attention with its statistics (Dao et al. 2022), so that blocks of keys can be joined.

Of queries [b, heads, s, d] and keys and values [b, kv heads, s', d], with z = q k^T / sqrt(d):

    forward    lse = log sum exp(z),  o = exp(z - lse) v
    backward   p = exp(z - lse),  dv = p^T do,  dz = p (do v^T - sum(do * o)),
               dq = dz k / sqrt(d),  dk = dz^T q / sqrt(d)

In the backward o and lse may be those over more keys than these: p is then these keys' share of
the whole softmax. Causal: the i-th query sees the keys 0 .. i; there are as many of both.

The CPU has a kernel for every format, CUDA for 16-bit numbers; others are multiplied out, which
stores the scores. CUDA's kernel wants a key head per query head.
"""

import math

import torch
from torch import Tensor

aten = torch.ops.aten


def forward(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """The output [b, heads, s, d], and lse [b, heads, s] in fp32 or wider."""
    if q.device.type == "cpu":
        output, lse = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal)
        return output, lse
    if q.element_size() > 2:
        return _forward(q, k, v, causal)
    repeated = _repeated(k, q), _repeated(v, q)
    found = aten._scaled_dot_product_flash_attention(q, *repeated, 0.0, causal)
    return found[0], found[1]


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, output: Tensor, lse: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    if q.device.type == "cpu":
        of = aten._scaled_dot_product_flash_attention_for_cpu_backward
        dq, dk, dv = of(grad, q, k, v, output, lse, 0.0, causal)
        return dq, dk, dv
    if q.element_size() > 2:
        return _backward(grad, q, k, v, output, lse, causal)
    repeated = _repeated(k, q), _repeated(v, q)
    seeds = torch.zeros((2,), dtype=torch.uint64, device=q.device), torch.empty(0, device=q.device)
    dq, dk, dv = aten._scaled_dot_product_flash_attention_backward(
        grad, q, *repeated, output, lse, None, None, q.shape[2], k.shape[2], 0.0, causal, *seeds
    )
    return dq, _grouped(dk, k), _grouped(dv, v)


def _forward(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    scores = _scores(q, k, causal)
    lse = scores.logsumexp(-1)
    return (scores - lse.unsqueeze(-1)).exp() @ _repeated(v, q), lse


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, output: Tensor, lse: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    p = (_scores(q, k, causal) - lse.unsqueeze(-1)).exp()
    through = grad @ _repeated(v, q).transpose(-1, -2)
    dz = p * (through - (grad * output).sum(-1, keepdim=True)) / math.sqrt(q.shape[-1])
    dk = _grouped(dz.transpose(-1, -2) @ q, k)
    return dz @ _repeated(k, q), dk, _grouped(p.transpose(-1, -2) @ grad, v)


def _scores(q: Tensor, k: Tensor, causal: bool) -> Tensor:
    scores = q @ _repeated(k, q).transpose(-1, -2) / math.sqrt(q.shape[-1])
    if not causal:
        return scores
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill(hidden, -math.inf)


def _repeated(x: Tensor, q: Tensor) -> Tensor:
    """Keys or values of grouped queries, one head per query head."""
    each = q.shape[1] // x.shape[1]
    return x if each == 1 else x.repeat_interleave(each, dim=1)


def _grouped(grad: Tensor, x: Tensor) -> Tensor:
    """Gradients of repeated heads, summed into the head they were repeated from."""
    return grad if grad.shape == x.shape else grad.unflatten(1, (x.shape[1], -1)).sum(2)
