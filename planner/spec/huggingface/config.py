"""Hugging Face config.json read as a ModelSpec, without the transformers package.

    model_type -> reader of its family (decoders, experts, encoders, pairs) -> ModelSpec
    architectures[0] -> head (heads)

A reader says what each field is called (of two spellings the first found counts) and what a
missing key means: the default of the transformers class, which differs by type. Sizes have no
default: a config without them is refused rather than guessed.

Models for images and text nest the language model in `text_config`; only that part is read.
architectures and the labels stand outside, and so may tie_word_embeddings, which then counts.
Left out: rope scaling, dropout and initialisation, which change neither time nor memory, and
torch_dtype (dtype), because the workload says in which precision is trained.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from planner.spec import documents
from planner.spec.documents import InputError
from planner.spec.huggingface import decoders, encoders, experts, gemma, llama, pairs
from planner.spec.huggingface.keys import WAY_OUT, Keys
from planner.spec.model import ModelSpec

READERS: dict[str, Callable[[Keys], dict[str, Any]]] = {
    "gpt2": decoders.gpt2,
    "gpt_neox": decoders.gpt_neox,
    "opt": decoders.opt,
    "llama": llama.llama,
    "mistral": llama.mistral,
    "qwen2": llama.qwen2,
    "qwen3": llama.qwen3,
    "gemma": gemma.gemma,
    "gemma2": gemma.gemma2,
    "gemma3_text": gemma.gemma3,
    "phi3": llama.phi3,
    "mixtral": experts.mixtral,
    "qwen2_moe": experts.qwen2_moe,
    "qwen3_moe": experts.qwen3_moe,
    "deepseek_v3": experts.deepseek_v3,
    "gpt_oss": experts.gpt_oss,
    "bert": encoders.bert,
    "roberta": encoders.roberta,
    "vit": encoders.vit,
    "t5": pairs.t5,
    "bart": pairs.bart,
    "marian": pairs.marian,
    "whisper": pairs.whisper,
}
OUTSIDE = ("architectures", "tie_word_embeddings", "id2label", "num_labels")


def read_config(data: Mapping[str, Any], where: str, name: str) -> ModelSpec:
    """Read the mapping of a config.json as a model.

    where: the file, for messages. Raises InputError with every problem found: an unknown
    model_type, a missing size, a value of the wrong type, a feature ModelSpec cannot say.
    """
    keys = _language_part(data, where)
    reader = _reader(keys)
    fields = reader(keys)
    keys.raise_problems()
    return documents.parse(ModelSpec, {"name": name, **fields}, where)


def _language_part(data: Mapping[str, Any], where: str) -> Keys:
    inner = data.get("text_config")
    if inner is None and data.get("model_type") == "gemma3":
        raise InputError(f"{where}: text_config: missing; add it, or give a gemma3_text config")
    if inner is None:
        return Keys(data, where)
    if not isinstance(inner, Mapping):
        raise InputError(f"{where}: text_config: {inner!r} is not a mapping of keys to values")
    granted = {"model_type": "gemma3_text"} if data.get("model_type") == "gemma3" else {}
    outer = {key: data[key] for key in OUTSIDE if key in data}
    return Keys({**granted, **inner, **outer}, where, "text_config.")


def _reader(keys: Keys) -> Callable[[Keys], dict[str, Any]]:
    model_type = keys.data.get("model_type")
    if isinstance(model_type, str) and model_type in READERS:
        return READERS[model_type]
    shown = "missing" if model_type is None else f"{model_type!r} is not supported"
    close = difflib.get_close_matches(str(model_type), [*READERS, "gemma3"], n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise InputError(
        f"{keys.where}: {keys.inside}model_type: {shown}; {hint}supported are "
        f"{', '.join([*READERS, 'gemma3'])}; else {WAY_OUT}"
    )
