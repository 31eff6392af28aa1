"""Launch files are read back by the languages they are written in."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML
from typer.testing import CliRunner

import planner.commands
from planner.export.job import Job
from planner.export.targets import TARGETS, export, write
from planner.spec import documents
from planner.spec.documents import InputError
from planner.spec.layout import Layout
from planner.spec.plan import Plan
from tests.export.launch_files import GOLDEN, PLANS, plan_of, texts


def test_files_are_the_kept_ones() -> None:
    kept = {path.name: path.read_text() for path in GOLDEN.iterdir()}
    assert texts() == kept


@pytest.mark.parametrize("name", [name for name in texts() if not name.endswith(".yaml")])
def test_shell_reads_the_scripts(name: str) -> None:
    done = subprocess.run(["bash", "-n"], input=texts()[name], text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("target", ["torchrun", "slurm"])
def test_scripts_start_torchrun_with_the_plan(tmp_path: Path, target: str) -> None:
    """The shell itself expands the command; torchrun, srun and scontrol only print."""
    written = write(export(PLANS["nodes"], target), tmp_path)
    for tool, body in {
        "torchrun": 'echo "$@"',
        "srun": 'shift; "$@"',
        "scontrol": "echo n1",
    }.items():
        (tmp_path / tool).write_text(f"#!/bin/sh\n{body}\n")
        os.chmod(tmp_path / tool, 0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HEAD": "n1"}
    environment |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "OUTPUT": "/re sults"}
    done = subprocess.run(
        ["bash", str(written[0]), "--steps", "9"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    for part in ("--nnodes=2 --nproc-per-node=8", "--rdzv-endpoint=n1:29400", "plan.json"):
        assert part in done.stdout
    assert done.stdout.endswith("--resume --output /re sults --steps 9\n")
    assert documents.load(Plan, tmp_path / "plan.json") == PLANS["nodes"]


def objects(plan: Plan) -> dict[str, Any]:
    (text,) = export(plan, "kubernetes").values()
    return {each["kind"]: each for each in YAML(typ="safe").load_all(text)}


def test_kubernetes_objects_fit_together() -> None:
    found = objects(PLANS["nodes"])
    name = found["Job"]["metadata"]["name"]
    pod = found["Job"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert found["Job"]["spec"]["completions"] == found["Job"]["spec"]["parallelism"] == 2
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 8}}
    assert f"--rdzv-endpoint={name}-0.{pod['subdomain']}:29400" in container["command"]
    assert found["Service"]["metadata"]["name"] == pod["subdomain"]
    labels = found["Job"]["spec"]["template"]["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"].items() <= labels.items()
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    carried = json.loads(found["ConfigMap"]["data"]["plan.json"])
    assert documents.parse(Plan, carried, "ConfigMap") == PLANS["nodes"]
    (cores,) = objects(PLANS["cores"])["Job"]["spec"]["template"]["spec"]["containers"]
    assert cores["resources"] == {"limits": {"cpu": 2}}


def test_the_command_writes_the_files(tmp_path: Path) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)
    planner.commands.register(app)
    path = documents.save(PLANS["cores"], tmp_path / "plan.json")
    words = ["export", str(path), "--target", "torchrun", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert os.access(tmp_path / "out" / "launch.sh", os.X_OK)
    assert done.stdout.splitlines() == [
        str(tmp_path / "out" / n) for n in ("launch.sh", "plan.json")
    ]


def test_what_cannot_be_exported_is_named() -> None:
    with pytest.raises(InputError, match="'slrum' is unknown; did you mean slurm"):
        export(PLANS["nodes"], "slrum")
    uneven = plan_of(Layout(dp=4, pp=3), gpus=True)
    with pytest.raises(InputError, match="12 ranks do not fill nodes of 8 devices"):
        export(uneven, "slurm")


def test_names_suit_every_target() -> None:
    for name in ("Llama-3.1_8B (ours)", "x" * 99, "--"):
        plan = PLANS["cores"].replace(model=PLANS["cores"].model.replace(name=name))
        made = Job.of(plan).name
        assert len(made) < 55
        assert made.replace("-", "").isalnum()
        assert made == made.lower().strip("-")


def test_every_target_is_kept() -> None:
    assert len(texts()) == len(PLANS) * len(TARGETS)
