"""An explanation judges a plan by its own question, and what it says of others is what a search of
those others finds."""

import pytest

from planner.cost.blocks import Blocks
from planner.search import planning, told_layout
from planner.search.optimum import rank
from planner.search.reasons.explanation import Explanation
from planner.search.wishes import Wishes
from planner.spec import documents
from planner.spec.plan import Plan
from planner.spec.workload import Workload
from tests.examples import blocks, gpu_cluster, llama_like, plain_runtime

MODEL = llama_like(layers=4, vocab=32_000, hidden=512, heads=8, kv_heads=4, head_dim=64, ffn=2048)


def asked(nodes: int = 2, batch: int = 32, memory: str = "80GiB", faster: float = 1.0) -> Blocks:
    cluster = gpu_cluster(nodes, 4, memory=memory)
    *inner, outer = cluster.tiers
    speed = faster * outer.bandwidth_bytes_per_second
    cluster = cluster.replace(tiers=(*inner, outer.replace(bandwidth_bytes_per_second=speed)))
    runtime = plain_runtime(recompute_layers="same")
    return blocks(MODEL, cluster, Workload(seq_len=64, global_batch=batch), runtime)


def best(found: Blocks, **wishes: object) -> Plan:
    return rank(found, wishes=Wishes.of(**wishes)).plans[0]  # type: ignore[arg-type]


def seconds(plan: Plan) -> float:
    assert plan.predicted is not None
    return plan.predicted.step_seconds


def test_a_plan_carries_its_question_through_a_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    plan = best(asked(), fix=("pp=2",), forbid=("zero=0",), memory_limit="1GiB")
    assert plan.asked is not None
    assert (plan.asked.fix, plan.asked.forbid) == (("pp=2",), ("zero=0",))
    assert plan.asked.limit_bytes == 2**30
    again = documents.load(Plan, documents.save(plan, tmp_path / "plan.json"))
    assert again == plan


def test_a_plan_is_judged_by_its_own_limit_and_wishes() -> None:
    free = best(asked())
    assert free.predicted is not None
    tight = f"{0.8 * free.predicted.peak_bytes:.0f}B"
    plan = best(asked(), memory_limit=tight, fix=("tp=2",))
    found = planning.explain(plan)
    assert found.better is None
    others = [each.plan for each in found.neighbours if each.plan is not None]
    assert others
    for other in others:
        assert other.predicted is not None
        assert other.layout.tp == 2
        assert other.predicted.peak_bytes <= 0.8 * free.predicted.peak_bytes
    wish = next(each for each in found.changes if each.kind == "wish")
    without = best(asked(), memory_limit=tight)
    assert wish.saved == pytest.approx(1 - seconds(without) / seconds(plan), abs=2e-6)


def test_a_plan_that_somebody_wrote_is_told_the_better_one() -> None:
    written = told_layout.plan_of_layout(asked(), "pp=4 micro_batch=1")
    found = planning.explain(written)
    assert found.better is not None
    assert seconds(found.better) == pytest.approx(seconds(best(asked())), rel=1e-9)
    assert "It is not the best" in "\n".join(found.why)


def test_changes_are_what_a_search_of_the_changed_question_finds() -> None:
    free = best(asked())
    assert free.predicted is not None
    memory = f"{0.8 * free.predicted.peak_bytes:.0f}B"
    plan = best(asked(memory=memory))
    found = planning.explain(plan)
    now = seconds(plan)
    twice = {
        "Twice the bandwidth of slow": seconds(best(asked(memory=memory, faster=2.0))),
        "Half the bandwidth of slow": seconds(best(asked(memory=memory, faster=0.5))),
        "Twice the batch": seconds(best(asked(memory=memory, batch=64))) / 2,
        "Half the batch": seconds(best(asked(memory=memory, batch=16))) * 2,
    }
    said = {each.what: each for each in found.changes}
    for what, step in twice.items():
        assert said[what].saved == pytest.approx(1 - step / now, abs=1e-4), what
    assert plan.asked is not None
    more = f"{plan.asked.limit_bytes + 4 * 2**30:.0f}B"
    wide = seconds(best(asked(memory="200GiB"), memory_limit=more))
    price = next(each for each in found.changes if each.what.endswith("more memory per device"))
    assert price.saved == pytest.approx(1 - wide / now, abs=1e-4)
    assert price.saved is not None
    assert price.saved > 0
    assert any("memory limit" in each for each in found.binding)


def test_an_explanation_is_json() -> None:
    found = planning.explain(best(asked()))
    assert isinstance(found, Explanation)
    value = found.json()
    assert value["schema"] == "explanation/1"
    assert {each["axis"] for each in value["neighbours"]} >= {"tp", "dp"}
    assert {each["kind"] for each in value["changes"]} == {"memory", "network", "batch"}
