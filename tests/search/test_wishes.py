"""What a user fixes, forbids and allows is kept, and said back where it cannot be read."""

import re

import pytest

from planner.search import planning, told_layout
from planner.search.optimum import rank
from planner.search.ranking import NoPlanError
from planner.search.wishes import Wishes
from planner.spec.documents import InputError
from planner.spec.workload import Workload
from tests.examples import blocks, cpu_cluster, gpu_cluster, llama_like, plain_runtime

ROOMY = llama_like(layers=4)


def best(**wishes: object):  # type: ignore[no-untyped-def]
    return rank(blocks(ROOMY), wishes=Wishes.of(**wishes)).plans[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fix", "key", "value"),
    [
        ("tp=2", "tp", 2),
        ("pp=4", "pp", 4),
        ("micro-batch=2", "micro_batch", 2),
        ("zero=1", "zero", 1),
        ("schedule=gpipe", "schedule", "gpipe"),
        ("recompute=full", "recompute", "full"),
    ],
)
def test_a_fixed_choice_is_in_the_plan(fix: str, key: str, value: object) -> None:
    more = ("pp=2",) if key == "schedule" else ()
    assert getattr(best(fix=(fix, *more)).layout, key) == value


def test_a_forbidden_choice_is_in_no_plan() -> None:
    free = best()
    other = best(forbid=(f"dp={free.layout.dp}",))
    assert other.layout.dp != free.layout.dp
    assert other.predicted.step_seconds >= free.predicted.step_seconds * (1 - 1e-12)


def test_a_forbidden_way_to_recompute_does_not_hide_slower_plans() -> None:
    """The bound that drops hopeless choices must not come from a plan that is not allowed."""
    assert best(forbid=("recompute=none",)).layout.recompute == "full"


def test_memory_wishes_bound_every_plan_and_its_neighbours() -> None:
    asked = blocks(ROOMY)
    free = rank(asked).plans[0].predicted
    assert free is not None
    limit = f"{free.peak_bytes * 0.999}B"
    ranked, plans = planning.choose(asked, wishes=Wishes.of(memory_limit=limit))
    assert ranked.space is not None
    for plan in plans:
        assert plan.predicted is not None
        assert plan.predicted.peak_bytes <= ranked.space.limit_bytes
    for line in plans[0].why:
        if found := re.match(r"(.*) takes .*[+-][\d.]+%", line):
            neighbour = told_layout.plan_of_layout(asked, found[1]).predicted
            assert neighbour is not None
            assert neighbour.peak_bytes <= ranked.space.limit_bytes * (1 + 1e-9)


def test_headroom_is_a_share_or_bytes() -> None:
    assert Wishes(memory_headroom="10%").memory_bytes(100.0) == 90.0
    assert Wishes(memory_headroom="30B").memory_bytes(100.0) == 70.0
    assert Wishes(memory_limit="50B", memory_headroom="50%").memory_bytes(100.0) == 25.0


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"fix": ("tp",)}, "write key=value"),
        ({"fix": ("heads=8",)}, "key of dp, tp"),
        ({"forbid": ("tp=two",)}, "--forbid: tp='two' is not a whole number"),
        ({"fix": ("schedule=foo",)}, "choose gpipe, 1f1b, interleaved"),
        ({"fix": ("schedule=zbv",)}, "not offered by runtime 'plain'; choose gpipe, 1f1b"),
        ({"forbid": ("recompute=some",)}, "choose none, selective, full"),
        ({"fix": ("recompute=selective",)}, "choose none, full"),
        ({"fix": ("cp_style=tree",)}, "choose ring, all_to_all, all_gather"),
        ({"fix": ("sync=gossip",)}, "choose all_reduce, parameter_server"),
        ({"fix": ("zero=4",)}, "choose 0, 1, 2, 3"),
        ({"fix": ("zero=3",)}, "choose 0, 1"),
        ({"fix": ("tp=0",)}, "at least 1"),
        ({"fix": ("cp=2",)}, "choose 1"),
        ({"fix": ("vpp=2",)}, "choose 1"),
        ({"fix": ("axis_order=tp-pp",)}, "must name each of tp, cp"),
        ({"fix": ("axis_order=pp-tp-cp-ep-dp",)}, "choose tp-cp-ep-dp-pp"),
        ({"memory_limit": "1PiB"}, "more than the device's"),
        ({"memory_limit": "much"}, "--memory-limit"),
        ({"memory_headroom": "ten%"}, "write 10% or 8GiB"),
        ({"memory_limit": "-1GB"}, "must be more than 0"),
        ({"memory_headroom": "100%"}, "must be at least 0 and leave some of"),
        ({"memory_headroom": "-1%"}, "must be at least 0 and leave some of"),
        ({"memory_headroom": "nan%"}, "must be at least 0 and leave some of"),
    ],
)
def test_a_wish_that_cannot_be_read_is_explained(wishes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        best(**wishes)


def test_shared_cores_have_no_wishes() -> None:
    work = Workload(seq_len=32, global_batch=8, dtype="fp32")
    asked = blocks(cluster=cpu_cluster(4), workload=work)
    with pytest.raises(InputError, match="leave them out for local"):
        rank(asked, wishes=Wishes.of(fix=("tp=2",)))


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("pp=2 zero=3", "zero=3 is not offered by runtime 'plain' under a pipeline"),
        ("pp=2 vpp=2 schedule=zbv zero=2", "which splits the backward"),
        ("cp=2 cp_style=all_gather", "cp_style=all_gather is not offered"),
        ("dp=4 shard=3", "shard=3 does not divide"),
        ("dp=4 sync=parameter_server", "sync=parameter_server is not offered"),
        ("pp=2 vpp=4 schedule=zbv", "two chunks per rank"),
        ("recompute=full recomputed=9", "at most the layers of its stage"),
        ("recomputed=1", "needs recompute=full"),
    ],
)
def test_what_a_runtime_cannot_do_is_refused_by_name(layout: str, message: str) -> None:
    runtime = plain_runtime(
        axes=("tp", "cp", "dp", "pp"),
        context_styles=("ring",),
        schedules=("gpipe", "1f1b", "zbv"),
        zero_stages=(0, 1, 2, 3),
        pipeline_zero_stages=(0, 1, 2),
        chunks=4,
        hybrid_sharding=True,
    )
    with pytest.raises(InputError, match=re.escape(message)):
        told_layout.plan_of_layout(blocks(ROOMY, gpu_cluster(), runtime=runtime), layout)


def test_a_wish_that_no_choice_keeps_is_named() -> None:
    asked = blocks(llama_like(layers=4), gpu_cluster(nodes=1))
    with pytest.raises(NoPlanError, match=r"no choice keeps --fix tp=3\. .* no --fix tp=3"):
        planning.choose(asked, wishes=Wishes.of(fix=["tp=3"]))
