"""Scaling: the best plan at several numbers of devices, as a curve.

Strong scaling: the global batch stays the same. speedup is against the first number of devices
that has a plan, efficiency = speedup / (devices / first devices).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from planner.cost.blocks import Blocks
from planner.search.optimum import rank
from planner.search.ranking import NoPlanError
from planner.spec.cluster import ClusterSpec
from planner.spec.documents import InputError
from planner.spec.units import format_interval, format_seconds


def resized(cluster: ClusterSpec, devices: int) -> ClusterSpec:
    """The cluster with as many devices: whole nodes, or a part of one node.

    Raises InputError when the devices do not fill whole nodes, or when a cluster of one node
    would have to grow (it does not say what joins nodes).
    """
    per_node = cluster.devices_per_node
    if devices <= per_node:
        tier = cluster.tiers[0].replace(devices=devices)
        return cluster.replace(nodes=1, devices_per_node=devices, tiers=(tier,))
    if devices % per_node:
        raise InputError(f"--devices: {devices} is not a multiple of {per_node} (a node)")
    if len(cluster.tiers) == 1 and cluster.nodes == 1:
        node = cluster.name.partition(":")[0]
        raise InputError(
            f"--devices: {cluster.name} is one node of {per_node}; name the cluster with its "
            f"nodes ({node}:{devices // per_node})"
        )
    largest = cluster.tiers[-1].replace(devices=max(devices, cluster.tiers[-1].devices))
    return cluster.replace(nodes=devices // per_node, tiers=(*cluster.tiers[:-1], largest))


def read_counts(text: str) -> list[int]:
    """`8,16,32` as numbers, ascending and each once. Raises InputError."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) for word in words):
        raise InputError(f"--devices: {text!r}; write numbers of devices: 8,16,32")
    return sorted({int(word) for word in words})


def curve(
    asked: Blocks, devices: Sequence[int], allow_at_risk: bool = False
) -> list[dict[str, Any]]:
    """One row per number of devices; step_seconds is None where no plan exists."""
    rows: list[dict[str, Any]] = []
    first: tuple[int, float] | None = None
    for count in devices:
        row = _row(asked, count, allow_at_risk)
        if row["step_seconds"] is not None:
            first = first or (count, row["step_seconds"])
            row["speedup"] = first[1] / row["step_seconds"]
            row["efficiency"] = row["speedup"] * first[0] / count
        rows.append(row)
    return rows


def rows(found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """A curve for people."""
    return [_readable(row) for row in found]


def _readable(row: Mapping[str, Any]) -> dict[str, str]:
    def written(key: str, write: Callable[[float], str]) -> str:
        return "" if row[key] is None else write(row[key])

    ends = row["low_seconds"], row["high_seconds"]
    return {
        "devices": str(row["devices"]),
        "step": written("step_seconds", format_seconds),
        "8 of 10": "" if None in ends else format_interval(*ends),
        "tokens/s": written("tokens_per_second", "{:,.0f}".format),
        "speed-up": written("speedup", "{:.2f}".format),
        "efficiency": written("efficiency", "{:.0%}".format),
        "MFU": written("mfu", "{:.1%}".format),
        "$/M tokens": written("usd_per_million_tokens", "{:.4g}".format),
        "runs out": written("run_out_probability", "{:.0%}".format),
        "plan": row["plan"],
    }


def _row(asked: Blocks, devices: int, allow_at_risk: bool) -> dict[str, Any]:
    cluster, known = resized(asked.cluster, devices), asked.calibration
    question = asked.model, cluster, asked.workload, asked.runtime, asked.profile
    blocks = Blocks(*question, calibration=known)
    row: dict[str, Any] = {
        "devices": devices,
        "step_seconds": None,
        "low_seconds": None,
        "high_seconds": None,
        "at_risk": None,
        "run_out_probability": None,
        "tokens_per_second": None,
        "speedup": None,
        "efficiency": None,
        "mfu": None,
        "usd_per_million_tokens": None,
        "plan": "",
    }
    try:
        best = rank(blocks, top_k=1, allow_at_risk=allow_at_risk).plans[0]
    except NoPlanError as error:
        return row | {"plan": str(error).partition(".")[0]}
    promised = best.predicted
    assert promised is not None
    tokens = asked.workload.tokens
    price = promised.usd_per_step
    return row | {
        "step_seconds": promised.step_seconds,
        "low_seconds": promised.low_seconds,
        "high_seconds": promised.high_seconds,
        "at_risk": promised.at_risk,
        "run_out_probability": promised.run_out_probability,
        "tokens_per_second": tokens / promised.step_seconds,
        "mfu": promised.mfu,
        "usd_per_million_tokens": None if price is None else price / tokens * 1e6,
        "plan": best.title,
    }
