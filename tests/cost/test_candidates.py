"""Tables of candidates: rows, chosen rows, plans as rows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from planner.cost.candidates import Candidates
from planner.spec.layout import Layout, make_stages
from tests.cost.drawn import tables
from tests.examples import llama_like


@given(tables(llama_like(layers=8)), st.data())
def test_chosen_rows_are_those_rows(table: Candidates, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(table) - 1), min_size=1, max_size=5))
    chosen = table.take(np.array(rows))
    assert len(chosen) == len(rows)
    for place, row in enumerate(rows):
        assert chosen.layout(place) == table.layout(row)
        assert chosen.layer_counts(place) == table.layer_counts(row)
        assert chosen.microbatches[place] == table.microbatches[row]


@given(tables(llama_like(layers=8)))
def test_a_row_keeps_every_degree(table: Candidates) -> None:
    for row in range(len(table)):
        layout = table.layout(row).replace(vpp=1)
        counts = table.layer_counts(row)
        batch = layout.dp * layout.micro_batch * int(table.microbatches[row])
        again = Candidates.of_plan(layout, make_stages(layout, counts), batch)
        assert again.layout(0) == layout
        assert again.layer_counts(0) == counts
        assert again.microbatches[0] == table.microbatches[row]
        assert np.array_equal(again.recomputed[0], table.recomputed[row])


def test_chunks_of_a_rank_are_every_pp_th_stage() -> None:
    layout = Layout(pp=2, vpp=2, recompute="full")
    table = Candidates.of_plan(layout, make_stages(layout, (3, 1, 2, 2)), 4)
    assert table.counts.tolist() == table.recomputed.tolist() == [[5, 3]]
    assert table.layout(0) == layout
