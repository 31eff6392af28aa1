"""Plain: the decoders whose layers the profiler can time whole.

    h = E[tokens] (+ P[positions]);   h = h + A(N h);   h = h + F(N h)  per layer;   N h U^T

One stack of one kind of layer: causal self-attention with grouped queries, rotary positions,
biases and normed heads as it likes, a dense MLP, the norms in front. `problems` names all else
by its key, so that it can be refused at the door.
"""

from collections.abc import Iterator

from planner.spec import runnable
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
    more = ("token_types", "norm", "position_offset", "shared_table")
    yield from runnable.absent(embedding, key, more)
    yield from runnable.embedding_problems(embedding, key, seq_len)


def _layer(layer: LayerSpec, key: str, seq_len: int) -> Iterator[str]:
    if isinstance(layer.feed_forward, Experts):
        yield f"{key}.feed_forward: experts are not implemented; only a dense MLP is"
    if layer.cross_attention is not None:
        yield f"{key}.cross_attention is not implemented"
    if layer.placement != "pre":
        yield f"{key}.placement={layer.placement} is not implemented; only pre is"
    yield from runnable.absent(layer, key, ("parallel",))
    yield from _attention(layer.attention, f"{key}.attention", seq_len)


def _attention(attention: Attention, key: str, seq_len: int) -> Iterator[str]:
    yield from runnable.absent(attention, key, ("relative_buckets",))
    if not attention.causal:
        yield f"{key}.causal=false is not implemented; only causal attention is"
    yield from runnable.attention_problems(attention, key, seq_len)


def _head(head: Head) -> Iterator[str]:
    if head.kind != "language_model":
        yield f"model.head.kind={head.kind} is not implemented; only language_model is"
    yield from runnable.absent(
        head, "model.head", ("width", "transform", "pooler", "bias", "mtp_layers")
    )
