"""The designed grid: log-spaced, off-tile, every prefix covering; the agenda keeps its time."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.spec.documents import InputError
from profiler import agenda, design, kinds
from profiler.design import LIMITS, Limits
from profiler.products import MATMULS


@given(st.integers(3, 8), st.integers(1, 6), st.sampled_from([8, 16]))
def test_sizes_are_log_spaced_and_every_second_fills_no_tile(
    low: int, more: int, alignment: int
) -> None:
    least = max(1 << low, alignment)
    sizes = design.log_sizes(least, least << more, alignment)
    assert sizes[0] == least
    assert sizes[-1] == least << more
    assert all(1 < b / a <= 2.5 for a, b in itertools.pairwise(sizes))
    off = [size for size in sizes if size & (size - 1)]
    assert all(size % alignment == 0 and size % (2 * alignment) for size in off)
    assert len(off) >= len(sizes) // 2 - 1


@given(st.lists(st.integers(), max_size=40, unique=True))
def test_coarse_to_fine_keeps_every_value_and_halves_gaps(values: list[int]) -> None:
    ordered = design.coarse_to_fine(sorted(values))
    assert sorted(ordered) == sorted(values)
    place = {value: index for index, value in enumerate(sorted(values))}
    for count in range(2, len(values) + 1):
        known = sorted(place[value] for value in ordered[:count])
        assert (known[0], known[-1]) == (0, len(values) - 1)
        gaps = [b - a for a, b in itertools.pairwise(known)]
        # bisection: the widest gap is at most about twice the even one
        assert max(gaps) <= 2 * math.ceil((len(values) - 1) / (count - 1))


@pytest.fixture(scope="module", params=list(LIMITS))
def limits(request: pytest.FixtureRequest) -> Limits:
    return LIMITS[request.param]


def test_every_prefix_covers_within_twice_the_best_radius(limits: Limits) -> None:
    """Points of a prefix are at least as far apart as the uncovered are from them."""
    points = design.product_points(limits)
    logs = np.log2(np.array(points))
    apart = np.linalg.norm(logs[:, None] - logs[None], axis=2)
    radii = [apart[j, :j].min() for j in range(1, len(points))]
    assert len(set(points)) == limits.points
    assert all(b <= a + 1e-9 for a, b in itertools.pairwise(radii))
    for j in range(2, len(points)):
        among = apart[:j, :j][np.triu_indices(j, 1)].min()
        assert among >= radii[j - 1] - 1e-9


def test_products_are_bounded_and_spread_over_five_decades_of_work(limits: Limits) -> None:
    points = design.product_points(limits)
    work = [2.0 * math.prod(point) for point in points]
    assert max(work) <= limits.flops
    assert max(work) / min(work) > 1e3
    for axis in range(3):
        assert {point[axis] for point in points} >= set(limits.products)
        assert any(point[axis] % 64 for point in points)


def test_layouts_take_turns_and_all_points_have_all(limits: Limits) -> None:
    found = design.products(limits, "bf16")
    assert len({request.key for request in found}) == len(found) == 3 * limits.points
    assert {request.kind for request in found[:3]} == set(MATMULS)
    eighths = design.products(limits, "fp8")
    assert {request.kind for request in eighths} == {"matmul_nt"}
    assert all(size % 16 == 0 for request in eighths for size in request.dims.values())


@pytest.mark.parametrize("device", LIMITS)
def test_the_grid_asks_for_what_can_be_timed(device: str) -> None:
    families = design.requests(device, "bf16" if device == "cuda" else "fp32", fp8=True)
    flat = [request for family in families for request in family]
    assert len({request.key for request in flat}) == len(flat)
    for request in flat:
        kinds.check(request, device)
    assert {r.kind for r in families[1]} == {"attention", "attention_math"}
    assert any(r.dims["kv_heads"] < r.dims["heads"] for r in families[1])
    assert {r.kind for r in families[2]} >= {"rmsnorm", "gated_silu", "cross_entropy", "adamw"}
    formats = {r.dtype for r in families[3]}
    assert formats == ({"fp8", "fp16", "tf32", "fp32"} if device == "cuda" else {"bf16"})


class Clock:
    """Time that passes only when a case is measured."""

    def __init__(self) -> None:
        self.now = 0.0

    def case(self, name: str, seconds: float, guess: float) -> agenda.Case:
        def measure() -> None:
            self.now += seconds

        return agenda.Case((name,), measure, guess)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.floats(0.01, 3), st.floats(0.5, 2), st.integers(0, 12), st.floats(0.5, 4)),
        min_size=1,
        max_size=4,
    ),
    st.floats(0, 20),
)
def test_an_agenda_keeps_its_time_and_is_fair(
    drawn: list[tuple[float, float, int, float]], budget: float
) -> None:
    clock, said = Clock(), []
    families = [
        agenda.Family([clock.case(f"{f}.{i}", s, s * g) for i in range(n)], share)
        for f, (s, g, n, share) in enumerate(drawn)
    ]
    left_out = agenda.work_off(families, lambda: budget - clock.now, said.append, lambda: clock.now)
    assert len(said) + len(left_out) == sum(n for _, _, n, _ in drawn)
    worst = max(s * max(1.0, 1 / g) - s * g for s, g, _, _ in drawn)
    assert clock.now <= budget + max(0.0, worst) + 1e-9
    for f, (seconds, _, n, _) in enumerate(drawn):
        assert [name for name in left_out if name.startswith(f"{f}.")] == [
            f"{f}.{i}" for i in range(families[f].done, n)
        ]
        assert families[f].spent == pytest.approx(families[f].done * seconds)
    waiting = [f for f in families if f.next_case is not None and f.guess <= budget - clock.now]
    assert waiting == []


def test_families_share_the_time() -> None:
    clock = Clock()
    slow = agenda.Family([clock.case("slow", 1.0, 1.0)] * 50)
    quick = agenda.Family([clock.case("quick", 0.1, 0.1)] * 500, share=3.0)
    agenda.work_off([slow, quick], lambda: 20 - clock.now, lambda _: None, lambda: clock.now)
    assert quick.spent == pytest.approx(3 * slow.spent, rel=0.2)


def test_unknown_products_are_refused() -> None:
    with pytest.raises(InputError, match="matmul_tt"):
        kinds.check(kinds.OperatorRequest("matmul_tt", {"m": 1, "n": 1, "k": 1}, "fp32"))
