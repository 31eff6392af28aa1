"""Runnable: the Transformers that the executor of this project can be.

One stack, encoder or decoder, or an encoder and a decoder that reads it; several kinds of layers;
norms before, after or on both sides; learned, rotary or relative positions; dense MLPs or experts;
a language model's head or one of classes per token or sequence. `problems` names all else by key.
"""

from collections.abc import Iterator

from planner.spec.layer import MLP, Attention, Experts, LayerSpec
from planner.spec.model import Embedding, Head, ModelSpec, Stack

RUNNABLE = "a Transformer of tokens (like GPT-2, Llama, Mixtral, BERT or T5)"


def problems(model: ModelSpec, seq_len: int) -> Iterator[str]:
    """What of a model the executor cannot be at this sequence length, with its key and value."""
    for index, stack in enumerate(model.stacks):
        yield from _stack(stack, f"model.stacks.{index}", seq_len)
    yield from _rotary(model)
    yield from _head(model)
    if model.encoder is not None:
        yield from _two_stacks(model)


def division_problems(
    model: ModelSpec, tp: int = 1, cp: int = 1, stages: int = 1, zero: int = 0, etp: int = 1
) -> Iterator[str]:
    """Why the executor cannot divide a model that it can be; each degree is judged alone."""
    relative = any(each.relative_buckets for each in attentions(model))
    whole = "an encoder and a decoder" if model.encoder is not None else ""
    whole = whole or ("relative positions" if relative else "")
    if whole and stages > 1:
        yield f"a model of {whole} is not cut in {stages} stages; plan with pp=1 vpp=1"
    if whole and zero > 1:
        yield f"a model of {whole} with zero={zero} is not implemented; use 0 or 1"
    for vocab in sorted({stack.embedding.vocab or 0 for stack in model.stacks}):
        if (tp - 1) * -(-vocab // tp) >= vocab:
            yield f"vocab={vocab} leaves the last of tp={tp} ranks without a row"
    if cp > 1 and (model.head.kind != "language_model" or relative):
        yield (
            f"cp={cp} with model.head.kind={model.head.kind}, or with relative positions, is not "
            f"implemented; use cp=1"
        )
    if etp > 1 and any(each.expert.bias for each in experts(model)):
        yield f"etp={etp}: experts with biases are not divided by columns; plan with etp=1"


def _two_stacks(model: ModelSpec) -> Iterator[str]:
    if model.tied_embeddings and not model.main.embedding.shared_table:
        yield "model.tied_embeddings=true with two token tables is not implemented"
    if model.head.kind != "language_model":
        yield f"model.head.kind={model.head.kind} behind two stacks is not implemented"
    if experts(model):
        yield "experts in an encoder or in the decoder that reads it are not implemented"


def mlps(model: ModelSpec) -> list[MLP]:
    """Every kind of MLP that all tokens pass."""
    parts = [kind.feed_forward for stack in model.stacks for kind in stack.kinds]
    dense = [part.shared if isinstance(part, Experts) else part for part in parts]
    return [part for part in dense if part is not None]


def experts(model: ModelSpec) -> list[Experts]:
    """Every kind of experts."""
    parts = [kind.feed_forward for stack in model.stacks for kind in stack.kinds]
    return [part for part in parts if isinstance(part, Experts)]


def attentions(model: ModelSpec) -> list[Attention]:
    """Every kind of attention that a model has."""
    kinds = [kind for stack in model.stacks for kind in stack.kinds]
    both = [each for kind in kinds for each in (kind.attention, kind.cross_attention)]
    return [each for each in both if each is not None]


def _stack(stack: Stack, key: str, seq_len: int) -> Iterator[str]:
    yield from embedding_problems(stack.embedding, f"{key}.embedding", seq_len)
    for index, kind in enumerate(stack.kinds):
        yield from _layer(kind, f"{key}.kinds.{index}", seq_len)
    if len({kind.attention.relative_buckets for kind in stack.kinds}) > 1:
        yield f"{key}.kinds: attention.relative_buckets must be the same in all of them"


def _rotary(model: ModelSpec) -> Iterator[str]:
    tables = {(each.rotary_dim, each.rope_theta) for each in attentions(model) if each.rotary_dim}
    if len(tables) > 1:
        yield "model.stacks: attention with several rotary_dim or rope_theta is not implemented"


def embedding_problems(embedding: Embedding, key: str, seq_len: int) -> Iterator[str]:
    """What of an embedding neither the executor nor the profiler's layers can be."""
    yield from absent(embedding, key, ("convolutions", "class_token", "width"))
    if embedding.positions == "frozen":
        yield f"{key}.positions=frozen is not implemented; only learned ones or none are"
    if embedding.positions == "learned" and seq_len > embedding.max_positions:
        yield f"seq_len={seq_len} exceeds {key}.max_positions={embedding.max_positions}"


def _layer(layer: LayerSpec, key: str, seq_len: int) -> Iterator[str]:
    for name in ("attention", "cross_attention"):
        if (attention := getattr(layer, name)) is not None:
            yield from attention_problems(attention, f"{key}.{name}", seq_len)


def attention_problems(attention: Attention, key: str, seq_len: int) -> Iterator[str]:
    """The same of an attention."""
    yield from absent(attention, key, ("latent", "score_cap", "sinks"))
    if attention.value_head != attention.head_dim:
        yield (
            f"{key}.value_dim={attention.value_dim} differs from head_dim={attention.head_dim}; "
            f"only equal ones are implemented"
        )
    if attention.window is not None and attention.window < seq_len:
        yield (
            f"{key}.window={attention.window} is less than seq_len={seq_len}; only attention to "
            f"all tokens, or all earlier ones, is implemented"
        )


def _head(model: ModelSpec) -> Iterator[str]:
    head = model.head
    yield from absent(head, "model.head", ("width", "mtp_layers"))
    if head.kind == "none":
        yield "model.head.kind=none is not implemented; only heads with a loss are"
    if head.kind == "language_model" and head.classes != model.vocab:
        yield (
            f"model.head.classes={head.classes} differs from the vocabulary {model.vocab}; "
            f"only a language model over the tokens is implemented"
        )
    if "classification" in head.kind and head.classes < 2:
        yield "model.head.classes=1 is a regression, which is not implemented; give it 2 or more"
    if head.pooler and head.kind != "sequence_classification":
        yield f"model.head.pooler=true with kind={head.kind} is not implemented"
    if head.transform and head.kind != "language_model":
        yield f"model.head.transform=true with kind={head.kind} is not implemented"


def absent(
    part: Attention | Embedding | Head | LayerSpec, key: str, names: tuple[str, ...]
) -> Iterator[str]:
    """Fields that must be empty (None, false, zero)."""
    for name in names:
        if value := getattr(part, name):
            shown = f"={str(value).lower()}" if isinstance(value, bool | int | float) else ""
            yield f"{key}.{name}{shown} is not implemented"
