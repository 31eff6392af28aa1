"""Caption: an operator in few words, for pictures."""

from collections.abc import Mapping
from typing import Literal

from planner.graph.operator import Collective, Node, Operator
from planner.spec.units import format_bytes

Category = Literal["matrix", "attention", "memory", "embedding", "loss", "collective"]

EMBEDDINGS = ("embedding", "class_token", "relative_bias")
SIZES = ("rows", "batch", "seq", "bias", "m")
"""Dims that the workload gives, or that say little."""


def category(node: Node) -> Category:
    """What bounds an operator, or what it is for."""
    if isinstance(node, Collective):
        return "collective"
    if "cross_entropy" in node.kind:
        return "loss"
    if any(word in node.kind for word in EMBEDDINGS):
        return "embedding"
    if "attention" in node.kind:
        return "attention"
    return "matrix" if node.forward_flops else "memory"


def shape(node: Node) -> str:
    """The widths of an operator: `4096→14336`, `32 × 128, 8 kv`."""
    if isinstance(node, Collective):
        return node.axis
    dims = dict(node.dims)
    if {"k", "n"} <= dims.keys():
        groups = f"{dims['groups']} × " if "groups" in dims else ""
        return f"{groups}{dims['k']}→{dims['n']}"
    if "head_dim" in dims:
        shared = dims.get("kv_heads", dims["heads"])
        grouped = f", {shared} kv" if shared != dims["heads"] else ""
        return f"{dims['heads']} × {dims['head_dim']}{grouped}"
    if "buckets" in dims:
        return f"{dims['heads']} × {dims['buckets']}"
    if "per_token" in dims:
        return f"{dims['per_token']} of {dims['experts']}"
    for rows in ("vocab", "positions"):
        if {rows, "width"} <= dims.keys():
            return f"{dims[rows]} × {dims['width']}"
    if set(dims) <= {"rows", "width", "vocab"} and len(dims) > 1:
        return str(dims.get("width", dims.get("vocab")))
    return " ".join(f"{dim}={size}" for dim, size in dims.items() if dim not in SIZES)


def cost(node: Node) -> str:
    """`linear, 68.7 GFLOP`; bytes where there are no products."""
    if isinstance(node, Collective):
        return f"{node.op}, {format_bytes(node.message_bytes)}"
    if node.forward_flops:
        return f"{_window(dict(node.dims)) or node.kind}, {flop(node.forward_flops)}"
    return f"{node.kind}, {format_bytes(node.forward_bytes)}" if node.forward_bytes else node.kind


def _window(dims: Mapping[str, int]) -> str:
    window = dims.get("window", 0)
    return f"window {window}" if 0 < window < dims.get("keys", 0) else ""


def flop(value: float) -> str:
    """`68.7 GFLOP`."""
    for scale, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= scale:
            return f"{value / scale:.3g} {letter}FLOP"
    return f"{value:.0f} FLOP"


def facts(node: Node) -> str:
    """All that the picture has no room for, one fact per line."""
    if isinstance(node, Collective):
        size = format_bytes(node.message_bytes)
        return f"{node.name}\n{node.op} over {node.axis}, {node.phase}\nmessage {size}"
    lines = [node.name, f"kind {node.kind}"]
    lines += [f"{dim} {size}" for dim, size in node.dims]
    lines += [f"{name} {text}" for name, text in _amounts(node) if text]
    return "\n".join(lines)


def _amounts(node: Operator) -> list[tuple[str, str]]:
    return [
        ("forward", flop(node.forward_flops) if node.forward_flops else ""),
        ("backward", flop(node.backward_flops) if node.backward_flops else ""),
        ("moves", format_bytes(node.forward_bytes)),
        ("parameters", f"{node.parameters:,}" if node.parameters else ""),
        ("saved", format_bytes(node.saved_bytes) if node.saved_bytes else ""),
    ]
