"""Plain: the decoders whose layers the profiler can time whole.

    h = E[tokens] (+ P[positions]);   h = h + A(N h);   h = h + F(N h)  per layer;   N h U^T

One stack of one kind of layer: causal self-attention with grouped queries, rotary positions,
biases and normed heads as it likes, a dense MLP, the norms in front. `problems` names all else
by its key, so that it can be refused at the door.
"""

from collections.abc import Iterator

from planner.spec.layer import MLP, Attention, Experts, LayerSpec
from planner.spec.model import Embedding, Head, ModelSpec, Stack

PLAIN = "a plain decoder (like GPT-2, Llama or Qwen3)"


def problems(model: ModelSpec, seq_len: int) -> Iterator[str]:
    """What of a model is not plain at this sequence length, each with its key and value."""
    if len(model.stacks) > 1:
        yield "model.stacks: an encoder and a decoder; only one decoder is implemented"
    for index, stack in enumerate(model.stacks):
        yield from _stack(stack, f"model.stacks.{index}", seq_len)
    yield from _head(model.head)
    if model.head.classes != model.vocab:
        yield (
            f"model.head.classes={model.head.classes} differs from the vocabulary {model.vocab}; "
            f"only a head over the tokens is implemented"
        )


def mlp(model: ModelSpec) -> MLP:
    """The MLP of a plain decoder's layers."""
    feed_forward = model.layer.feed_forward
    assert isinstance(feed_forward, MLP), f"{model.name} is not plain"
    return feed_forward


def _stack(stack: Stack, key: str, seq_len: int) -> Iterator[str]:
    if stack.name != "decoder":
        yield f"{key}.name={stack.name}; only decoders are implemented"
    if len(stack.kinds) > 1:
        yield f"{key}.kinds: {len(stack.kinds)} kinds of layers; only one kind is implemented"
    yield from _embedding(stack.embedding, f"{key}.embedding", seq_len)
    for index, kind in enumerate(stack.kinds):
        yield from _layer(kind, f"{key}.kinds.{index}", seq_len)
    if not stack.final_norm:
        yield f"{key}.final_norm=false; only a stack with a norm at its end is implemented"


def _embedding(embedding: Embedding, key: str, seq_len: int) -> Iterator[str]:
    yield from _absent(embedding, key, ("convolutions", "class_token", "token_types", "width"))
    yield from _absent(embedding, key, ("norm", "position_offset", "shared_table"))
    if embedding.positions == "frozen":
        yield f"{key}.positions=frozen is not implemented; only learned ones or none are"
    if embedding.positions == "learned" and seq_len > embedding.max_positions:
        yield f"seq_len={seq_len} exceeds {key}.max_positions={embedding.max_positions}"


def _layer(layer: LayerSpec, key: str, seq_len: int) -> Iterator[str]:
    if isinstance(layer.feed_forward, Experts):
        yield f"{key}.feed_forward: experts are not implemented; only a dense MLP is"
    if layer.cross_attention is not None:
        yield f"{key}.cross_attention is not implemented"
    if layer.placement != "pre":
        yield f"{key}.placement={layer.placement} is not implemented; only pre is"
    yield from _absent(layer, key, ("parallel",))
    yield from _attention(layer.attention, f"{key}.attention", seq_len)


def _attention(attention: Attention, key: str, seq_len: int) -> Iterator[str]:
    yield from _absent(attention, key, ("latent", "relative_buckets", "score_cap"))
    if not attention.causal:
        yield f"{key}.causal=false is not implemented; only causal attention is"
    if attention.value_head != attention.head_dim:
        yield (
            f"{key}.value_dim={attention.value_dim} differs from head_dim={attention.head_dim}; "
            f"only equal ones are implemented"
        )
    if attention.window is not None and attention.window < seq_len:
        yield (
            f"{key}.window={attention.window} is less than seq_len={seq_len}; only attention to "
            f"all earlier tokens is implemented"
        )


def _head(head: Head) -> Iterator[str]:
    if head.kind != "language_model":
        yield f"model.head.kind={head.kind} is not implemented; only language_model is"
    yield from _absent(head, "model.head", ("width", "transform", "pooler", "bias", "mtp_layers"))


def _absent(
    part: Attention | Embedding | Head | LayerSpec, key: str, names: tuple[str, ...]
) -> Iterator[str]:
    """Fields that must be empty (None, false, zero)."""
    for name in names:
        if value := getattr(part, name):
            shown = f"={str(value).lower()}" if isinstance(value, bool | int | float) else ""
            yield f"{key}.{name}{shown} is not implemented"
