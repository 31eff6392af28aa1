"""Distinct rows: as numpy finds them, however wide the columns are."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.cost.distinct import distinct_rows

values = st.sampled_from([-3, 0, 1, 2, 7, 2**31, 2**40])
tables = st.integers(1, 5).flatmap(
    lambda width: st.lists(
        st.lists(values, min_size=width, max_size=width), min_size=1, max_size=12
    )
)


@given(tables)
@settings(max_examples=100, deadline=None)
def test_rows_are_those_of_numpy(rows: list[list[int]]) -> None:
    table = np.array(rows, dtype=np.int64)
    distinct, index = distinct_rows(table)
    wanted, places = np.unique(table, axis=0, return_inverse=True)
    assert (distinct == wanted).all()
    assert (index == places.reshape(-1)).all()


def test_a_table_without_rows_has_none() -> None:
    distinct, index = distinct_rows(np.zeros((0, 3), dtype=np.int64))
    assert distinct.shape == (0, 3)
    assert index.shape == (0,)
