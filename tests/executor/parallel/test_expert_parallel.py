"""Experts divided over ranks, with every other axis: the training of a single process."""

from typing import Any

import pytest
import torch

from executor import refusals
from executor.parallel.mesh import close_mesh, make_mesh
from executor.transformer.experts import Experts
from planner.spec.documents import InputError
from planner.spec.layout import Layout
from tests.executor.kinds import EXPERTS, MIXTURES
from tests.executor.plans import ALL, make_plan
from tests.executor.pool import TIMEOUT, Pool
from tests.executor.test_equality import name_of
from tests.executor.test_kinds import compare

CASES = [
    ("mixtral", {"dp": 4, "ep": 2, "zero": 1, "recompute": "full"}),
    ("mixtral", {"tp": 2, "dp": 2, "ep": 2, "etp": 2, "recompute": "selective"}),
    ("qwen-moe", {"tp": 2, "dp": 2, "pp": 2, "ep": 2, "zero": 1}),
    ("qwen-moe", {"tp": 2, "cp": 2, "dp": 2, "ep": 4, "etp": 2, "zero": 3}),
    ("moe-biases", {"tp": 2, "dp": 2, "ep": 4, "zero": 2}),
]


@pytest.mark.parametrize(
    ("name", "layout"),
    [pytest.param(*case, id=f"{case[0]}-{name_of(case[1])}") for case in CASES],
)
def test_divided_experts_equal_single_process(
    pool: Pool, name: str, layout: dict[str, Any]
) -> None:
    compare(pool, name, layout)


MESHES: list[dict[str, Any]] = [
    {"tp": 2},
    {"pp": 2, "vpp": 2, "dp": 2, "ep": 2, "schedule": "interleaved"},
    {"dp": 4, "ep": 4},
    {"dp": 8, "ep": 2},
    {"dp": 4, "ep": 2, "etp": 2},
    {"tp": 2, "dp": 2, "ep": 4},
    {"tp": 4, "ep": 4},
    {"tp": 2, "pp": 2, "dp": 2, "etp": 2, "axis_order": "dp-cp-tp-ep-pp"},
    {"cp": 2, "dp": 2, "ep": 4},
    {"cp": 2, "tp": 2, "dp": 2},
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixtral", "qwen-moe"])
@pytest.mark.parametrize("mesh", MESHES, ids=name_of)
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_every_mesh(pool: Pool, name: str, mesh: dict[str, Any], zero: int, recompute: str) -> None:
    compare(pool, name, mesh | {"zero": zero, "recompute": recompute})


def groups(rank: int, layout: Layout) -> Any:
    mesh = make_mesh(layout, rank, "gloo", TIMEOUT, experts=True)
    assert mesh is not None
    found = {}
    for name in ("ep", "etp", "experts"):
        peers = getattr(mesh, name)
        total = torch.tensor([1 << rank])
        if peers.group is not None:
            torch.distributed.all_reduce(total, group=peers.group)
        found[name] = (peers.rank, peers.size, int(total))
    close_mesh(mesh)
    return found


def test_groups_lie_side_by_side(pool: Pool) -> None:
    """tp=2 dp=4: experts of 2 x 2 ranks, twice."""
    found = pool.run(groups, Layout(tp=2, dp=4, ep=2, etp=2))
    for rank, each in enumerate(found):
        first = rank - rank % 4
        assert each["etp"] == (rank % 2, 2, 0b11 << rank - rank % 2)
        assert each["ep"] == (rank % 4 // 2, 2, 0b101 << first + rank % 2)
        assert each["experts"] == (rank // 4, 2, 0b10001 << rank % 4)


def test_every_token_reaches_its_experts() -> None:
    """Against every expert on every token, weighted by the k largest probabilities."""
    generator = torch.Generator().manual_seed(0)
    model = Experts(EXPERTS, 16).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator).double())
    x = torch.randn(3, 5, 16, generator=generator, dtype=torch.float64)
    scores = model.router(x).softmax(-1)
    weights = scores * (scores >= scores.topk(2).values[..., -1:])
    weights = weights / weights.sum(-1, keepdim=True)
    expected = torch.zeros_like(x)
    for expert in range(4):
        counts = [0] * 4
        counts[expert] = 15
        said = model.experts(x.flatten(0, 1), counts).view_as(x)
        expected += weights[..., expert, None] * said
    assert torch.allclose(model(x), expected, rtol=1e-12)


def test_a_rehearsal_routes_evenly() -> None:
    model = Experts(EXPERTS, 16)
    torch.nn.init.constant_(model.router.weight, 1.0)
    asked: list[Any] = []
    model.even = True
    model.answers = lambda rows, counts: asked.append(counts) or rows
    model(torch.ones(2, 4, 16))
    assert asked == [[4, 4, 4, 4]]


@pytest.mark.parametrize(
    ("name", "layout", "message"),
    [
        ("llama", {"dp": 2, "ep": 2}, "ep=2 etp=1 divide experts, and small-llama has none"),
        ("mixtral", {"dp": 2, "ep": 4}, r"ep\*etp=4 does not divide tp\*cp\*dp=2"),
        ("mixtral", {"dp": 8, "ep": 8}, "ep does not divide experts=4"),
        ("mixtral", {"dp": 2, "sync": "parameter_server"}, "sync=parameter_server with experts"),
        ("moe-biases", {"dp": 2, "etp": 2}, "experts with biases are not divided by columns"),
    ],
)
def test_refused_by_name(name: str, layout: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        refusals.check(make_plan(name, **layout))


def test_mixtures_are_what_they_say() -> None:
    assert all(
        isinstance(ALL[name].main.kinds[-1].feed_forward, type(EXPERTS)) for name in MIXTURES
    )
