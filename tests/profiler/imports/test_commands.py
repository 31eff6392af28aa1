"""meshwright import, end to end: without torch, into plans, into other profiles."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import meshwright as mw
from planner.cost.collectives import CollectiveTimes
from planner.spec import catalog, documents, local
from planner.spec.cluster import ClusterSpec
from planner.spec.documents import InputError
from planner.spec.model import ModelSpec
from planner.spec.profile import Machine, OperatorSample, Profile
from planner.spec.provenance import Provenance
from profiler import commands
from profiler.imports import merge
from tests.profiler.imports.cases import SAMPLES, outcome

ROOT = Path(__file__).resolve().parents[3]


def run(*words: object):
    app = typer.Typer()
    app.callback()(lambda: None)
    commands.register(app)
    return CliRunner().invoke(app, ["import", *map(str, words)])


def shell(*words: object, before: str = "pass") -> subprocess.CompletedProcess[str]:
    arguments = ["meshwright", "import", *map(str, words)]
    code = f"import sys; {before}; sys.argv = {arguments!r}; import meshwright; meshwright.main()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


def test_json_on_stdout_is_the_document_that_o_writes(tmp_path):
    path = tmp_path / "cluster.json"
    done = run(SAMPLES / "h100-node.xml", "--nodes", 4, "-o", path, "--format", "json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads(path.read_text())
    assert f"wrote {path} (cluster/1)" in done.stderr
    assert catalog.find_cluster(str(path)).devices == 32


def test_tables_and_notes_are_apart():
    done = run("nccl-topology", SAMPLES / "h100-node.xml")
    assert "370.8 GB/s" in done.stdout
    assert "--nodes N" in done.stderr
    assert "--nodes N" not in done.stdout


def test_no_torch_is_needed_and_help_stays_light():
    done = shell(SAMPLES / "trace-rank0.json", before="sys.modules['torch'] = None")
    assert done.returncode == 0, done.stderr
    assert "ProfilerStep" not in done.stderr
    assert "all_gather" in done.stdout


@pytest.mark.parametrize("file", ["nothing.txt", "topo-h100.txt"])
def test_bad_input_is_one_message_and_exit_code_2(file):
    done = shell(SAMPLES / file)
    assert done.returncode == 2
    assert done.stderr.startswith(f"meshwright: {SAMPLES / file}: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def written(tmp_path, *words: object) -> str:
    path = tmp_path / "imported.json"
    done = run(*words, "-o", path)
    assert done.exit_code == 0, done.output
    return str(path)


def test_a_profile_of_collectives_alone_plans(tmp_path):
    """The 16-rank all-reduce of the file is what plans over two nodes take."""
    path = written(tmp_path, SAMPLES / "all_reduce-16xH100.txt")
    profile = documents.load(Profile, path)
    times = CollectiveTimes(catalog.find_cluster("h100-sxm:2"), profile)
    measured = {s.message_bytes: s.seconds for s in profile.collectives if s.in_place}
    for size, seconds in measured.items():
        assert float(times.seconds("all_reduce", 16, 1, 1, size)) == pytest.approx(seconds)
    assert times.birth("all_reduce", 16, 1, 1) == "measured"
    assert times.birth("all_reduce", 16, 2, 1) == "assumed"  # over four nodes: not measured
    question = {"seq_len": 1024, "global_batch": 64}
    layout = "dp=16 micro_batch=1 zero=0"
    plain = mw.estimate("gpt3-1.3b", "h100-sxm:2", layout, **question)
    with_file = mw.estimate("gpt3-1.3b", "h100-sxm:2", layout, profile=path, **question)
    assert with_file.predicted.step_seconds != plain.predicted.step_seconds
    assert mw.plan("gpt3-1.3b", "h100-sxm:2", profile=path, **question).best.profile == profile


def test_every_imported_profile_plans(tmp_path):
    for name in ("kineto", "galvatron profile", "nccl-tests json", "simumax products"):
        path = documents.save(outcome(name).document, tmp_path / "profile.json")
        best = mw.plan("gpt2", "h200-sxm", seq_len=1024, global_batch=16, profile=str(path)).best
        assert best.predicted.step_seconds > 0, name


def test_measured_operators_of_a_trace_replace_the_roofline(tmp_path):
    """No product of gpt2 has the shape of the trace, so all are scaled from it: fitted."""
    path = written(tmp_path, SAMPLES / "trace-rank0.json", SAMPLES / "trace-rank1.json")
    found = mw.estimate(
        "gpt2", "h200-sxm", "dp=8 micro_batch=1", seq_len=1024, global_batch=8, profile=path
    )
    assert found.predicted.provenance.fitted > 0.1


def test_imported_clusters_plan_and_imported_models_are_planned(tmp_path):
    cluster = written(tmp_path, SAMPLES / "simumax-system.json", "--nodes", 2)
    model = documents.save(outcome("simumax experts").document, tmp_path / "model.json")
    assert catalog.find_model(str(model)) == documents.load(ModelSpec, model)
    other = documents.save(outcome("calculon application").document, tmp_path / "gpt.json")
    best = mw.plan(str(other), cluster, seq_len=1024, global_batch=64).best
    assert best.cluster == documents.load(ClusterSpec, cluster)
    assert best.predicted.step_seconds > 0


def test_the_imported_machine_is_a_local_cluster():
    """Sends of nccl-tests and the catalog's H100 are enough for `local`."""
    cluster = local.local_cluster(outcome("nccl-tests json").document, 4)
    assert cluster.accelerator.name == "h100-sxm"
    assert cluster.tiers[0].bandwidth_bytes_per_second == pytest.approx(332e9, rel=0.01)


def base(**machine: object) -> Profile:
    values = {"kind": "cuda", "processor": "Some CPU", "cores": 8, "memory_bytes": 1e9}
    linear = OperatorSample(
        kind="linear",
        dims={"m": 1, "k": 1, "n": 1, "bias": 0},
        dtype="bf16",
        phase="forward",
        seconds=1e-6,
    )
    return Profile(
        machine=Machine.model_validate(values | machine),
        created="then",
        operators=(linear,),
        collectives=outcome("nccl-tests text").document.collectives[:2],
        provenance=Provenance(birth="measured", source="meshwright profile"),
    )


def test_into_keeps_what_is_there_and_takes_the_newer(tmp_path):
    mine = documents.save(base(accelerator="NVIDIA H100 80GB HBM3"), tmp_path / "mine.json")
    path = written(tmp_path, SAMPLES / "all_reduce-16xH100.txt", "--into", mine)
    both = documents.load(Profile, path)
    assert both.operators == base().operators
    assert len(both.collectives) == 6  # two of them were there already
    assert (both.machine.cores, both.machine.accelerators) == (8, 8)
    assert both.fits == outcome("nccl-tests text").document.fits
    assert both.provenance.source == "meshwright profile; nccl-tests: all_reduce-16xH100.txt"


def test_into_refuses_other_machines_and_documents():
    imported = outcome("nccl-tests text").document
    with pytest.raises(InputError, match="was taken on NVIDIA B200"):
        merge.into(base(accelerator="NVIDIA B200"), imported, "mine.json")
    with pytest.raises(InputError, match="was taken on Some CPU"):
        merge.into(base(kind="cpu"), imported, "mine.json")
    with pytest.raises(InputError, match="makes a cluster/1 document, no profile"):
        merge.into(base(), outcome("calculon system").document, "mine.json")
