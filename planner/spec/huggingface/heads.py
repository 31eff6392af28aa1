"""Heads: what architectures[0] says stands after the last layer.

    ...ForCausalLM, ...LMHeadModel, ...MTModel     language model; bias-free
    ...ForConditionalGeneration                    language model; of a pair, or the text part
    ...ForMaskedLM                                 language model with transform and bias
    ...ForSequenceClassification                   one token: a bias-free score (decoders), a
                                                   dense layer with tanh and a biased one (BERT,
                                                   RoBERTa, BART, T5)
    ...ForImageClassification                      one token, a biased matrix (ViT)
    ...ForTokenClassification                      a biased matrix
    ...ForQuestionAnswering                        the same with two labels, start and end
    ...Model                                       none; a pooler on BERT, RoBERTa and ViT

A config without `architectures` means the first of its family's list. The labels are counted in
id2label, else num_labels, else there are 2 (BART: 3).
"""

from collections.abc import Sequence
from typing import Any

from planner.spec.huggingface.keys import WAY_OUT, Keys
from planner.spec.huggingface.layers import Fields

DECODER = (
    "ForCausalLM",
    "LMHeadModel",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "Model",
)
ENCODER = (
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "Model",
)
IMAGES = ("ForImageClassification", "Model")
PAIR = (
    "ForConditionalGeneration",
    "ForSequenceClassification",
    "ForQuestionAnswering",
    "Model",
)
SPEECH = ("ForConditionalGeneration", "Model")
TRANSLATION = ("MTModel", "Model")
# Classes that end in Model and are no bare model.
OTHERS = ("DoubleHeadsModel", "EncoderModel", "DecoderModel", "PreTrainedModel")


def architecture(keys: Keys, known: Sequence[str]) -> str:
    """The ending of architectures[0] that is among the known ones; the first if none is given."""
    names = keys.listed("architectures")
    if not names:
        return known[0]
    name = names[0]
    endings = sorted((*known, *OTHERS, "LMHeadModel", "MTModel"), key=len, reverse=True)
    ending = next((e for e in endings if isinstance(name, str) and name.endswith(e)), None)
    if ending is None or ending not in known:
        shown = ", ".join(f"...{ending}" for ending in known)
        keys.refuse("architectures", f"{name!r} is not supported; write one of {shown}; {WAY_OUT}")
        return known[0]
    return ending


def labels(keys: Keys, missing: int = 2) -> int:
    """How many labels a classification has."""
    named = keys.part("id2label")
    return len(named) or keys.size("num_labels", missing=missing, null=missing)


def language_model(keys: Keys, vocab: int, *, tied: bool, **others: Any) -> Fields:
    """A head over the vocabulary, and whether its matrix is the token table."""
    tied = keys.flag("tie_word_embeddings", tied)
    return {"head": {"classes": vocab, **others}, "tied_embeddings": tied}


def classification(kind: str, classes: int, **others: Any) -> Fields:
    """A head over labels, with a bias unless told otherwise."""
    return {"head": {"kind": kind, "classes": classes, "bias": True, **others}}


def none(**others: Any) -> Fields:
    """No head: the bare model."""
    return {"head": {"kind": "none", **others}}


def of_decoder(keys: Keys, vocab: int, *, tied: bool, width: int | None = None) -> Fields:
    """head and tied_embeddings of a decoder. width: see Head.width."""
    nested = ("ForConditionalGeneration",) if keys.inside else ()
    match architecture(keys, DECODER + nested):
        case "ForSequenceClassification":
            count = labels(keys)
            return classification("sequence_classification", count, bias=False, width=width)
        case "ForTokenClassification":
            return classification("token_classification", labels(keys), width=width)
        case "ForQuestionAnswering":
            return classification("token_classification", 2, width=width)
        case "Model":
            return none(width=width)
    return language_model(keys, vocab, tied=tied, width=width)


def of_encoder(keys: Keys, vocab: int) -> Fields:
    """head and tied_embeddings of BERT and RoBERTa."""
    match architecture(keys, ENCODER):
        case "ForSequenceClassification":
            return classification("sequence_classification", labels(keys), pooler=True)
        case "ForTokenClassification":
            return classification("token_classification", labels(keys))
        case "ForQuestionAnswering":
            return classification("token_classification", _two(keys))
        case "Model":
            return none(pooler=True)
    return language_model(keys, vocab, tied=True, transform=True, bias=True)


def of_images(keys: Keys) -> Fields:
    """head of a ViT."""
    if architecture(keys, IMAGES) == "Model":
        return none(pooler=True)
    return classification("sequence_classification", labels(keys))


def of_pair(keys: Keys, known: Sequence[str], vocab: int, count: int = 2) -> Fields:
    """head and tied_embeddings of an encoder and decoder. count: labels if nothing names them."""
    match architecture(keys, known):
        case "ForSequenceClassification":
            return classification("sequence_classification", labels(keys, count), pooler=True)
        case "ForQuestionAnswering":
            return classification("token_classification", 2)
        case "Model":
            return none()
    return language_model(keys, vocab, tied=True)


def _two(keys: Keys) -> int:
    if (count := labels(keys)) != 2:
        keys.contradict("num_labels", f"{count} labels; question answering has 2, start and end")
    return 2
