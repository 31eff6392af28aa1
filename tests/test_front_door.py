"""The command line: the JSON contract, exit codes, and one clear message for every wrong input."""

import contextlib
import errno
import io
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

import meshwright
from planner import listing
from planner.spec import printing

Front = Callable[..., tuple[int, str, str]]
QUESTION = ("gpt2", "h100-sxm", "--seq-len", "1024", "--global-batch", "64")
LAYOUT_KEYS = {
    "dp",
    "tp",
    "pp",
    "cp",
    "ep",
    "vpp",
    "micro_batch",
    "zero",
    "recompute",
    "schedule",
}
PREDICTION_KEYS = {
    "step_seconds",
    "tokens_per_second_per_device",
    "mfu",
    "peak_bytes",
    "fits",
    "breakdown",
    "memory",
    "provenance",
}


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Front:
    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["meshwright", *words])
        with pytest.raises(SystemExit) as ended:
            meshwright.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What `plan` prints as json, and the plan that it wrote."""
    path = tmp_path_factory.mktemp("front") / "plan.json"
    words = ["meshwright", "plan", *QUESTION, "--format", "json", "-o", str(path)]
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit, match="0"):
            meshwright.main()
    return printed.getvalue(), path


def test_plan_keeps_its_contract(planned: tuple[str, Path]) -> None:
    out, path = planned
    value = json.loads(out)
    assert value["schema"] == "plans/1"
    assert set(value["best"]["layout"]) == LAYOUT_KEYS
    assert set(value["best"]["predicted"]) >= PREDICTION_KEYS
    assert set(value["best"]["predicted"]["provenance"]) == {"measured", "fitted", "assumed"}
    assert set(value["search"]) >= {
        "candidates",
        "lower_bound_seconds",
        "gap",
        "proven",
        "wall_seconds",
        "cpu_seconds",
    }
    assert len(value["alternatives"]) == 4
    assert value["why"]
    assert json.loads(path.read_text())["schema"] == "plan/1"


def test_estimate_agrees_with_plan(front: Front, planned: tuple[str, Path]) -> None:
    best = json.loads(planned[0])["best"]
    stages = ",".join(str(len(stage["layers"])) for stage in best["stages"])
    layout = " ".join(f"{key}={value}" for key, value in best["layout"].items())
    layout = f"{layout} stages={stages}"
    code, out, _ = front("estimate", *QUESTION, "--layout", layout, "--format", "json")
    value = json.loads(out)
    assert code == 0
    assert value.pop("schema") == "prediction/1"
    assert value == best["predicted"]


def test_simulate_and_explain_read_a_plan(
    front: Front, planned: tuple[str, Path], tmp_path: Path
) -> None:
    timeline, trace = (str(tmp_path / name) for name in ("t.json", "trace.json"))
    plan = str(planned[1])
    code, out, _ = front("simulate", plan, "-o", timeline, "--trace", trace, "--format", "json")
    assert code == 0
    assert json.loads(out)["schema"] == "timeline/1"
    assert json.loads(Path(timeline).read_text()) == json.loads(out)
    assert json.loads(Path(trace).read_text())["traceEvents"]
    code, out, _ = front("explain", plan, "--format", "json")
    assert code == 0
    assert json.loads(out)["why"]


@pytest.mark.parametrize("output_format", ["table", "csv"])
def test_every_format_prints_on_stdout(front: Front, output_format: str) -> None:
    for words in (
        ("plan", *QUESTION),
        ("estimate", *QUESTION, "--layout", "dp=8 zero=1"),
        ("scale", *QUESTION, "--devices", "4,8"),
        ("show",),
        ("show", "models"),
        ("show", "clusters"),
        ("show", "accelerators"),
        ("show", "runtimes"),
        ("show", "model", "gpt2"),
    ):
        code, out, _ = front(*words, "--format", output_format)
        assert code == 0, words
        assert len(out.splitlines()) > 1, words


@pytest.mark.parametrize("name", listing.DOCUMENTS)
def test_schema_of_every_document(front: Front, name: str) -> None:
    code, out, _ = front("schema", name)
    value = json.loads(out)
    assert code == 0
    assert value["properties"]["schema"] == {"const": listing.DOCUMENTS[name].SCHEMA}
    assert value["additionalProperties"] is False


def test_brackets_in_a_table_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    printing.print_table([{"remedy": "pip install '.[exec]'"}], "[bold]")
    out = capsys.readouterr().out
    assert "'.[exec]'" in out
    assert "[bold]" in out


def test_doctor_and_version(front: Front) -> None:
    code, out, _ = front("doctor", "--format", "json")
    assert code == 0
    assert {row["what"] for row in json.loads(out)["checks"]} >= {"python", "torch", "cores"}
    assert front("--version")[:2] == (0, meshwright.__version__ + "\n")


WRONG = [
    (("plan", "llama2-7x", *QUESTION[1:]), "did you mean 'llama2-7b'"),
    (("plan", "llama2-7b", "h100", *QUESTION[2:]), "did you mean 'h100-"),
    (("plan", "llama2-7b", "h100-sxm:0", *QUESTION[2:]), "number of nodes"),
    (("plan", "llama2-7b", "local", *QUESTION[2:]), "meshwright profile"),
    (("plan", *QUESTION, "--runtime", "megatron"), "megatron-core"),
    (("plan", *QUESTION, "--dtype", "bf17"), "dtype"),
    (("plan", *QUESTION, "--dtype", "fp64"), "no peak FLOP/s"),
    (("plan", *QUESTION, "--objective", "fun"), "time, cost or devices"),
    (("plan", *QUESTION, "--format", "xml"), "table, json, csv"),
    (("plan", *QUESTION, "--pareto", "-o", "plan.json"), "-o writes one plan"),
    (("plan", *QUESTION, "--pareto", "--objective", "cost"), "leave out --objective"),
    (("plan", *QUESTION, "--throughput", "inf", "--objective", "devices"), "number above 0"),
    (("plan", *QUESTION[:-1], "9" * 12), "at most 1,048,576 sequences"),
    (("plan", "gpt2", "h100-sxm:" + "9" * 12, *QUESTION[2:]), "at most 1,000,000 nodes"),
    (("plan", *QUESTION, "--profile", "nowhere.json"), "no such file"),
    (("plan", "./nowhere/config.json", *QUESTION[1:]), "no such file"),
    (("plan", "gpt2", "h100-sxm", "--seq-len", "4096", "--global-batch", "8"), "1024 positions"),
    (("plan", *QUESTION[:2], "--seq-len", "0", "--global-batch", "8"), "seq_len"),
    (("estimate", *QUESTION, "--layout", "dp=5"), "does not divide"),
    (("estimate", *QUESTION, "--layout", "tp=8"), "does not divide heads=12"),
    (("estimate", *QUESTION, "--layout", "zero=7"), "zero"),
    (("scale", *QUESTION, "--devices", "eight"), "8,16,32"),
    (("explain", "nowhere.json"), "no such file"),
    (("show", "modle", "gpt2"), "did you mean"),
    (("schema", "plam"), "did you mean 'plan'"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(w[:4]) for w, _ in WRONG])
def test_wrong_input_is_one_message_and_exit_2(
    front: Front, words: tuple[str, ...], message: str
) -> None:
    code, out, err = front(*words)
    assert code == 2, err
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_a_wrong_document_names_file_key_and_remedy(front: Front, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(
        "schema: cluster/1\nname: mine\naccelerator: h100-sxm\nnodez: 2\ndevices_per_node: 8\n"
        "tiers: [{name: nvlink, devices: 8, bandwidth: 300, latency: 3us}]\n"
    )
    code, _, err = front("plan", "llama2-7b", str(path), *QUESTION[2:])
    assert code == 2
    assert f"{path}: nodez: unknown key; did you mean 'nodes'?" in err
    assert "300 has no unit" in err
    assert "900GB/s" in err


def test_nothing_fits_is_exit_3_with_numbers(front: Front) -> None:
    code, out, err = front(
        "plan", "llama3.1-405b", "h100-sxm", "--seq-len", "8192", "--global-batch", "64"
    )
    assert code == 3
    assert out == ""
    assert "device memory is the limit" in err
    assert "GiB of 80.0 GiB" in err
    assert "What would help" in err


def test_a_termination_takes_what_a_run_has_made(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            folders.append(Path(folder))
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(meshwright, "_app", lambda: work)
    assert front("run")[0] == 128 + signal.SIGTERM
    assert not folders[0].exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_interruption_while_rooms_load_is_one_word(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(meshwright, "_app", interrupted)
    assert front("plan") == (130, "", "meshwright: interrupted\n")


def test_a_full_disk_behind_stdout_is_one_line(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(meshwright, "_app", lambda: full)
    code, _, err = front("show")
    assert (code, err.count("\n")) == (2, 1)
    assert "standard output: cannot be written: No space left" in err


def test_an_unwritable_output_is_bad_input(front: Front, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("kept")
    code, _, err = front("plan", *QUESTION, "-o", str(blocked / "plan.json"))
    assert code == 2
    assert "cannot be written" in err
    assert blocked.read_text() == "kept"


def test_without_torch_a_run_says_what_to_install(planned: tuple[str, Path]) -> None:
    path = str(planned[1])
    code = (
        "import sys; sys.modules['torch'] = None\n"
        f"import meshwright; sys.argv = ['meshwright', 'run', {path!r}]\nmeshwright.main()\n"
    )
    root = Path(meshwright.__file__).parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 2
    assert ".[exec]" in done.stderr


def test_notebook_api() -> None:
    plans = meshwright.plan("llama2-7b", "h100-sxm", seq_len=4096, global_batch=64)
    frame = plans.to_frame()
    assert list(frame["step_seconds"]) == sorted(frame["step_seconds"])
    assert "step takes" in plans.explain()
    timeline = meshwright.simulate(plans.best)
    assert plans.best.predicted is not None
    assert timeline.step_seconds == pytest.approx(plans.best.predicted.step_seconds)
    again = meshwright.estimate(
        "llama2-7b", "h100-sxm", str(plans.best.layout), seq_len=4096, global_batch=64
    )
    assert again.layout == plans.best.layout


def test_ledger_of_a_rank(front: Front, tmp_path: Path) -> None:
    path, out_path = tmp_path / "plan.json", tmp_path / "ledgers.json"
    layout = "tp=2 pp=2 dp=16 micro_batch=1 zero=1"
    asked = ("tiny-gpt2", "h100-sxm:8", "--seq-len", "128", "--global-batch", "32")
    front("estimate", *asked, "--layout", layout, "--runtime", "native", "-o", str(path))
    code, out, _ = front("ledger", str(path), "--rank", "63", "-o", str(out_path))
    assert code == 0
    assert "all agree" in out
    value = json.loads(out_path.read_text())
    assert value["schema"] == "ledgers/1"
    assert value["differences"] == []
    code, _, err = front("ledger", str(path), "--rank", "64")
    assert (code, err.count("ranks 0 to 63")) == (2, 1)
