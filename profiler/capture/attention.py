"""Attention: FLOPs of scaled_dot_product_attention, and what it keeps for its backward.

q is (batch, heads, s, d), k (batch, kv heads, t, d), v (batch, kv heads, t, e); with grouped
queries every query head still meets t keys, so heads counts. Two products forward, five
backward where the scores are computed again (flash: scores d; their gradient and that of the
values e each; those of queries and keys d each), four where they are kept:

    forward           2 * batch * heads * s * t * (d + e)
    backward, flash   2 * batch * heads * s * t * (3d + 2e)       2.5 times the forward if d = e
    backward, kept    2 * batch * heads * s * t * (2d + 2e)       twice the forward

Every query counts against every key, causal or not, as torch's FlopCounterMode does, which has
no formula for the CPU kernel: FORMULAS gives it one.

A call counts as flash and keeps q, k, v, the mask, its output and one fp32 per query and head,
also with dropout, which accelerators fuse (torch's CPU falls back to keeping the scores). Only
if the mask needs a gradient (T5's learned bias) does it count as torch's elementary operators,
for then no flash kernel serves.
"""

import math
from typing import Any

import torch

STATISTIC_BYTES = 4
"""The logarithm of the sum of each row of scores is kept in fp32."""

_aten: Any = torch.ops.aten


def forward_flops(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    """FLOPs forward, from the shapes of queries, keys and values."""
    return _square(q, k) * int(q[-1] + v[-1])


def flash_backward_flops(q: Any, k: Any, v: Any) -> int:
    """FLOPs backward of a kernel that computes the scores again."""
    return _square(q, k) * int(3 * q[-1] + 2 * v[-1])


def _square(q: Any, k: Any) -> int:
    """FLOPs of a product over every query and key, per element of a head."""
    return int(2 * math.prod(q[:-1]) * k[-2])


def _backward(_: Any, q: Any, k: Any, v: Any, *__: Any, **___: Any) -> int:
    return flash_backward_flops(q, k, v)


FORMULAS = {
    _aten._scaled_dot_product_flash_attention_for_cpu: forward_flops,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
}
"""For FlopCounterMode(custom_mapping=...): the CPU kernels it does not know."""


def statistic_bytes(q: Any) -> int:
    """Bytes of the statistics that a flash kernel keeps."""
    return int(STATISTIC_BYTES * math.prod(q[:-1]))
