"""SimuMax: a system (what it runs on, and what was measured there) and a model.

    system  sys_name, num_per_node, accelerator.{mem_gbs, op.{matmul, ...}.{tflops,
            efficient_factor, accurate_efficient_factor}, bandwidth.default.{gbps,
            efficient_factor}}, networks.{intra..., inter_node}.{bandwidth.{gbps,
            efficient_factor, latency_us}, op.{all_reduce, ...}.{scale, offset,
            efficient_factor, latency_us}}
    model   hidden_size, head_num, kv_head_num, head_size, intermediate_size, layer_num,
            vocab_size, use_swiglu; experts and latent attention by their own keys

Its times are size * scale * (1 + offset / n) / (gbps * 2^30 * share) + latency of the operation
and FLOPs / (tflops * share); gbps of inter_node is that of a whole node. Of the networks inside a
node the one for most devices counts, with the shares of all_reduce: its latency is that of 2(n-1)
messages of a ring.

accurate_efficient_factor holds measured shares by shape, from which seconds follow. Matrix
products have the layouts TN (forward, m x k x n), NN (gradient of the input, m x n x k) and NT
(of the weights, n x m x k); the last two together are our backward. Shapes of attention and of
grouped products are left out: the file does not say which FLOPs their shares count.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from planner.spec import documents
from planner.spec.cluster import Accelerator, ClusterSpec, Tier
from planner.spec.documents import InputError
from planner.spec.model import ModelSpec
from planner.spec.profile import Machine, OperatorSample, Profile
from planner.spec.provenance import Provenance
from profiler.imports.calculon import MOST_LAYERS, only, said
from profiler.imports.fields import Fields
from profiler.imports.outcome import Outcome, Wanted, measured_by, today
from profiler.imports.source import Source

GIB = float(1 << 30)
SYSTEM_KEYS = {"accelerator", "networks", "num_per_node"}
MODEL_KEYS = {"hidden_size", "head_num", "layer_num"}
SHAPE = re.compile(
    r"b=(\d+), m=(\d+), k=(\d+), n=(\d+), layout=(TN|NN|NT), accumulate=\w+, out_dtype=\w+$"
)
POSITIONS = 131_072
"""The longest sequence of a model with rotary positions: the file names none."""

Shape = tuple[int, int, int]


def read_system(sources: Sequence[Source], wanted: Wanted) -> Outcome:
    """Import a system: the cluster, or (--as profile) its measured products. Raises InputError."""
    source = only(sources)
    top = Fields(source.path, source.mapping())
    if wanted.target == "profile":
        return _profile(source, top)
    return _cluster(source, top, wanted)


def _cluster(source: Source, top: Fields, wanted: Wanted) -> Outcome:
    per_node = wanted.devices_per_node or top.whole("num_per_node")
    nodes = wanted.nodes or 1
    tiers, born = _tiers(source, top.part("networks"), per_node, nodes)
    cluster = ClusterSpec(
        name=f"{top.text('sys_name', source.path.stem)}:{nodes}",
        accelerator=_accelerator(source, top),
        nodes=nodes,
        devices_per_node=per_node,
        tiers=tuple(tiers),
        provenance=born,
    )
    measured = sum(1 for _ in _products(top.part("accelerator").part("op")))
    note = f"{source.path}: {measured} measured products as well; --as profile makes a profile"
    return Outcome(cluster, (note,) if measured else ())


def _accelerator(source: Source, top: Fields) -> Accelerator:
    device = top.part("accelerator")
    ops = device.part("op")
    product = ops.part("matmul" if "matmul" in ops else "default")
    peaks = dict.fromkeys(("bf16", "fp16"), product.number("tflops") * 1e12)
    if "fp8_matmul" in ops:
        peaks["fp8"] = ops.part("fp8_matmul").number("tflops") * 1e12
    memory = device.part("bandwidth").part("default")
    fields: dict[str, tuple[Any, str]] = {
        "memory_bytes": (device.number("mem_gbs") * GIB, "mem_gbs"),
        "memory_bandwidth_bytes_per_second": (memory.number("gbps") * GIB, "bandwidth.default"),
        "memory_efficiency": (memory.number("efficient_factor", most=1), "bandwidth.default"),
        "peak_flops": (peaks, "op.matmul.tflops"),
        "matmul_efficiency": (product.number("efficient_factor", most=1), "op.matmul"),
    }
    return Accelerator(
        name=top.text("sys_name", source.path.stem),
        kind="cuda",
        provenance={k: said(source, f"accelerator.{v}", "SimuMax") for k, (_, v) in fields.items()},
        **{name: value for name, (value, _) in fields.items()},
    )


def _tiers(
    source: Source, networks: Fields, per_node: int, nodes: int
) -> tuple[list[Tier], dict[str, Provenance]]:
    chosen = [("fabric", _inside(networks), per_node, 1)]
    if nodes > 1:
        chosen.append(("network", "inter_node", nodes * per_node, per_node))
    tiers, born = [], {}
    for name, key, devices, shared in chosen:
        tiers.append(_tier(name, networks.part(key), devices, per_node, shared))
        for field in ("bandwidth_bytes_per_second", "latency_seconds"):
            born[f"{name}.{field}"] = said(source, f"networks.{key}", "SimuMax")
    return tiers, born


def _inside(networks: Fields) -> str:
    """The network of all devices of a node."""
    pcie = bool(networks.data.get("intra_with_pcie"))
    usual = ["intra_node_pcie_8x", "intra_node_pcie_4x", "intra_node_pcie_2x"]
    names = usual if pcie else ["high_intra_node", "low_intra_node", "intra_node"]
    found = next((name for name in names if name in networks), None)
    if found is None:
        raise networks.refuse(names[0], f"missing (or one of {', '.join(names[1:])})")
    return found


def _tier(name: str, network: Fields, devices: int, per_node: int, shared: int) -> Tier:
    link, reduce = network.part("bandwidth"), network.part("op").part("all_reduce")
    share = reduce.optional("efficient_factor") or link.number("efficient_factor")
    ring = reduce.optional("latency_us", least=0)
    seconds = link.number("latency_us", least=0)
    if ring is not None:
        seconds = ring / max(1, 2 * (per_node - 1))
    return Tier(
        name=name,
        devices=devices,
        bandwidth_bytes_per_second=link.number("gbps") * GIB * share / shared,
        latency_seconds=seconds * 1e-6,
    )


def _profile(source: Source, top: Fields) -> Outcome:
    ops = top.part("accelerator").part("op")
    rate = ops.part("matmul" if "matmul" in ops else "default").number("tflops") * 1e12
    samples = tuple(_operators(list(_products(ops)), rate))
    if not samples:
        raise InputError(
            f"{source.path}: accelerator.op.matmul.accurate_efficient_factor: no measured shape; "
            f"leave out --as profile to import the cluster"
        )
    profile = Profile(
        machine=Machine(
            kind="cuda",
            accelerator=top.text("sys_name", source.path.stem),
            accelerators=top.whole("num_per_node"),
            accelerator_memory_bytes=top.part("accelerator").number("mem_gbs") * GIB,
        ),
        created=today(),
        operators=samples,
        provenance=measured_by("SimuMax, accurate_efficient_factor", [source]),
    )
    left = sum(len(_shares(ops, name)) for name in ops.data if name != "matmul")
    note = f"{source.path}: {left} shapes of other operators left out (their FLOPs are not said)"
    return Outcome(profile, (note,) if left else ())


def _products(ops: Fields) -> Iterator[tuple[str, Shape, float]]:
    """(layout, (m, k, n), share of the peak) of every measured product."""
    for text, share in _shares(ops, "matmul").items():
        match = SHAPE.match(text)
        if match is None:
            raise ops.refuse("matmul.accurate_efficient_factor", f"{text!r} is no shape")
        batch, m, k, n = (int(size) for size in match.groups()[:4])
        if min(batch, m, k, n) < 1:
            raise ops.refuse("matmul.accurate_efficient_factor", f"{text!r} has a size of 0")
        yield match[5], (batch * m, k, n), share


def _shares(ops: Fields, name: str) -> dict[str, float]:
    entry = ops.data.get(name)
    if not isinstance(entry, dict) or not entry.get("accurate_efficient_factor"):
        return {}
    table = ops.part(name).part("accurate_efficient_factor")
    return {shape: table.number(shape) for shape in table.data}


def _operators(
    products: Sequence[tuple[str, Shape, float]], rate: float
) -> Iterator[OperatorSample]:
    seconds = {
        (layout, shape): 2.0 * shape[0] * shape[1] * shape[2] / (rate * share)
        for layout, shape, share in products
    }
    for (layout, (m, k, n)), forward in seconds.items():
        if layout != "TN":
            continue
        dims = {"m": m, "k": k, "n": n, "bias": 0}
        yield OperatorSample(
            kind="linear", dims=dims, dtype="bf16", phase="forward", seconds=forward
        )
        to_input, to_weight = seconds.get(("NN", (m, n, k))), seconds.get(("NT", (n, m, k)))
        if to_input is not None and to_weight is not None:
            yield OperatorSample(
                kind="linear",
                dims=dims,
                dtype="bf16",
                phase="backward",
                seconds=to_input + to_weight,
            )


def read_model(sources: Sequence[Source], _: Wanted) -> Outcome:
    """Import a model. Raises InputError."""
    source = only(sources)
    top = Fields(source.path, source.mapping())
    gated, vocab = top.flag("use_swiglu", True), top.whole("vocab_size", least=2)
    layers = top.whole("layer_num", most=MOST_LAYERS)
    attention = _latent(top) if top.data.get("attention_type") == "mla" else _attention(top)
    kinds, order = _feed_forward(top, gated, layers)
    stack = {
        "name": "decoder",
        "embedding": {"vocab": vocab, "max_positions": POSITIONS},
        "kinds": [{"attention": attention, "feed_forward": kind} for kind in kinds],
        "order": order,
    }
    model = {
        "name": top.text("model_name", source.path.stem),
        "family": "llama" if gated else "gpt2",
        "hidden": top.whole("hidden_size"),
        "stacks": [stack],
        "head": {"classes": vocab},
        "norm": "rmsnorm" if gated else "layernorm",
        "source": f"SimuMax: {source.name}; rotary positions and untied tables assumed",
    }
    return Outcome(documents.parse(ModelSpec, model, str(source.path)))


def _attention(top: Fields) -> dict[str, Any]:
    width = top.whole("head_size")
    return {
        "heads": top.whole("head_num"),
        "kv_heads": top.whole("kv_head_num"),
        "head_dim": width,
        "rotary_dim": width,
    }


def _latent(top: Fields) -> dict[str, Any]:
    rotary = top.whole("qk_pos_emb_head_dim")
    query = top.data.get("q_lora_rank") and top.whole("q_lora_rank")
    return {
        "heads": top.whole("head_num"),
        "kv_heads": top.whole("head_num"),
        "head_dim": top.whole("qk_head_dim") + rotary,
        "value_dim": top.whole("v_head_dim"),
        "rotary_dim": rotary,
        "latent": {"query_rank": query or None, "kv_rank": top.whole("kv_lora_rank")},
    }


def _feed_forward(top: Fields, gated: bool, layers: int) -> tuple[list[dict[str, Any]], list[int]]:
    """The kinds of feed-forward parts, and the kind of each layer."""
    dense = _mlp(top, "intermediate_size", gated)
    if int(top.optional("expert_num", least=0) or 0) <= 1:
        return [dense], [0] * layers
    experts: dict[str, Any] = {
        "experts": top.whole("expert_num"),
        "per_token": top.whole("topk"),
        "expert": _mlp(top, "moe_ffn_hidden_size", gated),
    }
    if top.optional("moe_shared_expert_intermediate_size", least=0):
        experts["shared"] = _mlp(top, "moe_shared_expert_intermediate_size", gated)
    first = int(top.optional("dense_layers", least=0) or 0)
    if first > layers:
        raise top.refuse("dense_layers", f"{first} is more than the {layers} layers")
    if first in (0, layers):
        return [dense if first else experts], [0] * layers
    return [dense, experts], [0] * first + [1] * (layers - first)


def _mlp(top: Fields, key: str, gated: bool) -> dict[str, Any]:
    activation = "silu" if gated else "gelu_tanh"
    return {"ffn": top.whole(key), "gated": gated, "activation": activation}
