"""Questions take on the catalog's calibration: bands, births, risk, and plans that re-predict."""

from pathlib import Path

import pytest

from planner.search import planning, question, told_layout
from planner.spec import catalog, documents
from planner.spec.documents import InputError
from planner.spec.plan import Plan

LAYOUT = "dp=8 micro_batch=1 zero=1 recompute=full"


def estimate(cluster: str, runtime: str, **more: object) -> Plan:
    asked = question.ask("gpt3-1.3b", cluster, 2048, 64, "bf16", runtime, **more)
    return told_layout.plan_of_layout(asked, LAYOUT)


def test_a_calibrated_pair_has_a_band_and_fitted_numbers() -> None:
    plan = estimate("h100-sxm", "nemo")
    assert plan.predicted is not None
    assert plan.calibration is not None
    assert not plan.calibration.borrowed
    low, high = plan.predicted.low_seconds, plan.predicted.high_seconds
    assert low is not None
    assert high is not None
    assert low < plan.predicted.step_seconds * 1.2
    assert high > low
    assert plan.predicted.provenance.fitted > 0.5


def test_a_pair_without_runs_borrows_and_says_so() -> None:
    own, lent = estimate("h100-sxm", "nemo"), estimate("h200-sxm", "nemo")
    assert lent.calibration is not None
    assert lent.calibration.borrowed_from == "h100-sxm--nemo"
    widths = []
    for plan in (own, lent):
        assert plan.predicted is not None
        assert plan.predicted.low_seconds is not None
        assert plan.predicted.high_seconds is not None
        widths.append(plan.predicted.high_seconds / plan.predicted.low_seconds)
    assert widths[1] > 1.1 * widths[0]
    assert lent.predicted is not None
    assert lent.predicted.provenance.assumed > 0.5


def test_a_mixture_is_less_certain_than_dense_models_that_were_measured() -> None:
    asked = question.ask("mixtral-8x7b", "h100-sxm", 2048, 64, "bf16", "nemo")
    plan = told_layout.plan_of_layout(asked, "dp=8 ep=8 micro_batch=1")
    assert plan.predicted is not None
    assert plan.predicted.high_seconds is not None
    assert plan.calibration is not None
    high = plan.predicted.high_seconds / plan.predicted.step_seconds
    assert high > plan.calibration.time_high
    known = plan.calibration.replace(mixtures=True)
    assert known.time_band(True) == known.time_band(False)


def test_none_leaves_the_catalogs_numbers() -> None:
    plain = estimate("h100-sxm", "nemo", calibration="none")
    assert plain.calibration is None
    assert plain.predicted is not None
    assert plain.predicted.low_seconds == pytest.approx(plain.predicted.step_seconds / 1.25)
    assert plain.predicted.provenance.fitted == 0
    assert plain.cluster == catalog.find_cluster("h100-sxm")


@pytest.mark.parametrize(
    ("device", "runtime", "share"),
    [
        ("a800", "megatron-deepspeed", 1.0),
        ("a100-80", "torchtitan", 1 / 0.77),
        ("h100-sxm", "composer-fsdp", 0.35 / 0.62),
        ("h100-sxm", "torchtitan", 0.35 / 0.62 / 0.77),
    ],
)
def test_an_attention_kernel_of_an_older_device_is_worth_less_on_a_newer_one(
    device: str, runtime: str, share: float
) -> None:
    """And as much on one of the same age; Triton's is worth more where others run."""
    lent = catalog.find_calibration(catalog.find_accelerator(device), runtime)
    assert lent is not None
    assert lent.borrowed_from is not None
    lender, _, software = lent.borrowed_from.partition("--")
    own = catalog.find_calibration(catalog.find_accelerator(lender), software)
    assert own is not None
    before, after = (each.values()["attention_efficiency"] for each in (own, lent))
    assert after == pytest.approx(before * share)


def test_a_saved_plan_predicts_the_same_without_the_catalog(tmp_path: Path) -> None:
    plan = estimate("h100-sxm", "nemo")
    again = planning.explain(documents.load(Plan, documents.save(plan, tmp_path / "plan.json")))
    assert again.plan.predicted is not None
    assert plan.predicted is not None
    assert again.plan.predicted.step_seconds == pytest.approx(plan.predicted.step_seconds, rel=1e-9)
    assert again.plan.predicted.low_seconds == pytest.approx(plan.predicted.low_seconds, rel=1e-9)
    asked = question.ask(plan.model, plan.cluster, 2048, 64, "bf16", plan.runtime)
    assert asked.calibration is None, "a calibrated cluster is not calibrated twice"


def test_a_calibration_of_ones_own_is_a_file(tmp_path: Path) -> None:
    found = catalog.find_calibration(catalog.find_accelerator("h100-sxm"), "nemo")
    assert found is not None
    file = documents.save(found.replace(runs=12, sources=("mine",)), tmp_path / "c.json")
    plan = estimate("h100-sxm", "nemo", calibration=str(file))
    assert plan.calibration is not None
    assert plan.calibration.sources == ("mine",)
    with pytest.raises(InputError, match="no such file"):
        estimate("h100-sxm", "nemo", calibration="nowhere.json")


def test_plans_at_risk_are_avoided_unless_allowed() -> None:
    asked = question.ask("llama2-13b", "h100-sxm", 4096, 64, "bf16", "megatron-core")
    _, careful = planning.choose(asked, "time", 3)
    _, bold = planning.choose(asked, "time", 3, allow_at_risk=True)
    for plan in careful:
        assert plan.predicted is not None
        assert not plan.predicted.at_risk
        assert plan.predicted.peak_bytes <= 0.88 * plan.predicted.capacity_bytes
    assert bold[0].predicted is not None
    assert careful[0].predicted is not None
    assert bold[0].predicted.step_seconds <= careful[0].predicted.step_seconds


@pytest.mark.parametrize("runtime", catalog.list_runtimes())
@pytest.mark.parametrize("cluster", ["h100-sxm", "b200", "mi300x", "v100-32", "a100-40"])
def test_every_device_and_runtime_is_predicted(cluster: str, runtime: str) -> None:
    known = catalog.find_runtime(runtime)
    zero = max(known.zero_stages)
    dtype = "fp16" if cluster == "v100-32" else "bf16"
    model = "gpt3-1.3b" if known.models == "any" else "llama3.2-1b"
    asked = question.ask(model, cluster, 1024, 64, dtype, runtime)
    plan = told_layout.plan_of_layout(asked, f"dp=8 micro_batch=1 zero={zero}")
    assert plan.predicted is not None
    assert 0 < plan.predicted.step_seconds < 60
    assert (asked.calibration is not None) == (runtime != "native")
