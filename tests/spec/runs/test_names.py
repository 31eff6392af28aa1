"""What names of models mean: entries, known sizes whose counts are the published ones, a count."""

import pytest

from planner.spec import catalog, documents
from planner.spec.runs.case import case_of
from planner.spec.runs.model import model_of
from planner.spec.runs.names import billions_in, by_name, compact, known_sizes
from planner.spec.runs.run import Run
from planner.spec.runs.unusable import UnusableError
from tests.spec.formula import parameters

MODELS = catalog.FOLDER / "models"
SIZES = documents.read_mapping(MODELS / "sizes.yaml")
NAMES = documents.read_mapping(MODELS / "names.yaml")


def built(**cells: object) -> tuple[int, tuple[str, ...]]:
    run = Run(file="mine.csv", line=2, seq_len=2048, **cells)  # type: ignore[arg-type]
    model, notes = model_of(run, 2048, 1)
    return parameters(model), notes


@pytest.mark.parametrize("name", SIZES)
def test_known_sizes_have_the_parameters_that_their_authors_print(name: str) -> None:
    count, _ = built(model=name)
    assert count / 1e9 == pytest.approx(SIZES[name]["billions"], rel=0.013)


def test_every_other_name_means_something_and_no_entry_is_there_twice() -> None:
    entries = {compact(name) for name in catalog.list_models()}
    known = {compact(name) for name in SIZES}
    assert not entries & known
    assert {compact(meant) for meant in NAMES.values()} <= entries | known
    assert not {compact(name) for name in NAMES} & known


@pytest.mark.parametrize(
    ("text", "billions"),
    [
        ("meta-llama/Llama-2-7b-hf", 6.7),
        ("LLaMA 33B", 32.5),
        ("Llama-3-8B", 8.0),
        ("Qwen3-235B-A22B-Instruct-2507", 235),
        ("allenai/OLMo-2-1124-7B", 7.3),
        ("CohereForAI/c4ai-command-r-plus", 103.8),
        ("Grok1 314B", 314),
        ("Kimi-K2-Instruct", 1026),
        ("meta-llama/Llama-4-Maverick-17B-128E", 400.7),
        ("BERT-Large 340M", 0.34),
        ("Turing-NLG 17B", 17.2),
        ("Megatron-Turing NLG 530B", 530),
        ("GPT-3", 175),
        ("gemma-3-12b", 11.8),
    ],
)
def test_models_are_found_as_people_spell_them(text: str, billions: float) -> None:
    assert by_name(text) or known_sizes(text)
    assert built(model=text)[0] / 1e9 == pytest.approx(billions, rel=0.03)


@pytest.mark.parametrize(
    ("text", "billions"),
    [
        ("Foo-13B", 13.0),
        ("bert-340M", 0.34),
        ("8x7B", None),
        ("x-30B-A3B", None),
        ("a1b2", None),
        ("m6-10t", None),
    ],
)
def test_a_count_in_a_name(text: str, billions: float | None) -> None:
    assert billions_in(text) == billions


@pytest.mark.parametrize("billions", [0.3, 1.3, 7, 13, 70, 175, 530])
@pytest.mark.parametrize("arch", ["gpt", "llama"])
def test_a_model_of_which_only_the_count_is_known_has_that_count(
    billions: float, arch: str
) -> None:
    for cells in ({"model": f"Secret-{billions}B"}, {"model": "secret", "params_b": billions}):
        count, notes = built(arch=arch, **cells)
        assert count / 1e9 == pytest.approx(billions, rel=0.12)
        assert any("usual proportions" in note for note in notes)


def test_the_architecture_and_the_count_beside_a_name_help() -> None:
    assert built(model="llama2", params_b=70.0)[0] == built(model="llama2-70b")[0]
    assert built(model="405B", arch="llama")[0] == built(model="llama3.1-405b")[0]


def test_a_row_overrules_its_name_and_the_name_lends_the_rest() -> None:
    whole, _ = built(model="llama3.1-70b")
    cut, notes = built(model="llama3.1-70b", n_layers=40)
    assert cut == pytest.approx(whole / 2, rel=0.03)
    assert any("known by" in note for note in notes)
    padded, _ = built(model="gpt3-175b", vocab=51_200)
    assert padded - built(model="gpt3-175b")[0] == 12_288 * (51_200 - 50_257)


@pytest.mark.parametrize(
    "name", ["mamba-2.8b", "Jamba-1.5", "Nemotron-H-56B", "Qwen3-Next-80B-A3B"]
)
def test_layers_of_another_kind_are_refused(name: str) -> None:
    with pytest.raises(UnusableError, match="without softmax attention"):
        built(model=name)


def test_an_unknown_model_without_sizes_is_refused_by_its_name() -> None:
    with pytest.raises(UnusableError, match="model Foo is not known and n_layers is not told"):
        built(model="Foo")


def test_nemo_trains_the_layers_for_further_tokens_that_a_model_has() -> None:
    cells = {"seq_len": 4096, "gpu": "H100", "n_gpus": 64, "dp": 64, "tp": 1, "pp": 1, "cp": 1}
    cells |= {"micro_batch": 1, "global_batch": 64, "step_time_s": 1.0}

    def layers(model: str, runtime: str) -> int:
        run = Run(file="mine.csv", line=2, model=model, runtime=runtime, **cells)  # type: ignore[arg-type]
        return case_of(run).model.head.mtp_layers

    assert layers("DeepSeek-V3", "nemo") == layers("GLM-4.5", "Megatron-Bridge") == 1
    assert layers("DeepSeek-V3", "torchtitan") == layers("Kimi-K2", "nemo") == 0
