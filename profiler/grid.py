"""Grid: what to profile when no model is named: layers of three common widths.

Widths and sequences are such that a device of that kind has something to do: on a GPU layers that
are launch-bound would tell nothing of the others.
"""

from dataclasses import dataclass

from planner.graph import inventory
from planner.spec.layer import MLP, Attention, LayerSpec
from planner.spec.model import Embedding, Head, ModelSpec, Stack
from profiler.kinds import OperatorRequest, distinct
from profiler.layers import Reference


@dataclass(frozen=True, slots=True)
class Scale:
    """Of a device kind: widths, tokens of a sequence, width of the layers timed whole."""

    widths: tuple[int, ...]
    seq_len: int
    whole: int


SCALES = {"cpu": Scale((256, 512, 1024), 128, 256), "cuda": Scale((1024, 2048, 4096), 2048, 2048)}
WIDTHS = SCALES["cpu"].widths
MICRO_BATCH = 4
HEAD_DIM = 64
VOCAB = 8192
MOST_POSITIONS = 2048


def plain_model(hidden: int = WIDTHS[0], layers: int = 4) -> ModelSpec:
    """A GPT-2 of this width: learned positions, layer norms, biases, an MLP four times as wide."""
    heads = max(1, hidden // HEAD_DIM)
    attention = Attention(
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        q_bias=True,
        k_bias=True,
        v_bias=True,
        o_bias=True,
    )
    mlp = MLP(ffn=4 * hidden, gated=False, activation="gelu_tanh", bias=True)
    stack = Stack(
        name="decoder",
        embedding=Embedding(vocab=VOCAB, max_positions=MOST_POSITIONS, positions="learned"),
        kinds=(LayerSpec(attention=attention, feed_forward=mlp),),
        order=(0,) * layers,
    )
    return ModelSpec(
        name=f"plain-{hidden}",
        family="gpt2",
        hidden=hidden,
        stacks=(stack,),
        head=Head(classes=VOCAB),
        norm="layernorm",
        tied_embeddings=True,
    )


def plain_reference(dtype: str, device: str = "cpu") -> Reference:
    """The layers that are timed whole when no model is named."""
    scale = SCALES[device]
    values = {"model": plain_model(scale.whole), "seq_len": scale.seq_len}
    return Reference.model_validate({**values, "micro_batch": MICRO_BATCH, "dtype": dtype})


def generic_requests(dtype: str, device: str = "cpu") -> list[OperatorRequest]:
    """Operators of plain models of all widths, at one microbatch and its quarter."""
    batches, scale = (MICRO_BATCH, 1), SCALES[device]
    models = [plain_model(hidden) for hidden in scale.widths]
    return distinct(
        r for m in models for r in model_requests(m, scale.seq_len, batches, (1,), dtype)
    )


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
