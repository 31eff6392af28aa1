"""Design: which shapes tell a device's constants, most informative first.

A product (m, n, k) is bounded by arithmetic, memory or its launch, and loses to tiles, waves and
depth (planner.cost.matmul). Candidates are all triples of sizes that are log-spaced, powers of
two and, between two of them, the size s * sqrt(2) rounded to an odd multiple of the alignment,
which fills no tile: on-tile and off-tile sizes tell quantisation from the rate. Kept are those
with at most MOST flops (one product must not take long) and bytes that fit.

Order: the centre first, then ever the candidate that is farthest from all before it,

    x_j = argmax over x of  min over i < j of |log x - log x_i|_2   (ties: the first)

so that every prefix covers the space within twice the radius that any set of as many points
could (Gonzalez 1985), and a budget that ends early has a coarse grid, not a corner. Layouts
take turns along the sequence; a second and a third round give every point the others.
One-dimensional sizes (attention over sequences, memory-bound operators over bytes, messages):
the ends, then what halves the widest gap.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from planner.spec.workload import DTYPE_BYTES
from profiler.kinds import OperatorRequest
from profiler.products import FP8_ALIGNMENT, MATMULS

T = TypeVar("T")

ALIGNMENT = 8
"""Elements of 16 bits that a tensor core reads in a row; other sizes are not worth training."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large things may be on a device kind, so that one of them takes milliseconds.

    products: (least, most) of m, n, k. flops: most of one product. points: products in all.
    seqs: of attention, with as many `tokens` in all. sizes: bytes of a memory-bound operand.
    """

    products: tuple[int, int]
    flops: float
    points: int
    seqs: tuple[int, ...]
    tokens: int
    heads: int
    head_dim: int
    sizes: tuple[int, ...]
    width: int
    vocab: int


LIMITS: dict[str, Limits] = {
    "cuda": Limits(
        products=(128, 16384),
        flops=4e12,
        points=60,
        seqs=(512, 1024, 2048, 4096, 8192, 16384),
        tokens=16384,
        heads=32,
        head_dim=128,
        sizes=tuple(1 << power for power in range(18, 30, 2)),
        width=4096,
        vocab=32768,
    ),
    "cpu": Limits(
        products=(32, 2048),
        flops=4e8,
        points=40,
        seqs=(64, 128, 256, 512, 1024),
        tokens=1024,
        heads=4,
        head_dim=64,
        sizes=tuple(1 << power for power in range(14, 25, 2)),
        width=512,
        vocab=8192,
    ),
}
"""Assumed: chosen so that no case takes more than some tens of milliseconds on devices of 2026."""


def log_sizes(least: int, most: int, alignment: int = ALIGNMENT) -> list[int]:
    """Powers of two from least to most and an off-tile size between each two, ascending."""
    powers = [1 << p for p in range(math.ceil(math.log2(least)), int(math.log2(most)) + 1)]
    between = [_odd_multiple(size * math.sqrt(2), alignment) for size in powers[:-1]]
    return sorted({*powers, *between})


def _odd_multiple(size: float, alignment: int) -> int:
    return alignment * (2 * int(size / alignment / 2) + 1)


def coarse_to_fine(values: Sequence[T]) -> list[T]:
    """An ascending list with its ends first, then ever the middle of the widest gap."""
    if len(values) < 3:
        return list(values)
    chosen = [0, len(values) - 1]
    while len(chosen) < len(values):
        known = sorted(chosen)
        gaps = [(b - a, -a) for a, b in itertools.pairwise(known)]
        width, start = max(gaps)
        chosen.append(-start + width // 2)
    return [values[index] for index in chosen]


def product_points(limits: Limits, alignment: int = ALIGNMENT) -> list[tuple[int, int, int]]:
    """(m, n, k) of the grid, every prefix covering the space; see the top of the file."""
    sizes = log_sizes(*limits.products, alignment)
    every = [each for each in itertools.product(sizes, sizes, sizes) if _fits(each, limits)]
    logs = np.log2(np.array(every, dtype=np.float64))
    first = int(np.argmin(np.linalg.norm(logs - logs.mean(axis=0), axis=1)))
    chosen, apart = [first], np.linalg.norm(logs - logs[first], axis=1)
    while len(chosen) < min(limits.points, len(every)):
        chosen.append(int(np.argmax(apart)))
        apart = np.minimum(apart, np.linalg.norm(logs - logs[chosen[-1]], axis=1))
    return [every[index] for index in chosen]


def _fits(sizes: tuple[int, int, int], limits: Limits) -> bool:
    return 2.0 * math.prod(sizes) <= limits.flops


def products(limits: Limits, dtype: str) -> list[OperatorRequest]:
    """Requests of the product grid in one format: layouts take turns, then the other two."""
    eighths = dtype == "fp8"
    points = product_points(limits, FP8_ALIGNMENT if eighths else ALIGNMENT)
    layouts = MATMULS[:1] if eighths else MATMULS
    return [
        OperatorRequest(layouts[(index + turn) % len(layouts)], {"m": m, "n": n, "k": k}, dtype)
        for turn in range(len(layouts))
        for index, (m, n, k) in enumerate(points)
    ]


def attentions(limits: Limits, dtype: str) -> list[OperatorRequest]:
    """Causal attention over sequence lengths, of all heads and grouped, then with stored scores."""
    found = []
    grouped = max(1, limits.heads // 4)
    for kind, kv_heads in (("attention", limits.heads), ("attention", grouped), MATH_OF_ALL):
        for seq in coarse_to_fine(limits.seqs):
            dims = {"batch": max(1, limits.tokens // seq), "seq": seq, "heads": limits.heads}
            dims |= {"kv_heads": kv_heads or limits.heads, "head_dim": limits.head_dim}
            found.append(OperatorRequest(kind, dims, dtype))
    return found


MATH_OF_ALL = ("attention_math", 0)


def memory_bound(limits: Limits, dtype: str) -> list[OperatorRequest]:
    """Norms, gates, residual, loss and optimiser over sizes, every kind at a size first."""
    kinds = ("residual", "rmsnorm", "layernorm", "gated_silu", "gelu_tanh")
    found = []
    for size in coarse_to_fine(limits.sizes):
        count = max(limits.width, size // DTYPE_BYTES[dtype])
        rows = {"rows": count // limits.width, "width": limits.width}
        found += [OperatorRequest(kind, rows, dtype) for kind in kinds]
        lossy = {"rows": max(1, count // limits.vocab), "vocab": limits.vocab}
        found.append(OperatorRequest("cross_entropy", lossy, dtype))
        found.append(OperatorRequest("adamw", {"parameters": count}, dtype))
    return found


def dtypes(device: str, chosen: str, fp8: bool) -> list[str]:
    """The formats worth a grid: the one asked for, then the others that the device has."""
    others = ["bf16", "fp16", "tf32", "fp32"] if device == "cuda" else ["fp32", "bf16"]
    eighths = ["fp8"] if fp8 and device == "cuda" else []
    return list(dict.fromkeys([chosen, *eighths, *others]))


def requests(device: str, dtype: str, fp8: bool = False) -> list[list[OperatorRequest]]:
    """Families of the designed grid, each most informative first.

    Products of the format asked for, attention, memory-bound operators, and products of the
    other formats (their coarse quarter).
    """
    limits = LIMITS[device]
    main, *rest = dtypes(device, dtype, fp8)
    others = [list(_quarter(products(limits, other), len(MATMULS))) for other in rest]
    woven = [each for group in itertools.zip_longest(*others) for each in group if each]
    return [products(limits, main), attentions(limits, main), memory_bound(limits, main), woven]


def _quarter(found: Sequence[OperatorRequest], layouts: int) -> Iterator[OperatorRequest]:
    yield from found[: max(1, len(found) // (4 * layouts) * layouts)]
