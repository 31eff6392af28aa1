"""The model of a measured run: from the catalog by its name, or from the sizes of the row.

The catalog's entry is taken where the name means it and no known cell of the row contradicts it.
Otherwise the sizes make a decoder of one kind of layer, by family:

    gpt       learned positions, layer norms, biases, GELU MLP, tied table
    llama     rotary positions, RMS norms, no biases, gated SiLU MLP, untied
    nemotron  rotary positions, layer norms, no biases, squared ReLU (as ReLU), untied

Some names stand for sizes that the row need not repeat (catalog/models/sizes.yaml).
Unknown kv heads are the heads, an unknown ffn is 4 hidden (8/3 hidden where gated, rounded up to
256), an unknown vocabulary that of the family; whatever is assumed is noted.
"""

import functools
import re
from dataclasses import dataclass, replace
from typing import Any

import pydantic

from planner.spec import catalog, documents
from planner.spec.layer import Experts, LayerSpec
from planner.spec.model import ModelSpec
from planner.spec.runs.run import Run
from planner.spec.runs.unusable import UnusableError

FAMILIES = (
    ("nemotron", r"nemotron|minitron"),
    (
        "llama",
        r"llama|mi[sx]tral|qwen|deepseek|gemma|\byi\b|\bphi|olmo|granite|vicuna|grok|internlm"
        r"|baichuan|\bglm|smollm|dbrx|solar",
    ),
    ("gpt", r"gpt|bloom|\bmpt|\bopt\b|turing|falcon|pythia|starcoder"),
)
VOCABULARIES = (
    (r"nanotron", 131_072),
    (r"bloom", 250_880),
    (r"mpt", 50_368),
    (r"llama-?3", 128_256),
    (r"llama|mistral|mixtral", 32_000),
    (r"qwen", 151_936),
    (r"deepseek", 129_280),
    (r"nemotron", 256_000),
    (r"megatron-lm", 51_200),
)
GPT2_VOCABULARY = 50_257
SAME_MODEL = {
    "llama7b": "llama2-7b",
    "llama13b": "llama2-13b",
    "llama38b": "llama3.1-8b",
    "llama370b": "llama3.1-70b",
    "llama3.370b": "llama3.1-70b",
    "llama3405b": "llama3.1-405b",
    "gpt175b": "gpt3-175b",
    "mtnlg530b": "gpt-530b",
    "deepseek3671b": "deepseek-v3",
    "deepseekr1": "deepseek-v3",
    "deepseekr1671b": "deepseek-v3",
    "qwen330b": "qwen3-30b-a3b",
    "qwen3235b": "qwen3-235b-a22b",
    "phi3mini4k": "phi3-mini",
    "phi3mini128k": "phi3-mini",
    "qwen272b": "qwen2.5-72b",
    "qwen27b": "qwen2.5-7b",
    "nemotron8b": "nemotron3-8b",
    "nemotron22b": "nemotron3-22b",
    "nemotron15b": "nemotron4-15b",
    "nemotron340b": "nemotron4-340b",
}
"""Names without separators that mean an entry of the catalog with another name."""

NO_PART_OF_A_NAME = re.compile(
    r"meta|nvidia|hf|sft|q?lora|instruct|chat|base|it|(pre|post|fine)?-?(train|tun)(ing|e|ed)?"
    r"|fp8|bf16|fp16|dense|moe|v0\.\d"
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a row says about its model: the key under which a model is built once."""

    name: str
    about: str
    n_layers: int | None
    hidden: int | None
    ffn_hidden: int | None
    n_heads: int | None
    n_kv_heads: int | None
    vocab: int | None
    gated: bool | None
    n_experts: int | None
    experts_per_token: int | None
    seq_len: int
    tp: int


def model_of(run: Run, seq_len: int, tp: int) -> tuple[ModelSpec, tuple[str, ...]]:
    """The model of a row and what was assumed. Raises UnusableError."""
    about = " ".join(filter(None, (run.arch, run.model, run.runtime))).lower()
    sizes = Sizes(
        name=run.model or run.arch or "model",
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
        seq_len=seq_len,
        tp=tp,
    )
    return _model(sizes)


@functools.lru_cache(maxsize=1024)
def _model(sizes: Sizes) -> tuple[ModelSpec, tuple[str, ...]]:
    named, sizes_told = by_name(sizes.name), _told(sizes)
    notes: tuple[str, ...]
    if named is not None and _agrees(named, sizes):
        model, notes = named, (f"model: {named.name} of the catalog",)
    elif (known := _known_sizes().get(compact(sizes.name))) and not sizes_told:
        model, notes = _by_sizes(replace(sizes, **known))
        notes = (f"model: the sizes that {sizes.name} is known by", *notes)
    else:
        model, notes = _by_sizes(sizes)
    model, longer = _long_enough(model, sizes.seq_len)
    model, repeated = _enough_kv_heads(model, sizes.tp)
    return model, (*notes, *longer, *repeated)


def _told(sizes: Sizes) -> bool:
    return any((sizes.n_layers, sizes.hidden, sizes.n_heads, sizes.ffn_hidden))


@functools.cache
def _known_sizes() -> dict[str, dict[str, Any]]:
    known = documents.read_mapping(catalog.FOLDER / "models" / "sizes.yaml")
    return {compact(name): dict(each) for name, each in known.items()}


def by_name(name: str) -> ModelSpec | None:
    """The catalog's model that a name means, whatever its separators and decorations."""
    short = compact(name)
    found = SAME_MODEL.get(short) or _catalog_names().get(short)
    return _entry(found) if found else None


@functools.cache
def _catalog_names() -> dict[str, str]:
    return {compact(name): name for name in catalog.list_models()}


@functools.cache
def _entry(name: str) -> ModelSpec:
    return catalog.find_model(name)


def compact(name: str) -> str:
    """A name without owner, separators, words that do not tell models apart, and the v of a
    version (`LLaMA V3.1 8B`)."""
    words = re.split(r"[\s_\-()]+", name.lower().rsplit("/", 1)[-1])
    kept = "".join(word for word in words if not NO_PART_OF_A_NAME.fullmatch(word))
    return re.sub(r"v(?=\d)", "", kept)


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


def _by_sizes(sizes: Sizes) -> tuple[ModelSpec, tuple[str, ...]]:
    for name in ("n_layers", "hidden", "n_heads"):
        if not getattr(sizes, name):
            raise UnusableError(f"{name} unknown")
    assert sizes.n_layers
    assert sizes.hidden
    assert sizes.n_heads
    if sizes.hidden % sizes.n_heads:
        raise UnusableError("hidden is no multiple of n_heads")
    family, notes = _family(sizes)
    values: dict[str, Any] = {
        "name": sizes.name,
        "family": family,
        "hidden": sizes.hidden,
        "norm": "rmsnorm" if family == "llama" else "layernorm",
        "tied_embeddings": family == "gpt",
    }
    layer, of_layer = _layer(sizes, family)
    vocab, of_vocab = _vocabulary(sizes)
    stack = {
        "name": "decoder",
        "embedding": {
            "vocab": vocab,
            "max_positions": sizes.seq_len,
            "positions": "learned" if family == "gpt" else "none",
        },
        "kinds": [layer],
        "order": [0] * sizes.n_layers,
    }
    model = _validated({**values, "stacks": [stack], "head": {"classes": vocab}})
    return model, (*notes, *of_layer, *of_vocab)


def _validated(values: dict[str, Any]) -> ModelSpec:
    try:
        return ModelSpec.model_validate(values)
    except pydantic.ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "model"
        raise UnusableError(f"{where}: {problem['msg']}") from None


def _family(sizes: Sizes) -> tuple[str, tuple[str, ...]]:
    for family, pattern in FAMILIES:
        if re.search(pattern, sizes.about):
            return family, ()
    family = "llama" if sizes.gated else "gpt"
    return family, (f"model: arch unknown, built as {family}",)


def _layer(sizes: Sizes, family: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    assert sizes.hidden
    assert sizes.n_heads
    gated = family == "llama" if sizes.gated is None else sizes.gated
    kv_heads = sizes.n_kv_heads or sizes.n_heads
    if sizes.n_heads % kv_heads:
        raise UnusableError("n_heads is no multiple of n_kv_heads")
    notes = [] if sizes.n_kv_heads else ["n_kv_heads unknown, as many as n_heads assumed"]
    ffn = sizes.ffn_hidden or _ffn(sizes.hidden, gated)
    if not sizes.ffn_hidden:
        notes.append(f"ffn_hidden unknown, {'8/3 hidden' if gated else '4 hidden'} assumed")
    head_dim = sizes.hidden // sizes.n_heads
    bias = family == "gpt"
    rotary = {"gpt": 0, "nemotron": head_dim // 4 * 2}.get(family, head_dim // 2 * 2)
    attention = {
        "heads": sizes.n_heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "rotary_dim": rotary,
        **dict.fromkeys(("q_bias", "k_bias", "v_bias", "o_bias"), bias),
    }
    activation = "silu" if gated else "relu" if family == "nemotron" else "gelu_tanh"
    mlp = {"ffn": ffn, "gated": gated, "activation": activation, "bias": bias}
    feed, of_experts = _feed_forward(sizes, mlp)
    return {"attention": attention, "feed_forward": feed}, (*notes, *of_experts)


def _ffn(hidden: int, gated: bool) -> int:
    return -(-8 * hidden // 3 // 256) * 256 if gated else 4 * hidden


def _feed_forward(sizes: Sizes, mlp: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    if not sizes.n_experts or sizes.n_experts < 2:
        return mlp, ()
    per_token = sizes.experts_per_token or min(2, sizes.n_experts)
    if per_token > sizes.n_experts:
        raise UnusableError("experts_per_token is more than n_experts")
    notes = () if sizes.experts_per_token else ("experts_per_token unknown, 2 assumed",)
    return {"experts": sizes.n_experts, "per_token": per_token, "expert": mlp}, notes


def _vocabulary(sizes: Sizes) -> tuple[int, tuple[str, ...]]:
    if sizes.vocab:
        return sizes.vocab, ()
    found = (size for pattern, size in VOCABULARIES if re.search(pattern, sizes.about))
    vocab = next(found, GPT2_VOCABULARY)
    return vocab, (f"vocab unknown, {vocab} assumed",)


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
