"""Hugging Face config.json read as a ModelSpec, without the transformers package.

What each field is called, by model_type (of two spellings the first found counts), and what a
missing key means: the default of the transformers class, which differs by type.
Sizes have no default here: a config without them is refused rather than guessed.

| field         | gpt2                                 | llama, mistral, qwen2                     |
|---------------|--------------------------------------|-------------------------------------------|
| layers        | n_layer or num_hidden_layers         | num_hidden_layers                         |
| hidden        | n_embd or hidden_size                | hidden_size                               |
| heads         | n_head or num_attention_heads        | num_attention_heads                       |
| kv_heads      | = heads                              | num_key_value_heads; null: heads; missing:|
|               |                                      | heads (llama), 8 (mistral), 32 (qwen2)    |
| head_dim      | hidden / heads                       | head_dim; null: hidden / heads            |
| ffn           | n_inner; null: 4 * hidden            | intermediate_size (gated)                 |
| vocab         | vocab_size                           | vocab_size                                |
| max_positions | n_positions or                       | max_position_embeddings; missing: 2048    |
|               | max_position_embeddings; missing:    | (llama), 131072 (mistral), 32768 (qwen2)  |
|               | 1024                                 |                                           |
| activation    | activation_function: gelu_new        | hidden_act: silu                          |
| tied          | tie_word_embeddings: true            | tie_word_embeddings: false                |
| biases        | everywhere                           | attention_bias (Q, K, V and output) and   |
|               |                                      | mlp_bias for llama; none for mistral;     |
|               |                                      | Q, K, V always for qwen2                  |
| norm_eps      | layer_norm_epsilon: 1e-5             | rms_norm_eps: 1e-6                        |
| rope_theta    | (learned positions)                  | rope_theta (transformers 4) or            |
|               |                                      | rope_parameters.rope_theta (5): 10000     |
| sliding       | none                                 | sliding_window (mistral; missing: 4096);  |
|               |                                      | refused if qwen2 sets use_sliding_window  |

Models for images and text nest the language model in `text_config`; only that part is read.
Left out: rope scaling, dropout and initialisation, which change neither time nor memory.
Source: configuration classes and `attribute_map` of transformers 4.x and 5.x.
"""

from collections.abc import Callable, Mapping
from typing import Any

from planner.spec import documents
from planner.spec.documents import InputError
from planner.spec.model import ModelSpec

ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}
WAY_OUT = "write a model/1 document instead (planner/spec/model.py lists its keys)"
REQUIRED: Any = object()


def read_config(data: Mapping[str, Any], where: str, name: str) -> ModelSpec:
    """Read the mapping of a config.json as a model.

    where: the file, for messages. Raises InputError with every problem found: an unknown
    model_type, a missing size, a value of the wrong type, a feature ModelSpec cannot say.
    """
    text = _text_part(data, where)
    model_type = text.get("model_type")
    if not isinstance(model_type, str) or model_type not in READERS:
        shown = "missing" if model_type is None else f"{model_type!r} is not supported"
        raise InputError(
            f"{where}: model_type: {shown}; supported are {', '.join(READERS)}; else {WAY_OUT}"
        )
    keys = _Keys(text, where)
    fields = READERS[model_type](keys)
    keys.raise_problems()
    return documents.parse(ModelSpec, {"name": name, **fields}, where)


def _text_part(data: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    inner = data.get("text_config")
    if inner is None:
        return data
    if not isinstance(inner, Mapping):
        raise InputError(f"{where}: text_config: {inner!r} is not a mapping of keys to values")
    outer = {key: data[key] for key in ("tie_word_embeddings",) if key in data}
    return {**outer, **inner}


class _Keys:
    """Typed look-ups in one config that gather all problems before any is raised."""

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self.data, self.where = data, where
        self.problems: list[str] = []

    def refuse(self, key: str, message: str) -> None:
        self.problems.append(f"{self.where}: {key}: {message}")

    def raise_problems(self) -> None:
        if self.problems:
            raise InputError("\n".join(self.problems))

    def size(self, *spellings: str, missing: Any = REQUIRED, null: Any = REQUIRED) -> int:
        """A whole number from 1 on. missing, null: what stands for an absent key or a null."""
        key = next((key for key in spellings if key in self.data), None)
        if key is None or self.data[key] is None:
            value = missing if key is None else null
            if value is REQUIRED:
                self.refuse(spellings[0], f"missing; add this key, or {WAY_OUT}")
            return 1 if value is REQUIRED else value
        value = self.data[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.refuse(key, f"{value!r} is not a whole number from 1 on")
            return 1
        return value

    def number(self, key: str, missing: float) -> float:
        """A number above 0."""
        return self._above_zero(key, self.data.get(key, missing), missing)

    def _above_zero(self, key: str, value: Any, instead: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            self.refuse(key, f"{value!r} is not a number above 0")
            return instead
        return float(value)

    def flag(self, key: str, missing: bool) -> bool:
        """true or false."""
        value = self.data.get(key, missing)
        if not isinstance(value, bool):
            self.refuse(key, f"{value!r} is neither true nor false")
            return missing
        return value

    def activation(self, key: str, missing: str) -> str:
        """The activation by our name."""
        value = self.data.get(key, missing)
        if not isinstance(value, str) or value not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            self.refuse(key, f"{value!r} is not supported; supported are {known}; else {WAY_OUT}")
            return ACTIVATIONS[missing]
        return ACTIVATIONS[value]

    def head_dim(self, hidden: int, heads: int) -> int:
        """head_dim if given, else hidden / heads, which must divide."""
        if self.data.get("head_dim") is not None:
            return self.size("head_dim")
        if hidden % heads and not self.problems:
            self.refuse("head_dim", f"missing, and hidden {hidden} is no multiple of heads {heads}")
        return max(1, hidden // heads)

    def rope_theta(self) -> float:
        """The base of the rotary positions, from the shape of transformers 4 or 5."""
        nested = self.data.get("rope_parameters")
        nested = nested if isinstance(nested, Mapping) else {}
        by_layer_type = [part for part in nested.values() if isinstance(part, Mapping)]
        top = self.data.get("rope_theta", 10_000.0)
        thetas = [part.get("rope_theta", top) for part in by_layer_type or [nested]]
        if any(theta != thetas[0] for theta in thetas):
            self.refuse("rope_parameters", f"rope_theta differs by layer: {thetas}; {WAY_OUT}")
        return self._above_zero("rope_theta", thetas[0], 10_000.0)


def _gpt2(keys: _Keys) -> dict[str, Any]:
    hidden = keys.size("n_embd", "hidden_size")
    heads = keys.size("n_head", "num_attention_heads")
    return {
        "family": "gpt2",
        "layers": keys.size("n_layer", "num_hidden_layers"),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": keys.head_dim(hidden, heads),
        "ffn": keys.size("n_inner", missing=4 * hidden, null=4 * hidden),
        "vocab": keys.size("vocab_size"),
        "max_positions": keys.size("n_positions", "max_position_embeddings", missing=1024),
        "gated": False,
        "activation": keys.activation("activation_function", "gelu_new"),
        "norm": "layernorm",
        "positions": "learned",
        "tied_embeddings": keys.flag("tie_word_embeddings", True),
        "attention_bias": True,
        "output_bias": True,
        "mlp_bias": True,
        "norm_eps": keys.number("layer_norm_epsilon", 1e-5),
    }


def _rotary(keys: _Keys, kv_heads: int | None, max_positions: int) -> dict[str, Any]:
    hidden, heads = keys.size("hidden_size"), keys.size("num_attention_heads")
    return {
        "family": "llama",
        "layers": keys.size("num_hidden_layers"),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": keys.size("num_key_value_heads", missing=kv_heads or heads, null=heads),
        "head_dim": keys.head_dim(hidden, heads),
        "ffn": keys.size("intermediate_size"),
        "vocab": keys.size("vocab_size"),
        "max_positions": keys.size("max_position_embeddings", missing=max_positions),
        "gated": True,
        "activation": keys.activation("hidden_act", "silu"),
        "norm": "rmsnorm",
        "positions": "rotary",
        "tied_embeddings": keys.flag("tie_word_embeddings", False),
        "attention_bias": False,
        "output_bias": False,
        "mlp_bias": False,
        "norm_eps": keys.number("rms_norm_eps", 1e-6),
        "rope_theta": keys.rope_theta(),
    }


def _llama(keys: _Keys) -> dict[str, Any]:
    bias = keys.flag("attention_bias", False)
    biases = {"attention_bias": bias, "output_bias": bias}
    biases["mlp_bias"] = keys.flag("mlp_bias", False)
    return {**_rotary(keys, kv_heads=None, max_positions=2048), **biases}


def _mistral(keys: _Keys) -> dict[str, Any]:
    fields = _rotary(keys, kv_heads=8, max_positions=131_072)
    return {**fields, "sliding_window": keys.size("sliding_window", missing=4096, null=None)}


def _qwen2(keys: _Keys) -> dict[str, Any]:
    if keys.flag("use_sliding_window", False):
        keys.refuse("use_sliding_window", f"windows that differ by layer; {WAY_OUT}")
    fields = _rotary(keys, kv_heads=32, max_positions=32_768)
    return {**fields, "attention_bias": True}


READERS: dict[str, Callable[[_Keys], dict[str, Any]]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
}
