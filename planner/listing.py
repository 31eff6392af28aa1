"""Listing: the catalog for people and programs, and the JSON Schemas of the documents."""

import difflib
from collections.abc import Sequence
from typing import Any

from planner import schedule_card
from planner.graph import counts
from planner.spec import catalog
from planner.spec.calibration import Calibration
from planner.spec.checkpoint import Record
from planner.spec.cluster import Accelerator, ClusterSpec
from planner.spec.documents import Document, InputError
from planner.spec.graph import GraphDocument
from planner.spec.layer import Experts
from planner.spec.ledger import Ledger
from planner.spec.measured import Measured
from planner.spec.model import ModelSpec
from planner.spec.node import Node
from planner.spec.plan import Plan
from planner.spec.profile import Profile
from planner.spec.runtime import SCHEDULES, Runtime
from planner.spec.timeline import Timeline
from planner.spec.trained import Trained
from planner.spec.units import format_bytes, format_count, format_rate
from planner.spec.workload import Workload

Rows = list[dict[str, Any]]

DOCUMENTS: dict[str, type[Document]] = {
    "model": ModelSpec,
    "graph": GraphDocument,
    "accelerator": Accelerator,
    "node": Node,
    "cluster": ClusterSpec,
    "workload": Workload,
    "runtime": Runtime,
    "profile": Profile,
    "calibration": Calibration,
    "plan": Plan,
    "timeline": Timeline,
    "measured": Measured,
    "trained": Trained,
    "checkpoint": Record,
    "ledger": Ledger,
}


def listing(what: str, name: str) -> tuple[str, Rows, dict[str, Any]]:
    """Title, rows and JSON value of `meshwright show WHAT NAME`. Raises InputError."""
    lists = {
        "models": _models,
        "clusters": _clusters,
        "accelerators": _accelerators,
        "runtimes": _runtimes,
        "schedules": schedule_card.rows,
    }
    if not what:
        return _everything()
    if name:
        return _entry(what, name)
    if (many := what if what.endswith("s") else what + "s") not in lists:
        raise _unknown("show", what, [*lists, *(f"{many[:-1]} NAME" for many in lists)])
    rows = lists[many]()
    return many, rows, {"schema": f"{many}/1", many: rows}


def refuse_options(what: str, *options: object) -> None:
    """Raise InputError if options of `show model NAME` are given with something else."""
    if any(options):
        raise InputError(
            f"show {what}: --graph, --seq-len and --layout belong to `show model NAME`; "
            f"name a model or leave them out"
        )


def _everything() -> tuple[str, Rows, dict[str, Any]]:
    rows = [
        {"what": "models", "names": ", ".join(catalog.list_models())},
        {"what": "clusters", "names": ", ".join(catalog.list_clusters()) + ", local"},
        {"what": "accelerators", "names": ", ".join(catalog.list_accelerators())},
        {"what": "runtimes", "names": ", ".join(catalog.list_runtimes())},
        {"what": "schedules", "names": ", ".join(SCHEDULES)},
        {"what": "documents", "names": ", ".join(DOCUMENTS)},
    ]
    value = {row["what"]: row["names"].split(", ") for row in rows}
    return "The catalog", rows, {"schema": "catalog/1", **value}


def _entry(what: str, name: str) -> tuple[str, Rows, dict[str, Any]]:
    finders = {
        "cluster": catalog.find_cluster,
        "runtime": catalog.find_runtime,
        "accelerator": catalog.find_accelerator,
    }
    if what.rstrip("s") not in finders:
        raise _unknown("show", what, ["model", "schedule", *finders])
    found: Document = finders[what.rstrip("s")](name)
    value = found.model_dump(mode="json")
    rows = [{"key": key, "value": _short(item)} for key, item in value.items()]
    return f"{what} {name}", rows, value


def _short(item: Any) -> str:
    text = str(item)
    return text if len(text) <= 400 else text[:400] + " ..."


def _models() -> Rows:
    return [_model_row(catalog.find_model(name)) for name in catalog.list_models()]


def _feed_forward(model: ModelSpec) -> str:
    """Widths of the MLPs; `8x14336 (2)` are eight experts of which two serve a token."""
    found = []
    for kind in model.main.kinds:
        part = kind.feed_forward
        if isinstance(part, Experts):
            found.append(f"{part.experts}x{part.expert.ffn} ({part.per_token})")
        else:
            found.append(str(part.ffn))
    return ", ".join(dict.fromkeys(found))


def _model_row(model: ModelSpec) -> dict[str, Any]:
    counted, attention = counts.parameters(model), model.main.kinds[0].attention
    published = model.published_parameters
    return {
        "name": model.name,
        "parameters": format_count(counted),
        "exact": counted,
        "published": "" if published is None else ("equal" if published == counted else published),
        "layers": "+".join(str(len(stack.order)) for stack in model.stacks),
        "hidden": model.hidden,
        "heads": f"{attention.heads}/{attention.kv_heads}",
        "ffn": _feed_forward(model),
        "vocab": model.vocab or "",
        "positions": model.max_positions,
    }


def _clusters() -> Rows:
    return [_cluster_row(catalog.find_cluster(name)) for name in catalog.list_clusters()]


def _cluster_row(cluster: ClusterSpec) -> dict[str, Any]:
    device = cluster.accelerator
    return {
        "name": f"{cluster.name.partition(':')[0]}:NODES",
        "device": device.name,
        "per node": cluster.devices_per_node,
        "memory": format_bytes(cluster.memory_bytes),
        "16-bit peak": _peak(device),
        "network (per device)": ", ".join(
            f"{tier.name} {format_rate(tier.bandwidth_bytes_per_second)}" for tier in cluster.tiers
        ),
        "$/h": device.price_usd_per_hour,
    }


def _accelerators() -> Rows:
    return [_accelerator_row(catalog.find_accelerator(n)) for n in catalog.list_accelerators()]


def _accelerator_row(device: Accelerator) -> dict[str, Any]:
    memory, bandwidth = device.memory_bytes, device.memory_bandwidth_bytes_per_second
    return {
        "name": device.name,
        "memory": "" if memory is None else format_bytes(memory),
        "memory bandwidth": "" if bandwidth is None else format_rate(bandwidth),
        "16-bit peak": _peak(device),
        "$/h": device.price_usd_per_hour,
    }


def _peak(device: Accelerator) -> str:
    peaks = {str(name): flops for name, flops in device.peak_flops.items()}
    peak = peaks.get("bf16") or peaks.get("fp16")
    return "" if peak is None else f"{format_count(peak)}FLOP/s"


def _runtimes() -> Rows:
    found = [catalog.find_runtime(name) for name in catalog.list_runtimes()]
    return [
        {
            "name": runtime.name,
            "schedules": ", ".join(runtime.schedules),
            "zero": ", ".join(map(str, runtime.zero_stages)),
            "recompute": ", ".join(runtime.recompute),
            "overlaps dp": runtime.overlaps_dp,
            "description": runtime.description,
        }
        for runtime in found
    ]


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a document by name. Raises InputError with the names there are."""
    if name not in DOCUMENTS:
        raise _unknown("schema", name, list(DOCUMENTS))
    cls = DOCUMENTS[name]
    made = cls.model_json_schema(mode="validation")
    made["properties"] = {"schema": {"const": cls.SCHEMA}, **made["properties"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _unknown(where: str, word: str, known: Sequence[str]) -> InputError:
    close = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return InputError(f"{where}: {word!r} is unknown; {hint}known: {', '.join(known)}")
