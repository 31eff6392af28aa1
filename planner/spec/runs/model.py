"""The model of a measured run: from the catalog by its name, or from the sizes of the row.

The catalog's entry is taken where the name means it and no known cell of the row contradicts it.
Where a cell does, it counts, and the entry lends only what the row does not tell: the number of
layers and the vocabulary always, the sizes of a layer if its width is the row's (a model cut to
fewer layers, a padded vocabulary). Some names stand for sizes that the row need not repeat
(planner/spec/runs/names.py); the rest is built from the row's sizes by family, from nothing but its
number of parameters if need be (planner/spec/runs/sizes.py). Whatever is assumed is noted.
"""

import functools
import re
from dataclasses import replace
from typing import Any

from planner.spec.layer import Experts, LayerSpec
from planner.spec.model import ModelSpec
from planner.spec.runs.names import (
    ITS_SIZE,
    OTHER_LAYERS,
    billions_in,
    by_name,
    further_tokens,
    known_sizes,
)
from planner.spec.runs.run import Run
from planner.spec.runs.sizes import Latent, Sizes, build, usual
from planner.spec.runs.unusable import UnusableError

OF_A_LAYER = ("hidden", "n_heads", "ffn_hidden", "gated", "n_experts", "experts_per_token")
"""What a width goes with; the rest of a layer goes with its heads too."""


def model_of(run: Run, seq_len: int, tp: int) -> tuple[ModelSpec, tuple[str, ...]]:
    """The model of a row and what was assumed. Raises UnusableError."""
    about = " ".join(filter(None, (run.arch, run.model, run.runtime))).lower()
    sizes = Sizes(
        name=run.model or run.arch or "model",
        arch=run.arch or "",
        about=about,
        n_layers=run.n_layers,
        hidden=run.hidden,
        ffn_hidden=run.ffn_hidden,
        n_heads=run.n_heads,
        n_kv_heads=run.n_kv_heads,
        vocab=run.vocab,
        gated=run.gated_mlp,
        n_experts=run.n_experts,
        experts_per_token=run.experts_per_token,
        billions=run.params_b,
        seq_len=seq_len,
        tp=tp,
    )
    return _model(sizes)


@functools.lru_cache(maxsize=1024)
def _model(sizes: Sizes) -> tuple[ModelSpec, tuple[str, ...]]:
    if OTHER_LAYERS.search(sizes.name.lower()):
        raise UnusableError("layers without softmax attention, which no ModelSpec can say")
    model, notes = _found(sizes)
    model, longer = _long_enough(model, sizes.seq_len)
    model, repeated = _enough_kv_heads(model, sizes.tp)
    return model, (*notes, *longer, *repeated)


def with_further_tokens(model: ModelSpec, name: str) -> tuple[ModelSpec, tuple[str, ...]]:
    """The model with the layers for further tokens that its name says it was trained with."""
    layers = further_tokens(name)
    if not layers or model.head.kind != "language_model":
        return model, ()
    head = model.head.replace(mtp_layers=layers)
    return model.replace(head=head), (f"model: {layers} layer for a further token",)


def _found(sizes: Sizes) -> tuple[ModelSpec, tuple[str, ...]]:
    named, known = _named(sizes)
    if named is not None and _agrees(named, sizes):
        return named, (f"model: {named.name} of the catalog",)
    if named is not None and named.uniform:
        known = _sizes_of(named)
    if known and (lent := _lent(sizes, known)) != sizes:
        model, notes = build(lent)
        return model, (f"model: the sizes that {sizes.name} is known by", *notes)
    told = sizes.billions or billions_in(sizes.name)
    if told and not sizes.told and (sizes.n_experts or 0) < 2:
        guessed = replace(sizes, billions=told)
        model, notes = build(replace(guessed, **usual(guessed)))
        note = f"model: {sizes.name} unknown, usual proportions of {told:g} B parameters assumed"
        return model, (note, *notes)
    if not sizes.told:
        raise UnusableError(f"model {sizes.name} is not known and n_layers is not told")
    return build(sizes)


def _named(sizes: Sizes) -> tuple[ModelSpec | None, dict[str, Any] | None]:
    """The catalog's model, or the sizes, that the name means; with the count or the architecture
    beside it too (`llama2` of 70 billion; `8B` of `llama`)."""
    names = [sizes.name]
    if sizes.billions and billions_in(sizes.name) is None:
        names.append(f"{sizes.name}-{sizes.billions:g}b")
    if sizes.arch and re.fullmatch(ITS_SIZE, sizes.name.lower()):
        names.append(f"{sizes.arch}-{sizes.name}")
    for name in names:
        if named := by_name(name):
            return named, None
        if known := known_sizes(name):
            return None, known
    return None, None


def _lent(sizes: Sizes, known: dict[str, Any]) -> Sizes:
    """The row's sizes; what they leave open as known. The same object where nothing is lent."""
    same_width = sizes.hidden in (None, known["hidden"])
    whole = same_width and sizes.n_heads in (None, known["n_heads"])
    lent: dict[str, Any] = {}
    for key, value in known.items():
        if key == "latent":
            value = Latent(**value)
        if key in ("n_layers", "vocab"):
            free = getattr(sizes, key) is None
        elif key in OF_A_LAYER:
            free = same_width and getattr(sizes, key) is None
        else:
            told = key == "n_kv_heads" and sizes.n_kv_heads is not None
            free = whole and key not in ("billions", "further_tokens") and not told
        if free:
            lent[key] = value
    return replace(sizes, **lent) if lent else sizes


def _sizes_of(model: ModelSpec) -> dict[str, Any]:
    """A catalog's model of one kind of layer in the words of sizes.yaml."""
    layer, feed = model.layer, model.layer.feed_forward
    attention = layer.attention
    mlp = feed.expert if isinstance(feed, Experts) else feed
    sizes: dict[str, Any] = {
        "n_layers": model.layers,
        "hidden": model.hidden,
        "n_heads": attention.heads,
        "n_kv_heads": attention.kv_heads,
        "ffn_hidden": mlp.ffn,
        "gated": mlp.gated,
        "vocab": model.vocab or None,
        "head_dim": attention.head_dim,
        "tied": model.tied_embeddings,
        "parallel": layer.parallel,
        "qk_norm": attention.qk_norm,
    }
    if isinstance(feed, Experts):
        sizes |= {"n_experts": feed.experts, "experts_per_token": feed.per_token}
        sizes |= {"shared_ffn": feed.shared.ffn if feed.shared else None}
    return sizes


def _agrees(model: ModelSpec, sizes: Sizes) -> bool:
    if not model.uniform:
        return sizes.n_layers in (None, model.layers) and sizes.hidden in (None, model.hidden)
    layer = model.layer
    feed = layer.feed_forward
    experts = feed.experts if isinstance(feed, Experts) else 0
    ffn = feed.expert.ffn if isinstance(feed, Experts) else feed.ffn
    pairs = (
        (sizes.n_layers, model.layers),
        (sizes.hidden, model.hidden),
        (sizes.ffn_hidden, ffn),
        (sizes.n_heads, layer.attention.heads),
        (sizes.n_kv_heads, layer.attention.kv_heads),
        (sizes.vocab, model.vocab),
    )
    told = sizes.n_experts if sizes.n_experts and sizes.n_experts > 1 else None
    return told in (None, experts) and all(said in (None, is_) for said, is_ in pairs)


def _long_enough(model: ModelSpec, seq_len: int) -> tuple[ModelSpec, tuple[str, ...]]:
    embedding = model.main.embedding
    if len(model.stacks) > 1 or embedding.convolutions or seq_len <= embedding.max_positions:
        return model, ()
    longer = model.main.replace(embedding=embedding.replace(max_positions=seq_len))
    note = f"model: {model.name} with {seq_len} positions"
    return model.replace(stacks=(longer,)), (note,) if embedding.positions != "none" else ()


def _enough_kv_heads(model: ModelSpec, tp: int) -> tuple[ModelSpec, tuple[str, ...]]:
    """Runtimes repeat key-value heads where there are fewer than tp ranks."""
    if not all(_repeats(kind, tp) for kind in model.main.kinds):
        return model, ()
    kinds = tuple(
        kind.replace(attention=kind.attention.replace(kv_heads=tp)) for kind in model.main.kinds
    )
    stacks = (*model.stacks[:-1], model.main.replace(kinds=kinds))
    return model.replace(stacks=stacks), (f"key-value heads repeated to tp={tp}",)


def _repeats(kind: LayerSpec, tp: int) -> bool:
    attention = kind.attention
    fewer = attention.kv_heads < tp and tp % attention.kv_heads == 0
    return fewer and attention.heads % tp == 0 and attention.latent is None
