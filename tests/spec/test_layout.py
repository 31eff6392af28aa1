"""Layout: where ranks sit, who shares a group, and how a layout is written."""

import itertools

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec.documents import InputError
from planner.spec.layout import Layout, even_counts, make_stages

degree = st.integers(1, 4)
orders = st.permutations(["tp", "cp", "ep", "dp", "pp"]).map(tuple)
layouts = st.builds(
    Layout,
    dp=degree,
    tp=degree,
    pp=degree,
    cp=degree,
    micro_batch=degree,
    zero=st.integers(0, 3),
    recompute=st.sampled_from(["none", "selective", "full"]),
    axis_order=orders,
)
AXES = ("tp", "cp", "dp", "pp")


@given(layouts)
def test_coordinates_and_rank_of_are_inverse(layout):
    places = [layout.coordinates(rank) for rank in range(layout.devices)]
    assert [layout.rank_of(**place) for place in places] == list(range(layout.devices))
    sizes = dict(layout.axis_sizes())
    assert all(0 <= place[axis] < sizes[axis] for place in places for axis in AXES)


@given(layouts, st.sampled_from(AXES))
def test_groups_partition_the_ranks(layout, axis):
    groups = {layout.group(rank, axis) for rank in range(layout.devices)}
    assert sorted(rank for group in groups for rank in group) == list(range(layout.devices))
    assert {len(group) for group in groups} == {dict(layout.axis_sizes())[axis]}


@given(layouts, st.sampled_from(AXES))
def test_a_group_differs_only_on_its_axis_in_axis_order(layout, axis):
    for rank in range(layout.devices):
        members = [layout.coordinates(member) for member in layout.group(rank, axis)]
        assert [place.pop(axis) for place in members] == list(range(len(members)))
        assert all(place == members[0] for place in members)


@given(layouts, st.sampled_from(AXES))
def test_neighbours_on_an_axis_are_its_stride_apart(layout, axis):
    group = layout.group(layout.devices - 1, axis)
    steps = {after - before for before, after in itertools.pairwise(group)}
    assert steps <= {layout.stride(axis)}


def test_the_first_axis_is_innermost():
    layout = Layout(dp=2, tp=2, pp=2)
    assert layout.group(0, "tp") == (0, 1)
    assert layout.group(0, "dp") == (0, 2)
    assert layout.group(0, "pp") == (0, 4)
    other = Layout(dp=2, tp=2, pp=2, axis_order=("pp", "cp", "ep", "dp", "tp"))
    assert other.group(0, "pp") == (0, 1)
    assert other.group(0, "tp") == (0, 4)


def test_ep_lives_inside_dp():
    layout = Layout(dp=4, ep=2, tp=2)
    assert layout.devices == 8
    assert "ep" not in dict(layout.axis_sizes())
    with pytest.raises(KeyError):
        layout.stride("ep")


@given(layouts, st.integers(1, 50))
def test_microbatches_times_their_size_is_the_batch(layout, microbatches):
    batch = microbatches * layout.dp * layout.micro_batch
    assert layout.microbatches(batch) == microbatches


def test_a_batch_that_does_not_divide_is_refused_with_the_numbers():
    with pytest.raises(InputError, match=r"global_batch=10 .* dp\*micro_batch=4\*1=4"):
        Layout(dp=4).microbatches(10)


@given(layouts.filter(lambda layout: layout.pp > 1), st.sampled_from(["gpipe", "1f1b"]))
def test_parse_reads_what_str_writes(layout, schedule):
    layout = layout.replace(schedule=schedule, axis_order=Layout().axis_order)
    assert Layout.parse(str(layout)) == (layout, None)


def test_parse_reads_stages_and_dashes():
    layout, stages = Layout.parse("dp=2 tp=4 micro-batch=3 zero=1 stages=5,5,6")
    assert layout == Layout(dp=2, tp=4, micro_batch=3, zero=1)
    assert stages == (5, 5, 6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dp", r"'dp' is not key=value"),
        ("dq=2", r"dq: unknown key; known keys: dp, tp, pp"),
        ("micro-bach=2", r"micro_bach: unknown key; did you mean 'micro_batch'"),
        ("dp=0", r"dp: '?0'?: input should be greater than or equal to 1"),
        ("dp=two", r"dp: 'two'"),
        ("zero=4", r"zero: .* less than or equal to 3"),
        ("recompute=some", r"recompute: 'some'"),
        ("stages=5;5", r"stages='5;5'; write layers per stage"),
    ],
)
def test_parse_refuses_with_the_key(text, said):
    with pytest.raises(InputError, match=said):
        Layout.parse(text)


@given(st.integers(0, 200), st.integers(1, 32))
def test_even_counts_are_even_and_complete(layers, pp):
    counts = even_counts(layers, pp)
    assert len(counts) == pp
    assert sum(counts) == layers
    assert max(counts) - min(counts) <= 1


def test_the_ends_of_the_pipeline_get_the_remainder_last():
    assert even_counts(10, 4) == (2, 3, 3, 2)
    assert even_counts(11, 4) == (3, 3, 3, 2)


@given(layouts, st.lists(st.integers(0, 5), min_size=1, max_size=6).map(tuple))
def test_make_stages_holds_consecutive_layers_with_the_layouts_choices(layout, counts):
    stages = make_stages(layout, counts)
    assert tuple(len(stage.layers) for stage in stages) == counts
    assert [s.first_layer for s in stages] == [sum(counts[:i]) for i in range(len(counts))]
    assert {choice.recompute for s in stages for choice in s.layers} <= {layout.recompute}
    assert {(s.dp, s.tp, s.cp) for s in stages} == {(layout.dp, layout.tp, layout.cp)}


@pytest.mark.parametrize("order", [("tp", "dp"), ("tp", "tp", "cp", "ep", "dp", "pp")])
def test_an_axis_order_names_every_axis_once(order):
    with pytest.raises(pydantic.ValidationError):
        Layout(dp=2, tp=2, pp=2, axis_order=order)
