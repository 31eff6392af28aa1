"""Grid: what to profile when no model is named: layers of three common widths."""

from planner.graph import inventory
from planner.spec.model import ModelSpec
from profiler.kinds import OperatorRequest, distinct
from profiler.layers import Reference

WIDTHS = (256, 512, 1024)
SEQ_LEN = 128
MICRO_BATCH = 4
HEAD_DIM = 64
VOCAB = 8192


def plain_model(hidden: int = WIDTHS[0], layers: int = 4) -> ModelSpec:
    """A GPT-2 of this width: learned positions, layer norms, biases, an MLP four times as wide."""
    heads = max(1, hidden // HEAD_DIM)
    return ModelSpec(
        name=f"plain-{hidden}",
        family="gpt2",
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        ffn=4 * hidden,
        vocab=VOCAB,
        max_positions=1024,
        gated=False,
        activation="gelu_tanh",
        norm="layernorm",
        positions="learned",
        tied_embeddings=True,
        attention_bias=True,
        output_bias=True,
        mlp_bias=True,
    )


def plain_reference(dtype: str) -> Reference:
    """The layers that are timed whole when no model is named."""
    return Reference.model_validate(
        {"model": plain_model(), "seq_len": SEQ_LEN, "micro_batch": MICRO_BATCH, "dtype": dtype}
    )


def generic_requests(dtype: str) -> list[OperatorRequest]:
    """Operators of plain models of all widths, at one microbatch and its quarter."""
    batches = (MICRO_BATCH, 1)
    models = [plain_model(hidden) for hidden in WIDTHS]
    return distinct(r for m in models for r in model_requests(m, SEQ_LEN, batches, (1,), dtype))


def model_requests(
    model: ModelSpec,
    seq_len: int,
    micro_batches: tuple[int, ...],
    tps: tuple[int, ...],
    dtype: str,
) -> list[OperatorRequest]:
    """The distinct operators that a search over a model can meet, layers first."""
    pairs = inventory.requests(model, seq_len, micro_batches, tps, dtype)
    return [OperatorRequest(kind, dims, dtype) for kind, dims in pairs]
