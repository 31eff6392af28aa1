"""What the name of a model means: an entry of the catalog, sizes that it is known by, or a count.

Names are compared without owner, separators, and words that do not tell models apart
(`meta-llama/Meta-Llama-3.1-70B-Instruct`, `LLaMA V3.1 70B`); where that finds nothing, without the
date of a release too (`OLMo-2-1124-7B`). catalog/models/names.yaml holds what else an entry is
called, catalog/models/sizes.yaml the sizes of models without an entry.
"""

import functools
import re
from typing import Any

from planner.spec import catalog, documents
from planner.spec.model import ModelSpec

NO_PART_OF_A_NAME = re.compile(
    r"meta|nvidia|hf|sft|q?lora|instruct|chat|base|it|pt|preview|distill"
    r"|(pre|post|fine)?-?(train|tun)(ing|e|ed)?"
    r"|fp8|bf16|fp16|dense|moe|v0\.\d|v01"
)
A_DATE = re.compile(r"2[3-6](0[1-9]|1[0-2])|(0[1-9]|1[0-2])([0-2]\d|3[01])|20[12]\d")
BILLIONS = {"b": 1.0, "bn": 1.0, "m": 1e-3, "t": 1e3}
A_MIXTURE = r"moe|\bx?\d+e\b|\ba\d+(\.\d+)?b\b|\d+x\d"
MOST_BILLIONS = 2000.0
"""Published models of more parameters are mixtures."""

ITS_SIZE = r"(?<![a-z0-9.])(\d+(?:\.\d+)?) ?(b|bn|m|t)(?:illion)?(?![a-z0-9])"

OTHER_LAYERS = re.compile(
    r"mamba|rwkv|jamba|zamba|griffin|recurrentgemma|retnet|hyena|bamba|falcon-?h1|granite-?4"
    r"|nemotron[- ]?(h\b|nano|3[- ]?(nano|super|ultra))|qwen3-?next|minimax-?(text|m1)|kimi-?linear"
)
"""Models whose layers are (also) state-space, recurrent or linear-attention ones."""


def by_name(name: str) -> ModelSpec | None:
    """The catalog's model that a name means, whatever its separators and decorations."""
    found = next((each for each in _meant(name) if each in _catalog_names()), None)
    return _entry(_catalog_names()[found]) if found else None


def known_sizes(name: str) -> dict[str, Any] | None:
    """The sizes of catalog/models/sizes.yaml that a name stands for."""
    return next((_sizes()[each] for each in _meant(name) if each in _sizes()), None)


def further_tokens(name: str) -> int:
    """The layers for further tokens that the model of this name was trained with."""
    model = by_name(name)
    facts = _facts()[model.name] if model else known_sizes(name) or {}
    return int(facts.get("further_tokens", 0))


def billions_in(name: str) -> float | None:
    """The parameters that a name tells, in billions: `Foo-13B`; None of `8x7B`, `A3B`."""
    text = re.sub(r"[_\-/]", " ", name.lower())
    found = re.findall(ITS_SIZE, text)
    if len(found) != 1 or re.search(A_MIXTURE, text):
        return None
    billions = float(found[0][0]) * BILLIONS[found[0][1]]
    return billions if billions < MOST_BILLIONS else None


def compact(name: str) -> str:
    """A name without owner, separators, words that do not tell models apart, and the v of a
    version (`LLaMA V3.1 8B`)."""
    return _joined([w for w in _words(name) if not NO_PART_OF_A_NAME.fullmatch(w)])


def _meant(name: str) -> list[str]:
    """The compact names of what a name may mean, the likeliest first."""
    words = [word for word in _words(name) if not NO_PART_OF_A_NAME.fullmatch(word)]
    undated = [word for word in words if not A_DATE.fullmatch(word)]
    shorts = dict.fromkeys((_joined(words), _joined(undated)))
    return [meant for each in shorts if each for meant in (_other_names().get(each, each), each)]


def _words(name: str) -> list[str]:
    return re.split(r"[\s_\-()]+", name.lower().rsplit("/", 1)[-1])


def _joined(words: list[str]) -> str:
    """Numbers stay apart: `Llama-3-3B` is not `LLaMA 33B`."""
    apart = re.sub(r"v(?=\d)", "", re.sub(r"(?<=\d) (?=\d)", "-", " ".join(words)))
    return apart.replace(" ", "")


@functools.cache
def _other_names() -> dict[str, str]:
    told = documents.read_mapping(catalog.FOLDER / "models" / "names.yaml")
    return {compact(name): compact(entry) for name, entry in told.items()}


@functools.cache
def _sizes() -> dict[str, dict[str, Any]]:
    known = documents.read_mapping(catalog.FOLDER / "models" / "sizes.yaml")
    return {compact(name): dict(each) for name, each in known.items()}


@functools.cache
def _facts() -> dict[str, dict[str, Any]]:
    return documents.read_mapping(catalog.FOLDER / "models" / "index.yaml")


@functools.cache
def _catalog_names() -> dict[str, str]:
    return {compact(name): name for name in catalog.list_models()}


@functools.cache
def _entry(name: str) -> ModelSpec:
    return catalog.find_model(name)
