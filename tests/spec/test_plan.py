"""Plan: its parts agree with each other, and it survives the disk whole."""

import pydantic
import pytest

from planner.spec import catalog, documents
from planner.spec.layout import Layout, make_stages
from planner.spec.plan import Plan, Prediction
from planner.spec.provenance import Shares
from planner.spec.workload import Workload

LAYOUT = Layout(dp=2, tp=2, pp=2, micro_batch=2)
PREDICTION = Prediction(
    step_seconds=1.5,
    tokens_per_second_per_device=100.0,
    mfu=None,
    peak_bytes=3.0,
    capacity_bytes=80e9,
    fits=True,
    stage_peak_bytes=(3.0, 2.0),
    breakdown={"forward": 1.0, "backward": 0.5},
    memory={"weights": 3.0},
    provenance=Shares(assumed=1.0),
)


def plan(counts=(3, 3), **changes) -> Plan:
    fields = {
        "model": catalog.find_model("tiny-llama"),
        "cluster": catalog.find_cluster("h100-sxm"),
        "workload": Workload(seq_len=512, global_batch=16),
        "runtime": catalog.find_runtime("native"),
        "layout": LAYOUT,
        "stages": make_stages(LAYOUT, counts),
        "predicted": PREDICTION,
    }
    return Plan(**{**fields, **changes})


def test_a_plan_survives_the_disk_whole(tmp_path):
    path = documents.save(plan(), tmp_path / "plan.json")
    assert documents.load(Plan, path) == plan()


def test_what_follows_from_the_parts():
    assert plan().microbatches == 4
    assert plan((2, 4)).layer_counts == (2, 4)


def test_a_stage_may_hold_no_layer():
    assert plan((0, 6)).layer_counts == (0, 6)


def test_the_number_of_stages_is_pp_times_vpp():
    with pytest.raises(pydantic.ValidationError, match=r"3 stages, the layout has pp\*vpp=2"):
        plan((2, 2, 2))


def test_the_stages_hold_all_layers():
    with pytest.raises(pydantic.ValidationError, match="hold 5 layers, the model has 6"):
        plan((2, 3))


def test_the_stages_are_consecutive():
    first, second = make_stages(LAYOUT, (3, 3))
    gap = second.replace(first_layer=4)
    with pytest.raises(pydantic.ValidationError, match=r"stages.1: first_layer is 4, expected 3"):
        plan(stages=(first, gap))


def test_a_broken_plan_file_is_refused_by_name(tmp_path):
    text = plan().model_dump_json().replace('"first_layer":3', '"first_layer":5')
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(documents.InputError, match=r"plan.json: .*first_layer is 5"):
        documents.load(Plan, path)


def test_the_cluster_has_the_devices_of_the_layout():
    layout = LAYOUT.replace(dp=99)
    with pytest.raises(pydantic.ValidationError):
        plan(layout=layout, stages=make_stages(layout, (3, 3)))
