from pathlib import Path

import pytest

from planner.spec import documents
from planner.spec.documents import InputError
from planner.spec.layout import Layout
from planner.spec.timeline import Timeline
from reports.runs import read_result, read_runs, read_timeline
from tests.reports.conftest import PIPELINE, make_measured, make_plan, make_timeline


def write_run(folder: Path, name: str, layout: Layout, ran: bool = True) -> None:
    plan = make_plan(layout)
    documents.save(plan, folder / f"plan-{name}.json")
    documents.save(make_timeline(layout, plan.microbatches), folder / f"timeline-{name}.json")
    if ran:
        documents.save(make_measured(plan, loss=(4.0,)), folder / f"measured-{name}.json")


def test_a_folder_gives_its_plans_in_natural_order(tmp_path: Path) -> None:
    write_run(tmp_path, "10", Layout(dp=4))
    write_run(tmp_path, "2", PIPELINE, ran=False)
    documents.save(make_measured(make_plan(Layout()), loss=(5.0,)), tmp_path / "reference.json")
    first, second = read_runs(tmp_path)
    assert (first.plan.layout, second.plan.layout) == (PIPELINE, Layout(dp=4))
    assert first.measured is None
    assert first.loss_parity is None
    assert second.loss_parity == pytest.approx(0.2)
    assert second.predicted == make_timeline(Layout(dp=4), 4)


def test_a_plan_alone_is_simulated(tmp_path: Path) -> None:
    path = documents.save(make_plan(PIPELINE), tmp_path / "plan.json")
    result = read_result(path)
    assert result.predicted.kind == "predicted"
    assert {span.name for span in result.predicted.spans} == {
        span.name for span in make_timeline(PIPELINE, 8).spans
    }


def test_an_empty_folder_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no plan-NAME\.json; write one"):
        read_runs(tmp_path)


def test_the_run_of_another_layout_is_refused(tmp_path: Path) -> None:
    plan = documents.save(make_plan(PIPELINE), tmp_path / "plan.json")
    other = documents.save(make_measured(make_plan(Layout(dp=4))), tmp_path / "measured.json")
    with pytest.raises(InputError, match=r"measured\.json: layout: dp=4 .* was run"):
        read_result(plan, measured_file=other)


def test_a_timeline_is_read_from_both_documents(tmp_path: Path) -> None:
    timeline = make_timeline(PIPELINE, 8)
    assert read_timeline(documents.save(timeline, tmp_path / "t.json")) == timeline
    measured = make_measured(make_plan(PIPELINE))
    assert measured.timeline is not None
    measured = measured.replace(timeline=measured.timeline.replace(peak_bytes={}))
    recorded = read_timeline(documents.save(measured, tmp_path / "m.json"))
    assert isinstance(recorded, Timeline)
    assert recorded.peak_bytes == measured.peak_bytes


def test_documents_without_a_timeline_are_refused(tmp_path: Path) -> None:
    plan = make_plan(PIPELINE)
    path = documents.save(plan, tmp_path / "plan.json")
    with pytest.raises(InputError, match=r"'plan/1' holds no timeline; give timeline/1"):
        read_timeline(path)
    bare = documents.save(make_measured(plan).replace(timeline=None), tmp_path / "m.json")
    with pytest.raises(InputError, match="timeline: none was recorded"):
        read_timeline(bare)
