"""Calculon: a system (what it runs on) and an application (what it computes).

    system       matrix.float16.tflops and gflops_efficiency [[GFLOP, share], ...], mem1 {GiB, GBps,
                 MB_efficiency}, networks [{bandwidth GB/s, efficiency, size, latency s}, ...],
                 smallest network first; sizes are devices
    application  hidden, feedforward, seq_size, attn_heads, attn_size, num_blocks

Older systems have matrix.tflops and gflops_efficiency by dtype. The tables give the share of
the peak by the size of one operation; our roofline has one share, the largest of the table. A
latency is that of a whole operation, as that of a message here. Left out: the second memory, the
overlap (processor_usage), factors of single operations.

An application is a GPT-3: layer norms in front, GELU, biases, learned positions. It has no
vocabulary (its cost is left out there): --vocab, else Megatron-LM's 51200.
"""

from collections.abc import Sequence
from typing import Any

from planner.spec import documents
from planner.spec.cluster import Accelerator, ClusterSpec, Tier
from planner.spec.documents import InputError
from planner.spec.model import ModelSpec
from planner.spec.provenance import Provenance
from profiler.imports.fields import Fields
from profiler.imports.outcome import Outcome, Wanted
from profiler.imports.source import Source

GB, GIB = 1e9, float(1 << 30)
DTYPES = {"float16": ("fp16", "bf16"), "bfloat16": ("bf16",), "float8": ("fp8",)}
"""Calculon's float16 is any format of two bytes."""
VOCAB = 51_200
MOST_LAYERS = 100_000
"""Beyond this a number of layers is a mistake."""
SYSTEM_KEYS = {"matrix", "mem1", "networks"}
APPLICATION_KEYS = {"hidden", "feedforward", "seq_size", "attn_heads", "attn_size", "num_blocks"}


def read_system(sources: Sequence[Source], wanted: Wanted) -> Outcome:
    """Import one system as a cluster. Raises InputError."""
    source = only(sources)
    top = Fields(source.path, source.mapping())
    networks = top.parts("networks")
    if not networks:
        raise top.refuse("networks", "is empty; one network at least joins the devices")
    per_node = wanted.devices_per_node or networks[0].whole("size")
    nodes = wanted.nodes or 1
    tiers = [_tier(f, i) for i, f in enumerate(networks)]
    cluster = documents.parse(
        ClusterSpec,
        {
            "name": f"{source.path.stem}:{nodes}",
            "accelerator": _accelerator(source, top, networks[0]),
            "nodes": nodes,
            "devices_per_node": per_node,
            "tiers": tiers,
            "provenance": {
                f"{tier.name}.{field}": said(source, f"networks[{i}]")
                for i, tier in enumerate(tiers)
                for field in ("bandwidth_bytes_per_second", "latency_seconds")
            },
        },
        str(source.path),
    )
    return Outcome(cluster)


def only(sources: Sequence[Source]) -> Source:
    """The one file that such an import takes. Raises InputError for more."""
    if len(sources) > 1:
        raise InputError(f"{sources[1].path}: one file makes one document; import them apart")
    return sources[0]


def said(source: Source, key: str, tool: str = "Calculon") -> Provenance:
    """The birth certificate of a number that a description says."""
    return Provenance(birth="assumed", source=f"{tool}: {source.name}: {key}")


def _tier(network: Fields, index: int) -> Tier:
    rate = network.number("bandwidth") * GB * network.number("efficiency", most=1)
    return Tier(
        name=f"network{index}",
        devices=network.whole("size"),
        bandwidth_bytes_per_second=rate,
        latency_seconds=network.number("latency", least=0),
    )


def _accelerator(source: Source, top: Fields, fabric: Fields) -> Accelerator:
    memory = top.part("mem1")
    peaks, share = _matrix(top.part("matrix"))
    fields = {
        "memory_bytes": (memory.number("GiB") * GIB, "mem1.GiB"),
        "memory_bandwidth_bytes_per_second": (memory.number("GBps") * GB, "mem1.GBps"),
        "memory_efficiency": (_best(memory, "MB_efficiency"), "mem1.MB_efficiency"),
        "peak_flops": (peaks, "matrix"),
        "matmul_efficiency": (share, "matrix, the largest gflops_efficiency"),
        "fabric_bytes_per_second": (fabric.number("bandwidth") * GB, "networks[0].bandwidth"),
    }
    return Accelerator(
        name=source.path.stem,
        kind="cuda",
        provenance={name: said(source, key) for name, (_, key) in fields.items()},
        **{name: value for name, (value, _) in fields.items()},
    )


def _matrix(matrix: Fields) -> tuple[dict[str, float], float]:
    """Peak FLOP/s by dtype, and the largest share of it."""
    peaks: dict[str, float] = {}
    shares: list[float] = []
    old = "tflops" in matrix
    table = matrix.part("gflops_efficiency") if old else matrix
    for name in table.data:
        owner = matrix if old else matrix.part(name)
        peak = owner.number("tflops") * 1e12
        peaks |= dict.fromkeys(DTYPES.get(name, ()), peak)
        shares.append(_best(table, name) if old else _best(owner, "gflops_efficiency"))
    if not peaks:
        raise matrix.refuse("float16", f"missing; known dtypes: {', '.join(DTYPES)}")
    return peaks, max(shares)


def _best(owner: Fields, name: str) -> float:
    """The largest share of a table [[size, share], ...]."""
    table: Any = owner.data.get(name)
    pairs = isinstance(table, list) and all(isinstance(p, list) and len(p) == 2 for p in table)
    if not pairs or not table:
        raise owner.refuse(name, "is no table [[size, share], ...]")
    return max(owner.checked(name, share, None, 1.0) for _, share in table)


def read_application(sources: Sequence[Source], wanted: Wanted) -> Outcome:
    """Import one application as a model. Raises InputError."""
    source = only(sources)
    top = Fields(source.path, source.mapping())
    sizes = {key: top.whole(key) for key in sorted(APPLICATION_KEYS - {"num_blocks"})}
    layers = top.whole("num_blocks", most=MOST_LAYERS)
    vocab = wanted.vocab or VOCAB
    attention = {
        "heads": sizes["attn_heads"],
        "kv_heads": sizes["attn_heads"],
        "head_dim": sizes["attn_size"],
        **dict.fromkeys(("q_bias", "k_bias", "v_bias", "o_bias"), True),
    }
    mlp = {"ffn": sizes["feedforward"], "gated": False, "activation": "gelu_tanh", "bias": True}
    embedding = {"vocab": vocab, "max_positions": sizes["seq_size"], "positions": "learned"}
    stack = {
        "name": "decoder",
        "embedding": embedding,
        "kinds": [{"attention": attention, "feed_forward": mlp}],
        "order": [0] * layers,
    }
    born = f"Calculon: {source.name}; vocabulary of {vocab} not from the file"
    model = {
        "name": source.path.stem,
        "family": "gpt2",
        "hidden": sizes["hidden"],
        "stacks": [stack],
        "head": {"classes": vocab},
        "norm": "layernorm",
        "tied_embeddings": True,
        "source": born,
    }
    notes = () if wanted.vocab else (f"{source.path}: has no vocabulary; {VOCAB} (--vocab) taken",)
    return Outcome(documents.parse(ModelSpec, model, str(source.path)), notes)
