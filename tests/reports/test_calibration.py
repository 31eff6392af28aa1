"""meshwright calibrate: constants from a dozen runs or a profile, errors beside baselines."""

import csv
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from planner.calibration.own_profile import fit_profile
from planner.search import question, told_layout
from planner.spec import catalog, documents
from planner.spec.calibration import Calibration
from planner.spec.documents import InputError
from planner.spec.profile import CollectiveSample, Machine, OperatorSample, Profile
from planner.spec.provenance import Provenance
from reports import commands

APP = typer.Typer()
commands.register(APP)
RUNS = catalog.FOLDER / "runs"
FOUNDRY = RUNS / "llm_foundry.csv"


def call(*words: str) -> str:
    done = CliRunner().invoke(APP, ["calibrate", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten runs of LLM-foundry on 40 GB devices, as a cluster of one's own."""
    read = csv.DictReader(FOUNDRY.read_text().splitlines())
    rows = [row for row in read if "40GB" in row["gpu"] and row["model"] in ("mpt-3b", "mpt-7b")]
    rows = [row for row in rows if row["seq_len"] == "2048"]
    path = tmp_path_factory.mktemp("own") / "runs.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_ten_runs_make_a_calibration_better_than_both_baselines(ten: Path, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    start = "a100-80--composer-fsdp"
    value = json.loads(call(str(ten), "-o", str(path), "--start", start, "--format", "json"))
    made = documents.load(Calibration, path)
    assert (value["schema"], made.name) == ("calibrating/1", "a100-40--composer-fsdp")
    assert value["start"] == f"{start} for {made.name}"
    assert made.runs == 10
    assert len(made.constants) <= 12
    errors = {name: row["median_ape"] for name, row in value["errors"].items()}
    assert errors["in sample"] < errors["left out one by one"] < 0.06
    assert errors["left out one by one"] < errors["baseline: constant"]
    assert made.time_low < 1 < made.time_high
    assert json.loads(path.read_text()) == value["calibration"]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["none.csv"], "no such file"),
        ([str(FOUNDRY)], "of 2 kinds"),
        ([str(FOUNDRY), "--where", "n_gpus<=0"], "--where selects none"),
        ([str(FOUNDRY), "--where", 'model == "none"'], "none of"),
        ([str(FOUNDRY), "--where", "n_gpus<=0 and"], "cannot be read"),
        ([str(RUNS / "korthikanti_2022.csv"), "--start", "h100"], "is no calibration"),
        (["none.json", "--where", "tp==1"], "is a profile"),
    ],
)
def test_wrong_input_says_what_to_write(words: list[str], part: str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    with pytest.raises(InputError) as error:
        call(*words, "-o", str(path))
    assert part in str(error.value)
    assert not path.exists()


def profile(accelerator: str = "NVIDIA H200") -> Profile:
    """One large product at 60 % of the peak, an all-reduce at half of the fabric's rate."""
    seconds = 2 * 8192**3 / (0.6 * 989e12) + 5e-6
    node = catalog.find_node("h200-sxm")
    ring = 14 * node.fabric.latency_seconds
    rate = 0.5 * node.fabric.bandwidth_bytes_per_second
    sizes = (2.0**20, 2.0**24, 2.0**28, 2.0**32)
    return Profile(
        machine=Machine(
            kind="cuda", processor="x", cores=8, memory_bytes=1e12, accelerator=accelerator
        ),
        created="2026-11-24T00:00:00",
        operators=(
            OperatorSample(
                kind="linear",
                dims={"m": 8192, "k": 8192, "n": 8192},
                dtype="bf16",
                phase="forward",
                seconds=seconds,
                spread=0.0,
                repeats=9,
            ),
        ),
        collectives=tuple(
            CollectiveSample(
                op="all_gather",
                backend="nccl",
                ranks=8,
                message_bytes=size,
                seconds=ring / 2 + 7 / 8 * size / rate,
                spread=0.0,
                repeats=9,
            )
            for size in sizes
        ),
        provenance=Provenance(birth="measured", source="test"),
    )


def test_a_profile_determines_products_and_links() -> None:
    made = fit_profile(profile(), catalog.find_runtime("megatron-core"), None).values()
    assert 0.6 <= made["matmul_efficiency"] < 0.7  # the share that the shape leaves is taken off
    assert made["fabric_efficiency"] == pytest.approx(0.5, rel=0.02)
    assert made["fabric_latency_seconds"] == pytest.approx(3.5e-6, rel=0.1)
    assert "layer_host_seconds" not in made


def test_a_device_that_nobody_knows_must_say_what_it_is() -> None:
    runtime = catalog.find_runtime("megatron-core")
    with pytest.raises(InputError, match="accelerator_memory_bytes: missing"):
        fit_profile(profile("Home-made"), runtime, None)
    with pytest.raises(InputError, match=r"machine\.accelerator: empty"):
        fit_profile(profile(""), runtime, None)


def test_a_profile_is_calibrated_and_judged_by_its_other_half(tmp_path: Path) -> None:
    """On the command line: constants, held-out errors beside the data sheet's, and the plan."""
    source = documents.save(profile("NVIDIA H100 80GB HBM3"), tmp_path / "profile.json")
    path = tmp_path / "calibration.json"
    value = json.loads(call(str(source), "-o", str(path), "--format", "json"))
    errors = {name: row["median_ape"] for name, row in value["errors"].items()}
    assert errors["collectives, held out"] < 0.05 < errors["collectives, uncalibrated"]
    shown = call(str(source), "-o", str(path))
    assert "seconds of" in shown
    assert "linear bf16, in the fit" in shown
    made = documents.load(Calibration, path)
    asked = ("llama3.1-8b", "h100-sxm", "dp=1 tp=8 micro_batch=1", 4096, 8, "megatron-core")
    steps = []
    for calibration in (None, str(path)):
        model, cluster, layout, seq_len, batch, runtime = asked
        blocks = question.ask(
            model, cluster, seq_len, batch, None, runtime, calibration=calibration
        )
        predicted = told_layout.plan_of_layout(blocks, layout).predicted
        assert predicted is not None
        steps.append(predicted.step_seconds)
    assert made.values()["matmul_efficiency"] < 0.7
    assert steps[1] != steps[0]
