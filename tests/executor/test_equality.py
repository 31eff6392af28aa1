"""Every plan trains the same model: loss, gradient norm and weights as in one process, in fp64.

Weights are compared relative to their tensor's largest entry: AdamW divides by the root of the
second moment, so an entry whose gradient is all rounding noise moves by a visible share of
lr * noise / eps; measured against the tensor's scale that stays below 1e-12.
"""

import itertools
from typing import Any

import pytest
import torch

from executor import data
from executor.apply import apply
from executor.parallel.mesh import close_mesh, make_mesh
from executor.recorder import Recorder, make_clock
from executor.runner import Runner
from executor.states.whole import Part, parts, whole
from executor.train import counts_loss
from planner.spec import runnable
from planner.spec.plan import Plan
from tests.executor.plans import GLOBAL_BATCH, LEARNING_RATE, SEED, STEPS, make_plan, reference
from tests.executor.pool import RANKS, TIMEOUT, Pool

TOLERANCE = 1e-12
SPLITS: dict[int, tuple[tuple[int, ...] | None, ...]] = {
    1: (None,),
    2: ((2, 2), (1, 3), (0, 4)),
    3: ((1, 2, 1), (1, 3, 0), (2, 0, 2)),
    4: ((1, 1, 1, 1), (0, 2, 1, 1), (3, 0, 1, 0)),
}
"""Even, uneven, and with a stage that holds no layer."""

FEWEST_MICROBATCHES = {1: 2, 2: 3, 3: 4, 4: 6}
"""By pp: more than stages, so that 1F1B reaches its steady state."""

MESHES = [
    (dp, tp, pp)
    for dp, tp, pp in itertools.product((1, 2, 3, 4, 8), (1, 2, 4), (1, 2, 3, 4))
    if dp * tp * pp <= RANKS
]


def layouts() -> list[dict[str, Any]]:
    """All combinations that fit."""
    found: list[dict[str, Any]] = []
    for dp, tp, pp in MESHES:
        micro_batch = micro_batch_of(GLOBAL_BATCH // dp, FEWEST_MICROBATCHES[pp])
        mesh = {"dp": dp, "tp": tp, "pp": pp, "micro_batch": micro_batch}
        zeros = (0, 1, 2, 3) if dp > 1 else (0,)
        schedules = ("gpipe", "1f1b") if pp > 1 else ("1f1b",)
        for zero, schedule, recompute, counts in itertools.product(
            zeros, schedules, ("none", "selective", "full"), SPLITS[pp]
        ):
            choices = {"zero": zero, "schedule": schedule, "recompute": recompute}
            found.append(mesh | choices | {"counts": counts})
    return found


def micro_batch_of(sequences: int, fewest: int) -> int:
    """The largest micro_batch that leaves at least so many microbatches."""
    return next((n for n in range(sequences // fewest, 0, -1) if sequences % n == 0), 1)


def cases(every: bool) -> list[Any]:
    """Both models with all layouts; or, for every mesh and ZeRO stage up to 1, one of them with one
    layout, chosen in turn so that all schedules, splits and recomputes meet many meshes."""
    found = []
    made = [layout for layout in layouts() if every or layout["zero"] < 2]
    for turn, (offset, name) in enumerate(((0, "gpt2"), (7, "llama"))):
        groups: dict[Any, list[dict[str, Any]]] = {}
        for layout in made:
            groups.setdefault(tuple(layout.values())[:5], []).append(layout)
        for index, group in enumerate(groups.values()):
            chosen = group if every else [group[(offset + index) % len(group)]][index % 2 == turn :]
            found += [pytest.param(name, each, id=f"{name}-{name_of(each)}") for each in chosen]
    return found


def name_of(layout: dict[str, Any]) -> str:
    return "-".join(str(value).replace(" ", "") for value in layout.values())


def train(
    rank: int, plan: Plan, clip_norm: float | None = None
) -> tuple[list[float], list[float], list[Part], bool] | None:
    """Three steps on one rank of the pool."""
    mesh = make_mesh(plan.layout, rank, "gloo", TIMEOUT, bool(runnable.experts(plan.model)))
    if mesh is None:
        return None
    cpu = torch.device("cpu")
    share = apply(plan, mesh, cpu, SEED, LEARNING_RATE, clip_norm)
    runner = Runner(plan, mesh, share, cpu)
    losses, norms = [], []
    for step in range(STEPS):
        batch = data.microbatches(plan, mesh.place, SEED, step, cpu)
        loss, norm = runner.step(batch, Recorder(make_clock(cpu), lambda doing: None))
        losses.append(loss.item())
        norms.append(norm.item())
    close_mesh(mesh)
    return losses, norms, parts(share.updater), counts_loss(plan, mesh)


def check(pool: Pool, name: str, plan: Plan, clip_norm: float | None = None) -> None:
    results = [result for result in pool.run(train, plan, clip_norm) if result is not None]
    assert len(results) == plan.layout.devices
    losses, norms, weights = reference(name, clip_norm)
    for step in range(STEPS):
        loss = sum(result[0][step] for result in results if result[3])
        assert loss == pytest.approx(losses[step], rel=TOLERANCE)
        for result in results:
            assert result[1][step] == pytest.approx(norms[step], rel=TOLERANCE)
    found = whole(part for result in results for part in result[2])
    assert found.keys() == weights.keys()
    for key, value in weights.items():
        assert (found[key] - value).abs().max() <= TOLERANCE * value.abs().max(), key


@pytest.mark.parametrize(("name", "layout"), cases(every=False))
def test_plan_equals_single_process(pool: Pool, name: str, layout: dict[str, Any]) -> None:
    check(pool, name, make_plan(name, **layout))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("layout", [{}, {"tp": 2}, {"pp": 2}, {"dp": 2, "zero": 1}], ids=name_of)
def test_selective_recompute_equals_single_process(
    pool: Pool, name: str, layout: dict[str, Any]
) -> None:
    check(pool, name, make_plan(name, micro_batch=4, recompute="selective", **layout))


CHUNKED = [
    ("gpt2", "interleaved", {"pp": 2, "vpp": 2, "dp": 2, "zero": 1}),
    ("llama", "interleaved", {"pp": 2, "vpp": 3, "tp": 2, "recompute": "full"}),
    ("llama", "looped-bfs", {"pp": 3, "vpp": 2, "recompute": "selective"}),
    ("gpt2", "looped-bfs", {"pp": 2, "vpp": 2, "tp": 2, "dp": 2}),
    ("gpt2", "zb-h1", {"pp": 3, "dp": 2, "zero": 1}),
    ("llama", "zb-h1", {"pp": 2, "tp": 2, "recompute": "full"}),
    ("gpt2", "interleaved-zb", {"pp": 2, "vpp": 2, "tp": 2, "dp": 2, "zero": 1}),
    ("llama", "interleaved-zb", {"pp": 4, "vpp": 2}),
    ("gpt2", "zbv", {"pp": 2, "vpp": 2, "tp": 2, "dp": 2, "zero": 1}),
    ("llama", "zbv", {"pp": 4, "vpp": 2, "recompute": "selective"}),
    ("gpt2", "zbv", {"pp": 1, "vpp": 2, "dp": 2}),
    ("gpt2", "dualpipev", {"pp": 2, "vpp": 2, "dp": 2, "recompute": "full"}),
    ("llama", "dualpipev", {"pp": 3, "vpp": 2, "tp": 2}),
]
"""Chunks, V placements (the tied matrix of gpt2 on one rank) and split backwards."""


@pytest.mark.parametrize(
    ("name", "schedule", "layout"),
    [pytest.param(*case, id=f"{case[0]}-{case[1]}-{name_of(case[2])}") for case in CHUNKED],
)
def test_chunked_and_split_schedules_equal_single_process(
    pool: Pool, name: str, schedule: str, layout: dict[str, Any]
) -> None:
    micro_batch = micro_batch_of(GLOBAL_BATCH // layout.get("dp", 1), 2 * layout["pp"])
    check(pool, name, make_plan(name, schedule=schedule, micro_batch=micro_batch, **layout))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layout"), cases(every=True))
def test_every_combination(pool: Pool, name: str, layout: dict[str, Any]) -> None:
    check(pool, name, make_plan(name, **layout))


SHARDED = [
    ("gpt2", {"dp": 2, "zero": 2}),
    ("llama", {"dp": 3, "zero": 3, "recompute": "full"}),
    ("llama", {"dp": 2, "zero": 2, "tp": 2, "recompute": "selective"}),
    ("gpt2", {"dp": 2, "zero": 3, "tp": 2, "pp": 2, "counts": (1, 3)}),
    ("gpt2", {"dp": 2, "zero": 2, "pp": 3, "counts": (2, 0, 2), "schedule": "gpipe"}),
    ("llama", {"dp": 2, "zero": 3, "pp": 2, "vpp": 2, "schedule": "interleaved"}),
    ("gpt2", {"dp": 4, "zero": 3, "pp": 2, "vpp": 2, "schedule": "looped-bfs"}),
    ("gpt2", {"dp": 2, "zero": 3, "pp": 2, "schedule": "zb-h1"}),
    ("llama", {"dp": 2, "zero": 2, "pp": 2, "vpp": 2, "schedule": "zbv", "recompute": "full"}),
    ("gpt2", {"dp": 2, "zero": 3, "pp": 1, "vpp": 2, "schedule": "zbv"}),
    ("llama", {"dp": 2, "cp": 2, "zero": 3}),
    ("gpt2", {"dp": 4, "zero": 3, "shard": 2, "tp": 2}),
    ("llama", {"dp": 4, "zero": 2, "shard": 2, "pp": 2}),
    ("gpt2", {"dp": 6, "zero": 1, "shard": 3}),
    ("llama", {"dp": 2, "cp": 2, "zero": 3, "shard": 2, "recompute": "full"}),
]
"""ZeRO 2 and 3: a tied matrix on one rank and on two, shards that need padding, empty stages;
hybrid sharding within groups of dp, and where cp and dp meet."""


@pytest.mark.parametrize(("name", "layout"), SHARDED)
def test_sharded_plan_equals_single_process(pool: Pool, name: str, layout: dict[str, Any]) -> None:
    pp = layout.get("pp", 1)
    micro_batch = micro_batch_of(GLOBAL_BATCH // layout["dp"], 2 * pp)
    check(pool, name, make_plan(name, micro_batch=micro_batch, **layout))


SERVED = [
    ("gpt2", {"dp": 2}),
    ("llama", {"dp": 3, "recompute": "full"}),
    ("gpt2", {"dp": 2, "tp": 2, "pp": 2}),
    ("llama", {"dp": 2, "cp": 2}),
    ("gpt2", {"dp": 2, "pp": 2, "vpp": 2, "schedule": "zbv"}),
]
"""Parameter servers."""


@pytest.mark.parametrize(("name", "layout"), SERVED)
def test_served_plan_equals_single_process(pool: Pool, name: str, layout: dict[str, Any]) -> None:
    fewest = 2 * layout.get("pp", 1)
    micro_batch = micro_batch_of(GLOBAL_BATCH // layout["dp"], fewest)
    check(pool, name, make_plan(name, micro_batch=micro_batch, sync="parameter_server", **layout))


CLIPPED = [
    ("gpt2", {"dp": 2, "zero": 1, "pp": 2, "micro_batch": 2}),
    ("llama", {"dp": 2, "tp": 2, "micro_batch": 4}),
    ("llama", {"dp": 2, "tp": 2, "micro_batch": 4, "zero": 3}),
    ("llama", {"dp": 2, "tp": 2, "micro_batch": 4, "sync": "parameter_server"}),
]


@pytest.mark.parametrize(("name", "layout"), CLIPPED)
def test_clipped_plan_equals_single_process(pool: Pool, name: str, layout: dict[str, Any]) -> None:
    """Half of the first norm: every step is clipped, and the norm is told as it was before."""
    most = reference(name)[1][0] / 2
    check(pool, name, make_plan(name, **layout), most)
    assert min(reference(name, most)[1]) > most


SPLIT_BF16 = {"pp": 2, "vpp": 2, "schedule": "zbv"}


@pytest.mark.parametrize(
    "layout",
    [
        {"dp": 2, "zero": 1},
        {"tp": 2, "pp": 2},
        SPLIT_BF16,
        {"dp": 2, "zero": 2},
        {"dp": 2, "zero": 3},
    ],
    ids=name_of,
)
def test_bf16_stays_near_fp64(pool: Pool, layout: dict[str, Any]) -> None:
    """Weights in bf16, gradients and master weights in fp32; 8 bits of mantissa are 4e-3."""
    plan = make_plan("gpt2", dtype="bf16", micro_batch=4, **layout)
    results = [result for result in pool.run(train, plan) if result is not None]
    losses, norms, _ = reference("gpt2")
    assert all(value.dtype == torch.bfloat16 for result in results for _, value in result[2])
    for step in range(STEPS):
        loss = sum(result[0][step] for result in results if result[3])
        assert loss == pytest.approx(losses[step], rel=1e-3)
        assert results[0][1][step] == pytest.approx(norms[step], rel=2e-2)
