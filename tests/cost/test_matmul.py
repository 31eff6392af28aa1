"""Laws of what a shape leaves of the peak: tiles, waves, depth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.cost import matmul
from planner.cost.matmul import DEPTH, TILES, share_of_peak

sizes = st.integers(1, 20_000)
cores = st.integers(1, 160)


@given(sizes, sizes, sizes, cores)
def test_a_share_is_a_share(m: int, n: int, k: int, p: int) -> None:
    assert 0 < share_of_peak(m, n, k, p) < 1


@given(sizes, sizes, sizes, cores)
def test_rows_and_columns_are_alike(m: int, n: int, k: int, p: int) -> None:
    assert share_of_peak(m, n, k, p) == pytest.approx(share_of_peak(n, m, k, p))
    assert sorted(TILES) == sorted((columns, rows, rate) for rows, columns, rate in TILES)


@given(st.integers(1, 20), cores, st.integers(1, 10_000))
def test_full_waves_reach_the_rate_and_the_depth(waves: int, p: int, k: int) -> None:
    """waves * p large tiles in a row: nothing is lost but the filling of the pipeline."""
    assert share_of_peak(256, 128 * waves * p, k, p) == pytest.approx(k / (k + DEPTH))


@given(sizes, sizes, sizes, sizes, cores)
def test_a_deeper_product_loses_less(m: int, n: int, k: int, more: int, p: int) -> None:
    assert share_of_peak(m, n, k + more, p) > share_of_peak(m, n, k, p)


def seconds(m: int, n: int, k: int, p: int) -> float:
    """In units of what one multiplication takes at the best rate."""
    return m * n * k / share_of_peak(m, n, k, p)


@given(sizes, sizes, sizes, st.integers(1, 500), cores)
def test_a_larger_product_is_never_faster(m: int, n: int, k: int, more: int, p: int) -> None:
    before = seconds(m, n, k, p)
    for larger in ((m + more, n, k), (m, n + more, k), (m, n, k + more)):
        assert seconds(*larger, p) >= before * (1 - 1e-12)


@given(sizes, sizes, sizes, st.integers(1, 80), st.integers(2, 4))
def test_more_multiprocessors_of_the_same_peak_in_all_quantise_more(
    m: int, n: int, k: int, p: int, times: int
) -> None:
    """Only multiples compare: waves of times * p tiles are waves of p tiles too."""
    assert share_of_peak(m, n, k, times * p) <= share_of_peak(m, n, k, p) * (1 + 1e-12)


def test_one_tile_more_than_the_multiprocessors_takes_a_second_wave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NVIDIA's guide: with one kernel, 109 tiles on the 108 multiprocessors of an A100 take twice
    as long as 108; among kernels of all tile sizes a smaller tile wins part of that back."""
    among = seconds(256, 128 * 109, 4096, 108) / seconds(256, 128 * 108, 4096, 108)
    monkeypatch.setattr(matmul, "TILES", ((256, 128, 1.0),))
    matmul.filled_share.cache_clear()
    alone = seconds(256, 128 * 109, 4096, 108) / seconds(256, 128 * 108, 4096, 108)
    matmul.filled_share.cache_clear()
    assert alone == pytest.approx(2.0)
    assert 1.2 < among < 2.0


@given(st.integers(1, 6), cores)
def test_the_share_drops_behind_a_full_wave_and_climbs_to_the_next(waves: int, p: int) -> None:
    """A saw-tooth over the columns: full waves are the teeth's tips."""
    tip, behind = (share_of_peak(256, 128 * waves * p + extra, 4096, p) for extra in (0, 1))
    assert behind < tip
    middle = share_of_peak(256, 128 * waves * p + 64 * p, 4096, p)
    assert middle <= share_of_peak(256, 128 * (waves + 1) * p, 4096, p)
