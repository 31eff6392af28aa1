"""architectures[0] says which head a model has."""

import pytest

from planner.spec.model import Head
from tests.spec.huggingface.configs import (
    BART,
    BERT,
    DECODERS,
    GPT2,
    LLAMA,
    MARIAN,
    OPT,
    ROBERTA,
    T5,
    VIT,
    WHISPER,
    name_of,
    read,
    refused,
)


def head(data: dict, name: str, **changes: object) -> Head:
    return read(data, architectures=[name], **changes).head


@pytest.mark.parametrize("data", DECODERS, ids=name_of)
def test_heads_of_decoders(data):
    assert head(data, "XForCausalLM") == read(data).head == Head(classes=100)
    scores = Head(kind="sequence_classification", classes=2)
    assert head(data, "XForSequenceClassification") == scores
    tokens = Head(kind="token_classification", classes=2, bias=True)
    assert head(data, "XForTokenClassification") == tokens
    assert head(data, "XForQuestionAnswering", num_labels=7) == tokens
    assert head(data, "XModel") == Head(kind="none")
    assert not read(data, architectures=["XModel"], tie_word_embeddings=True).tied_embeddings


def test_gpt2_calls_its_language_model_so():
    assert head(GPT2, "GPT2LMHeadModel") == read(GPT2).head


@pytest.mark.parametrize("name", ["OPTForSequenceClassification", "OPTModel", "OPTForCausalLM"])
def test_every_head_of_opt_may_be_narrow(name):
    assert head(OPT, name, word_embed_proj_dim=16).width == 16


@pytest.mark.parametrize("data", [BERT, ROBERTA], ids=name_of)
def test_heads_of_text_encoders(data):
    masked = Head(classes=100, transform=True, bias=True)
    assert head(data, "XForMaskedLM") == read(data).head == masked
    assert read(data).tied_embeddings
    assert not read(data, tie_word_embeddings=False).tied_embeddings
    sequence = Head(kind="sequence_classification", classes=3, pooler=True, bias=True)
    assert head(data, "XForSequenceClassification", num_labels=3) == sequence
    tokens = Head(kind="token_classification", classes=9, bias=True)
    assert head(data, "XForTokenClassification", num_labels=9) == tokens
    assert head(data, "XModel") == Head(kind="none", pooler=True)
    answers = Head(kind="token_classification", classes=2, bias=True)
    assert head(data, "XForQuestionAnswering") == answers
    message = refused(data, architectures=["XForQuestionAnswering"], num_labels=3)
    assert "num_labels: 3 labels; question answering has 2" in message


def test_heads_of_images():
    labels = Head(kind="sequence_classification", classes=10, bias=True)
    assert head(VIT, "ViTForImageClassification", num_labels=10) == labels
    assert read(VIT, num_labels=10).head == labels
    assert head(VIT, "ViTModel") == Head(kind="none", pooler=True)


def test_heads_of_pairs():
    for data, name in ((T5, "T5"), (BART, "Bart"), (WHISPER, "Whisper")):
        assert head(data, f"{name}ForConditionalGeneration") == read(data).head
        assert head(data, f"{name}Model") == Head(kind="none")
    assert head(MARIAN, "MarianMTModel") == read(MARIAN).head == Head(classes=100)
    labels = {"kind": "sequence_classification", "pooler": True, "bias": True}
    assert head(T5, "T5ForSequenceClassification") == Head(classes=2, **labels)
    assert head(BART, "BartForSequenceClassification") == Head(classes=3, **labels)
    answers = Head(kind="token_classification", classes=2, bias=True)
    assert head(BART, "BartForQuestionAnswering") == head(T5, "T5ForQuestionAnswering") == answers


def test_labels_are_counted_by_name_or_number():
    name = "LlamaForSequenceClassification"
    assert head(LLAMA, name, id2label={"0": "a", "1": "b", "2": "c"}).classes == 3
    assert head(LLAMA, name, num_labels=4).classes == 4
    assert head(LLAMA, name, id2label={}, num_labels=None).classes == 2
    assert head(LLAMA, name, id2label={"0": "a"}, num_labels=4).classes == 1
    assert "num_labels: 'x' is not a whole number" in refused(
        LLAMA, architectures=[name], num_labels="x"
    )


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (GPT2, "GPT2DoubleHeadsModel"),
        (BERT, "BertForPreTraining"),
        (BERT, "BertLMHeadModel"),
        (BERT, "BertForMultipleChoice"),
        (ROBERTA, "RobertaForCausalLM"),
        (VIT, "ViTForMaskedImageModeling"),
        (T5, "T5EncoderModel"),
        (BART, "BartForCausalLM"),
        (WHISPER, "WhisperForAudioClassification"),
        (LLAMA, "LlamaForConditionalGeneration"),
        (LLAMA, 7),
    ],
)
def test_an_unknown_architecture_names_the_known_ones(data, name):
    message = refused(data, architectures=[name])
    assert f"architectures: {name!r} is not supported; write one of ..." in message
    assert "...Model; write an architecture/1 document instead" in message


def test_architectures_are_a_list():
    assert "architectures: 'LlamaModel' is not a list" in refused(LLAMA, architectures="LlamaModel")
    assert read(LLAMA, architectures=None) == read(LLAMA, architectures=[]) == read(LLAMA)
