"""Small specs that many tests share."""

from typing import Any

from planner.cost.blocks import Blocks
from planner.spec.cluster import Accelerator, ClusterSpec, SharedCores, Tier
from planner.spec.model import ModelSpec
from planner.spec.runtime import Runtime
from planner.spec.workload import Workload


def decoder(
    name: str,
    family: str,
    *,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    ffn: int,
    vocab: int,
    max_positions: int,
    gated: bool,
    activation: str,
    norm: str,
    positions: str,
    tied_embeddings: bool,
    attention_bias: bool = False,
    output_bias: bool = False,
    mlp_bias: bool = False,
    sliding_window: int | None = None,
    **others: object,
) -> ModelSpec:
    """A decoder with one kind of layer, from flat values. others: fields of ModelSpec."""
    attention = {
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "window": sliding_window,
        "rotary_dim": head_dim if positions == "rotary" else 0,
        **dict.fromkeys(("q_bias", "k_bias", "v_bias"), attention_bias),
        "o_bias": output_bias,
    }
    mlp = {"ffn": ffn, "gated": gated, "activation": activation, "bias": mlp_bias}
    embedding = {
        "vocab": vocab,
        "max_positions": max_positions,
        "positions": "learned" if positions == "learned" else "none",
    }
    stack = {
        "name": "decoder",
        "embedding": embedding,
        "kinds": [{"attention": attention, "feed_forward": mlp}],
        "order": [0] * layers,
    }
    return ModelSpec.model_validate(
        {
            "name": name,
            "family": family,
            "hidden": hidden,
            "stacks": [stack],
            "head": {"classes": vocab},
            "norm": norm,
            "tied_embeddings": tied_embeddings,
            **others,
        }
    )


GPT2 = {
    "name": "small-gpt2",
    "family": "gpt2",
    "layers": 4,
    "hidden": 32,
    "heads": 4,
    "kv_heads": 4,
    "head_dim": 8,
    "ffn": 128,
    "vocab": 97,
    "max_positions": 64,
    "gated": False,
    "activation": "gelu_tanh",
    "norm": "layernorm",
    "positions": "learned",
    "tied_embeddings": True,
    "attention_bias": True,
    "output_bias": True,
    "mlp_bias": True,
}
LLAMA = {
    "name": "small-llama",
    "family": "llama",
    "layers": 4,
    "hidden": 32,
    "heads": 8,
    "kv_heads": 4,
    "head_dim": 4,
    "ffn": 48,
    "vocab": 96,
    "max_positions": 64,
    "gated": True,
    "activation": "silu",
    "norm": "rmsnorm",
    "positions": "rotary",
    "tied_embeddings": False,
}


def gpt2_like(**changes: Any) -> ModelSpec:
    """A small GPT-2: learned positions, layer norms, biases, tied embeddings."""
    return decoder(**(GPT2 | changes))


def llama_like(**changes: Any) -> ModelSpec:
    """A small Llama: rotary positions, RMS norms, grouped queries, gated MLP, untied."""
    return decoder(**(LLAMA | changes))


def with_attention(spec: ModelSpec, **changes: Any) -> ModelSpec:
    """A model of one kind of layer with other fields of its attention."""
    layer = spec.layer.replace(attention=spec.layer.attention.replace(**changes))
    return spec.replace(stacks=(spec.main.replace(kinds=(layer,)),))


def gpu_cluster(nodes: int = 1, per_node: int = 8, **changes: object) -> ClusterSpec:
    """A cluster of round numbers: 100 TFLOP/s, 1 TB/s, 100 GB/s inside and 10 GB/s between."""
    accelerator = Accelerator.model_validate(
        {
            "name": "round",
            "kind": "cuda",
            "memory": "80GiB",
            "memory_bandwidth": "1TB/s",
            "peak_flops": {"bf16": "100TFLOP/s"},
            "price_usd_per_hour": 3.6,
        }
        | changes
    )
    inside = Tier(
        name="fast", devices=per_node, bandwidth_bytes_per_second=100e9, latency_seconds=4e-6
    )
    between = Tier(
        name="slow", devices=per_node * nodes, bandwidth_bytes_per_second=10e9, latency_seconds=1e-5
    )
    return ClusterSpec(
        name=f"round:{nodes}",
        accelerator=accelerator,
        nodes=nodes,
        devices_per_node=per_node,
        tiers=(inside, between) if nodes > 1 else (inside,),
    )


def cpu_cluster(ranks: int, cores: int = 2) -> ClusterSpec:
    """Ranks that share the cores of one machine."""
    slowdown = tuple((n, 1.0 if n <= cores else n / cores) for n in (1, 2, 4, 8))
    accelerator = Accelerator.model_validate(
        {
            "name": "core",
            "kind": "cpu",
            "memory": "4GiB",
            "memory_bandwidth": "10GB/s",
            "peak_flops": {"fp32": "50GFLOP/s"},
        }
    )
    loopback = Tier(
        name="loopback", devices=ranks, bandwidth_bytes_per_second=2e9, latency_seconds=1e-4
    )
    return ClusterSpec(
        name="local",
        accelerator=accelerator,
        nodes=1,
        devices_per_node=ranks,
        tiers=(loopback,),
        backend="gloo",
        shared_cores=SharedCores(cores=cores, slowdown=slowdown),
    )


def plain_runtime(**changes: object) -> Runtime:
    """A runtime with no overlap, no overhead and every choice."""
    values = {
        "name": "plain",
        "schedules": ("gpipe", "1f1b"),
        "zero_stages": (0, 1),
        "recompute": ("none", "full"),
        "sequence_parallel": True,
        "overlaps_dp": False,
        "gradient_dtype": "fp32",
        "master_weights": True,
        "flash_attention": True,
        "recompute_stops_early": True,
    }
    return Runtime.model_validate(values | changes)


def blocks(
    model: ModelSpec | None = None,
    cluster: ClusterSpec | None = None,
    workload: Workload | None = None,
    runtime: Runtime | None = None,
) -> Blocks:
    """Blocks of a small question, on a GPU cluster unless told."""
    cluster = cluster or gpu_cluster()
    dtype = "fp32" if cluster.accelerator.kind == "cpu" else "bf16"
    return Blocks(
        model or llama_like(),
        cluster,
        workload or Workload(seq_len=32, global_batch=16, dtype=dtype),
        runtime or plain_runtime(),
        None,
    )
