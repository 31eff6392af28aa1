"""Sizes: what a row or catalog/models/sizes.yaml says of a model, and a decoder built from them.

    gpt       learned positions, layer norms, biases, GELU MLP, tied table
    llama     rotary positions, RMS norms, no biases, gated SiLU MLP, untied
    nemotron  rotary positions, layer norms, no biases, squared ReLU (as ReLU), untied

Layers are of one kind, but a mixture may begin with dense_layers that have an MLP of dense_ffn, and
have experts in each experts_every-th layer only, the others the MLP of dense_ffn. Besides the
columns of a row: head_dim (hidden / n_heads), tied, parallel (attention and MLP side by side),
qk_norm, shared_ffn (of the MLP that every token passes beside the experts), latent (query_rank,
kv_rank, plain + rotated columns of a query and key head, value of a value head).

Unknown kv heads are the heads, an unknown ffn is 4 hidden (8/3 hidden where gated, rounded up to
256), an unknown vocabulary that of the family; whatever is assumed is noted. Where nothing but the
number of parameters P is known, the decoder is one of usual proportions, heads of 128 and layers of
hidden = 128 n_layers (GPT-3 175B and Llama 7B have 128, Llama 70B 102, Llama 405B 130):

    P - 2 vocab hidden = 12 n_layers hidden**2     (once the vocabulary where the table is tied)
"""

import re
from dataclasses import dataclass
from typing import Any

import pydantic

from planner.spec.model import ModelSpec
from planner.spec.runs.unusable import UnusableError

FAMILIES = (
    ("nemotron", r"nemotron|minitron"),
    (
        "llama",
        r"llama|mi(ni|s|x)s?tral|qwen|deepseek|gemma|\byi\b|\byi-|\bphi|olmo|granite|vicuna|grok|internlm"
        r"|baichuan|\bglm|chatglm|smollm|dbrx|solar|command|aya|kimi|moonlight|moonshot|ernie"
        r"|hunyuan|minimax|minicpm|seed|apertus|eurollm|exaone|skywork|xverse|orion|aquila|arctic"
        r"|stablelm|ling\b|ling-|dots|palm",
    ),
    (
        "gpt",
        r"gpt|bloom|\bmpt|\bopt\b|\bopt-|turing|t-?nlg|mt-?nlg|megatron|falcon|pythia|starcoder"
        r"|redpajama|persimmon|gopher|chinchilla|lamda|pangu|yuan1|jurassic|galactica|poro",
    ),
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
USUAL_HEAD = 128
USUAL_WIDTH_PER_LAYER = 128


@dataclass(frozen=True, slots=True)
class Latent:
    """Latent attention: ranks of queries and of keys with values, widths of a head's parts."""

    kv_rank: int
    plain: int
    rotated: int
    value: int
    query_rank: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What is said about a model: the key under which a model is built once. about: its names and
    its software's. billions: its parameters. seq_len, tp: of the row. The rest: top of the file."""

    name: str
    about: str
    arch: str = ""
    n_layers: int | None = None
    hidden: int | None = None
    ffn_hidden: int | None = None
    n_heads: int | None = None
    n_kv_heads: int | None = None
    vocab: int | None = None
    gated: bool | None = None
    n_experts: int | None = None
    experts_per_token: int | None = None
    billions: float | None = None
    seq_len: int = 1
    tp: int = 1
    head_dim: int | None = None
    tied: bool | None = None
    parallel: bool = False
    qk_norm: bool = False
    shared_ffn: int | None = None
    dense_layers: int = 0
    dense_ffn: int | None = None
    experts_every: int = 1
    latent: Latent | None = None

    @property
    def told(self) -> bool:
        """Whether any size of a layer, or the number of layers, is known."""
        return any((self.n_layers, self.hidden, self.n_heads, self.ffn_hidden))


def build(sizes: Sizes) -> tuple[ModelSpec, tuple[str, ...]]:
    """The decoder of these sizes and what was assumed. Raises UnusableError."""
    for name in ("n_layers", "hidden", "n_heads"):
        if not getattr(sizes, name):
            raise UnusableError(f"{name} unknown")
    assert sizes.n_layers
    assert sizes.hidden
    assert sizes.n_heads
    if sizes.hidden % sizes.n_heads and not sizes.head_dim and not sizes.latent:
        raise UnusableError("hidden is no multiple of n_heads")
    family, notes = _family(sizes)
    values: dict[str, Any] = {
        "name": sizes.name,
        "family": family,
        "hidden": sizes.hidden,
        "norm": "rmsnorm" if family == "llama" else "layernorm",
        "tied_embeddings": family == "gpt" if sizes.tied is None else sizes.tied,
    }
    kinds, order, of_layers = _layers(sizes, family)
    vocab, of_vocab = vocabulary(sizes)
    stack = {
        "name": "decoder",
        "embedding": {
            "vocab": vocab,
            "max_positions": sizes.seq_len,
            "positions": "learned" if family == "gpt" else "none",
        },
        "kinds": kinds,
        "order": order,
    }
    model = _validated({**values, "stacks": [stack], "head": {"classes": vocab}})
    return model, (*notes, *of_layers, *of_vocab)


def usual(sizes: Sizes) -> dict[str, Any]:
    """Layers, width and heads of a decoder of usual proportions with so many parameters."""
    assert sizes.billions
    family, vocab = _family(sizes)[0], vocabulary(sizes)[0]
    tables = 1 if family == "gpt" else 2
    parameters, step = sizes.billions * 1e9, USUAL_HEAD
    width = step
    while 12 * (width + step) ** 3 / USUAL_WIDTH_PER_LAYER + tables * vocab * width < parameters:
        width += step
    layers = round((parameters - tables * vocab * width) / (12 * width**2))
    return {"n_layers": max(1, layers), "hidden": width, "n_heads": width // USUAL_HEAD}


def vocabulary(sizes: Sizes) -> tuple[int, tuple[str, ...]]:
    """The vocabulary, and whether it was assumed."""
    if sizes.vocab:
        return sizes.vocab, ()
    found = (size for pattern, size in VOCABULARIES if re.search(pattern, sizes.about))
    vocab = next(found, GPT2_VOCABULARY)
    return vocab, (f"vocab unknown, {vocab} assumed",)


def _validated(values: dict[str, Any]) -> ModelSpec:
    try:
        return ModelSpec.model_validate(values)
    except pydantic.ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "model"
        raise UnusableError(f"{where}: {problem['msg']}") from None


def _family(sizes: Sizes) -> tuple[str, tuple[str, ...]]:
    called = f"{sizes.arch} {sizes.name}".lower()
    for family, pattern in FAMILIES:
        if re.search(pattern, called):
            return family, ()
    family = "llama" if sizes.gated else "gpt"
    return family, (f"model: arch unknown, built as {family}",)


def _layers(sizes: Sizes, family: str) -> tuple[list[dict[str, Any]], list[int], tuple[str, ...]]:
    """The kinds of layers, the kind of each, and what was assumed."""
    assert sizes.hidden
    assert sizes.n_layers
    gated = family == "llama" if sizes.gated is None else sizes.gated
    attention, of_attention = _attention(sizes, family)
    ffn = sizes.ffn_hidden or _ffn(sizes.hidden, gated)
    of_ffn = () if sizes.ffn_hidden else (f"ffn_hidden unknown, {_words(gated)} assumed",)
    activation = "silu" if gated else "relu" if family == "nemotron" else "gelu_tanh"
    mlp = {"ffn": ffn, "gated": gated, "activation": activation, "bias": family == "gpt"}
    feed, of_experts = _feed_forward(sizes, mlp)
    around = {"attention": attention, "parallel": sizes.parallel}
    kinds = [{**around, "feed_forward": feed}]
    order = [0] * sizes.n_layers
    if sizes.dense_ffn:
        kinds.append({**around, "feed_forward": {**mlp, "ffn": sizes.dense_ffn}})
        order = [1 if _is_dense(sizes, i) else 0 for i in range(sizes.n_layers)]
    return kinds, order, (*of_attention, *of_ffn, *of_experts)


def _is_dense(sizes: Sizes, index: int) -> bool:
    return index < sizes.dense_layers or (index + 1) % sizes.experts_every != 0


def _attention(sizes: Sizes, family: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    assert sizes.hidden
    assert sizes.n_heads
    bias = dict.fromkeys(("q_bias", "k_bias", "v_bias", "o_bias"), family == "gpt")
    if latent := sizes.latent:
        return {
            "heads": sizes.n_heads,
            "kv_heads": sizes.n_heads,
            "head_dim": latent.plain + latent.rotated,
            "value_dim": latent.value,
            "rotary_dim": latent.rotated,
            "latent": {"query_rank": latent.query_rank, "kv_rank": latent.kv_rank},
        }, ()
    kv_heads = sizes.n_kv_heads or sizes.n_heads
    if sizes.n_heads % kv_heads:
        raise UnusableError("n_heads is no multiple of n_kv_heads")
    notes = () if sizes.n_kv_heads else ("n_kv_heads unknown, as many as n_heads assumed",)
    head_dim = sizes.head_dim or sizes.hidden // sizes.n_heads
    rotary = {"gpt": 0, "nemotron": head_dim // 4 * 2}.get(family, head_dim // 2 * 2)
    return {
        "heads": sizes.n_heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "rotary_dim": rotary,
        "qk_norm": sizes.qk_norm,
        **bias,
    }, notes


def _ffn(hidden: int, gated: bool) -> int:
    return -(-8 * hidden // 3 // 256) * 256 if gated else 4 * hidden


def _words(gated: bool) -> str:
    return "8/3 hidden" if gated else "4 hidden"


def _feed_forward(sizes: Sizes, mlp: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    if not sizes.n_experts or sizes.n_experts < 2:
        return mlp, ()
    per_token = sizes.experts_per_token or min(2, sizes.n_experts)
    if per_token > sizes.n_experts:
        raise UnusableError("experts_per_token is more than n_experts")
    notes = () if sizes.experts_per_token else ("experts_per_token unknown, 2 assumed",)
    mixture = {"experts": sizes.n_experts, "per_token": per_token, "expert": mlp}
    if sizes.shared_ffn:
        mixture["shared"] = {**mlp, "ffn": sizes.shared_ffn}
    return mixture, notes
