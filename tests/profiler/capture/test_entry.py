"""A user's code builds what is captured: torch is left as it was, errors name the place."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from planner.spec.documents import InputError, load, parse
from planner.spec.graph import GraphDocument

torch = pytest.importorskip("torch")

from profiler.capture import entry  # noqa: E402
from profiler.capture.document import capture, capture_entry  # noqa: E402
from tests.profiler.capture.plain import encoder, sequence  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]


def state() -> tuple[Any, ...]:
    return (
        torch.get_rng_state().tolist(),
        random.getstate(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.overrides._get_current_function_mode_stack(),
        torch.utils._python_dispatch._get_current_dispatch_mode_stack(),
        torch.nn.init._no_grad_trunc_normal_,
    )


@pytest.mark.parametrize("name", ["build", "branch", "breaks"])
def test_the_state_of_torch_is_left_as_it_was(place: Any, name: str) -> None:
    before = state()
    try:
        capture_entry(place(name))
    except InputError:
        assert name != "build"
    assert state() == before


def test_a_module_that_exists_is_left_as_it_was() -> None:
    model, x = encoder(), sequence()
    weights = {name: (value, value.clone()) for name, value in model.named_parameters()}
    capture(model, (x,))
    for name, value in model.named_parameters():
        assert value is weights[name][0]
        assert value.equal(weights[name][1])
        assert value.grad is None
    assert type(x) is torch.Tensor
    assert model.training


def test_the_forms_an_entry_may_return(place: Any) -> None:
    assert capture_entry(place("build")).totals.parameters == 2 * 72
    assert capture_entry(place("build")).operators[0].dtype == "bfloat16"
    assert capture_entry(place("keywords")).totals.forward_flops == 2 * 2 * 8 * 4
    assert capture_entry(place("both")).totals.parameters == 4 * 64 + 4


def test_weights_need_no_memory(place: Any) -> None:
    graph = capture_entry(place("huge"))  # 640 GB of weights
    assert graph.totals.parameters == 400_000 * 400_001


def test_an_importable_module_in_the_current_folder(place: Any, monkeypatch: Any) -> None:
    path = place("").removesuffix("mine.py:")
    monkeypatch.chdir(path)
    assert capture_entry("mine:keywords").name == "Linear"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", ["no function 'missing'", "build"]),
        ("alone", ["without example inputs", "(module, args)"]),
        ("number", ["returned int", "(module, args)"]),
        ("breaks", ["KeyError", "mine.py", "no such key"]),
        ("branch", ["values of tensors", "mine.py", "x.sum() > 0", "configuration or shapes"]),
        ("reads", ["values of tensors", "mine.py", ".item()"]),
        ("chosen", ["depends on the values", "index", "fixed shapes"]),
        ("mapped", ["no memory of its own", "whole batch"]),
        ("silent", ["returns no tensors"]),
    ],
)
def test_errors_name_the_place_and_the_way_out(place: Any, name: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        capture_entry(place(name))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("nocolon", ["MODULE:FUNCTION"]),
        ("no_such_module_at_all:f", ["no module 'no_such_module_at_all'"]),
        ("missing.py:f", ["missing.py", "no such file"]),
    ],
)
def test_errors_of_the_place_itself(where: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        entry.find(where)
    for word in words:
        assert word in str(caught.value)


def test_a_file_that_cannot_be_imported(tmp_path: Any) -> None:
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(InputError, match="ZeroDivisionError"):
        entry.find(f"{tmp_path / 'broken.py'}:f")


def command(*arguments: str) -> Any:
    return subprocess.run(
        [sys.executable, "meshwright.py", "capture", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def test_the_command_writes_the_document_and_prints_it(place: Any, tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    done = command(place("both"), "-o", str(path), "--name", "mine", "--format", "json")
    assert done.returncode == 0, done.stderr
    graph = parse(GraphDocument, json.loads(done.stdout), "stdout")
    assert graph == load(GraphDocument, path)
    assert graph.name == "mine"
    assert graph.origin is not None
    assert graph.origin.call == place("both")
    assert done.stderr == f"building\nwrote {path}\n"


def test_the_command_refuses_with_exit_code_2(place: Any, tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    done = command(place("branch"), "-o", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("meshwright: capture:")
    assert done.stderr.count("\n") == 1
    assert not path.exists()
