"""Answer: an imported document as tables."""

import statistics
from collections import defaultdict
from typing import Any

from planner.spec import printing
from planner.spec.cluster import Accelerator, ClusterSpec
from planner.spec.layer import Experts
from planner.spec.model import ModelSpec
from planner.spec.profile import CollectiveFit, CollectiveSample, Profile
from planner.spec.units import format_bytes, format_rate, format_seconds
from profiler.imports.outcome import Imported

Rows = list[dict[str, Any]]


def print_tables(document: Imported) -> None:
    """Print what was imported; tables without rows are left out."""
    for title, rows in tables(document):
        if rows:
            printing.print_table(rows, title)


def tables(document: Imported) -> list[tuple[str, Rows]]:
    """(title, rows) of an imported document."""
    if isinstance(document, ClusterSpec):
        return [("cluster", _cluster(document)), ("tiers", _tiers(document))]
    if isinstance(document, Accelerator):
        return [("accelerator", _accelerator(document))]
    if isinstance(document, ModelSpec):
        return [("model", _model(document))]
    return [
        ("profile", _profile(document)),
        ("collectives: seconds = latency + bytes / bandwidth", _collectives(document)),
        ("operators (median)", _operators(document)),
        ("layers", _layers(document)),
        ("bytes of layers", _memory(document)),
        ("kernels", _kernels(document)),
    ]


def _facts(facts: dict[str, object]) -> Rows:
    return [{"fact": k, "value": v} for k, v in facts.items() if v not in (None, "", 0)]


def _profile(profile: Profile) -> Rows:
    machine, trace = profile.machine, profile.trace
    steps = trace.step_seconds if trace else ()
    return _facts(
        {
            "device": machine.accelerator,
            "devices per node": machine.accelerators,
            "collectives": len(profile.collectives),
            "operators": len(profile.operators),
            "steps": len(steps),
            "step (median)": format_seconds(statistics.median(steps)) if steps else None,
            "ranks traced": trace.ranks if trace else None,
            "overlap slowdown": profile.overlap_slowdown,
            "birth": profile.provenance.birth,
            "source": profile.provenance.source,
        }
    )


def _collectives(profile: Profile) -> Rows:
    cases: dict[tuple[Any, ...], list[CollectiveSample]] = defaultdict(list)
    for sample in profile.collectives:
        cases[sample.op, sample.ranks, sample.groups, sample.nodes].append(sample)
    lines = {(fit.op, fit.ranks, fit.groups, fit.nodes): fit for fit in profile.fits}
    return [_case(case, samples, lines.get(case)) for case, samples in cases.items()]


def _case(
    case: tuple[Any, ...], samples: list[CollectiveSample], fit: CollectiveFit | None
) -> dict[str, Any]:
    """One row: sizes and times of a case, and its fit if it has two sizes or more."""
    op, ranks, groups, nodes = case
    few, many = (pick(samples, key=lambda s: s.message_bytes) for pick in (min, max))
    row = {"op": op, "ranks": ranks, "groups": groups, "nodes": nodes, "samples": len(samples)}
    row["from"] = f"{format_bytes(few.message_bytes)} in {format_seconds(few.seconds)}"
    row["to"] = f"{format_bytes(many.message_bytes)} in {format_seconds(many.seconds)}"
    row["latency"] = format_seconds(fit.latency_seconds) if fit else ""
    row["bandwidth"] = format_rate(fit.bandwidth_bytes_per_second) if fit else ""
    row["median error"] = f"{100 * fit.median_error:.0f} %" if fit else ""
    return row


def _operators(profile: Profile) -> Rows:
    return [
        {
            "kind": sample.kind,
            "dims": " ".join(f"{name}={value}" for name, value in sample.dims.items()),
            "dtype": sample.dtype,
            "phase": sample.phase,
            "time": format_seconds(sample.seconds),
            "repeats": sample.repeats,
        }
        for sample in profile.operators
    ]


def _layers(profile: Profile) -> Rows:
    return [
        {
            "layer": sample.layer,
            "batch": sample.batch,
            "seq": sample.seq_len,
            "phase": sample.phase,
            "time": format_seconds(sample.seconds),
        }
        for sample in profile.layers
    ]


def _memory(profile: Profile) -> Rows:
    return [
        {
            "layer": found.layer,
            "tp": found.tp,
            "seq": found.seq_len,
            "sequence parallel": found.sequence_parallel,
            "parameters": format_bytes(found.parameter_bytes or 0.0),
            "activations per sequence": format_bytes(found.activation_bytes),
        }
        for found in profile.layer_memory
    ]


def _kernels(profile: Profile) -> Rows:
    kernels = profile.trace.kernels if profile.trace else ()
    total = sum(kernel.seconds for kernel in kernels) or 1.0
    return [
        {
            "kernel": kernel.name[:80],
            "family": kernel.family,
            "launches": kernel.launches,
            "time": format_seconds(kernel.seconds),
            "share": f"{100 * kernel.seconds / total:.1f} %",
        }
        for kernel in kernels
    ]


def _cluster(cluster: ClusterSpec) -> Rows:
    facts = {"name": cluster.name, "nodes": cluster.nodes}
    device = _accelerator(cluster.accelerator)
    device[0] = {"fact": "device", "value": cluster.accelerator.name}
    return [*_facts({**facts, "devices per node": cluster.devices_per_node}), *device]


def _accelerator(device: Accelerator) -> Rows:
    rate = device.memory_bandwidth_bytes_per_second
    return _facts(
        {
            "name": device.name,
            "memory": format_bytes(device.memory_bytes or 0.0),
            "memory bandwidth": format_rate(rate) if rate else None,
            "peak": ", ".join(f"{k} {v / 1e12:g} TFLOP/s" for k, v in device.peak_flops.items()),
            "of which products": device.matmul_efficiency,
        }
    )


def _tiers(cluster: ClusterSpec) -> Rows:
    rows = []
    for tier in cluster.tiers:
        born = cluster.provenance.get(f"{tier.name}.bandwidth_bytes_per_second")
        rows.append(
            {
                "tier": tier.name,
                "devices": tier.devices,
                "per device": format_rate(tier.bandwidth_bytes_per_second),
                "latency": format_seconds(tier.latency_seconds),
                "birth": born.birth if born else "",
                "source": born.source if born else "",
            }
        )
    return rows


def _model(model: ModelSpec) -> Rows:
    attention = model.main.kinds[0].attention
    last = model.main.kinds[-1].feed_forward
    experts = f"{last.experts} of which {last.per_token}" if isinstance(last, Experts) else None
    return _facts(
        {
            "name": model.name,
            "layers": model.layers,
            "hidden": model.hidden,
            "heads": f"{attention.heads}/{attention.kv_heads} of {attention.head_dim}",
            "experts": experts,
            "vocabulary": model.vocab,
            "source": model.source,
        }
    )
