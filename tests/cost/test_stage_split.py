"""Laws of the usual stage splits."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from planner.cost.stage_split import usual_counts
from planner.graph.counts import layer_parameters
from planner.spec.layout import even_counts
from planner.spec.model import ModelSpec
from tests.examples import llama_like, plain_runtime

depths = st.tuples(st.integers(1, 40), st.integers(1, 40)).filter(lambda d: d[1] <= d[0])
vocabularies = st.sampled_from([2, 96, 1000, 5000, 50_000])
COST = plain_runtime(stage_split="cost")


def model(layers: int, vocab: int) -> ModelSpec:
    return llama_like(layers=layers, vocab=vocab)


@given(depths, vocabularies, st.sampled_from(["even", "cost"]))
def test_every_layer_is_placed_once(depth: tuple[int, int], vocab: int, rule: str) -> None:
    layers, pp = depth
    counts = usual_counts(model(layers, vocab), plain_runtime(stage_split=rule), pp)
    assert len(counts) == pp
    assert sum(counts) == layers
    assert min(counts) >= 0


@given(depths, vocabularies)
def test_even_is_even(depth: tuple[int, int], vocab: int) -> None:
    layers, pp = depth
    assert usual_counts(model(layers, vocab), plain_runtime(), pp) == even_counts(layers, pp)


@given(depths, vocabularies)
def test_each_layer_lies_where_the_sum_before_it_falls(depth: tuple[int, int], vocab: int) -> None:
    """Stage k of p ends at (k+1)/p of the whole cost; the layer that crosses stays before."""
    layers, pp = depth
    asked = model(layers, vocab)
    costs = [layer_parameters(asked, *kind) for kind in asked.order]
    whole = sum(costs) + asked.hidden * vocab
    counts = usual_counts(asked, COST, pp)
    owners = [stage for stage, count in enumerate(counts) for _ in range(count)]
    before = [0, *itertools.accumulate(costs)][:-1]
    for owner, start in zip(owners, before, strict=True):
        assert start * pp >= whole * owner
        assert owner == pp - 1 or start * pp < whole * (owner + 1)


@given(depths)
def test_a_head_that_costs_nothing_leaves_stages_alike_to_one_layer(
    depth: tuple[int, int],
) -> None:
    """After stage k at least (k+1)/p of the layers are placed, and less than two more."""
    layers, pp = depth
    placed = itertools.accumulate(usual_counts(model(layers, 2), COST, pp))
    for stage, count in enumerate(placed):
        assert layers * (stage + 1) <= count * pp < layers * (stage + 1) + 2 * pp


@given(depths, vocabularies, vocabularies)
def test_a_larger_head_takes_layers_from_the_last_stage(
    depth: tuple[int, int], one: int, other: int
) -> None:
    layers, pp = depth
    small, large = (usual_counts(model(layers, v), COST, pp) for v in sorted((one, other)))
    assert large[-1] <= small[-1]


def test_the_ultra_scale_split_by_hand() -> None:
    """4 layers' worth of head behind 12 layers on 4 stages: 4, 4, 4 and the head alone."""
    asked = model(12, 2)
    layer = layer_parameters(asked, *asked.order[0])
    wide_head = asked.replace(head=asked.head.replace(classes=layer * 4 // asked.hidden))
    assert usual_counts(wide_head, COST, 4) == (4, 4, 4, 0)


@given(depths, st.integers(1, 3))
def test_layers_for_further_tokens_leave_room_on_the_last_stage(
    depth: tuple[int, int], further: int
) -> None:
    layers, pp = depth
    plain = model(layers, 96)
    asked = plain.replace(head=plain.head.replace(mtp_layers=further))
    counts = usual_counts(asked, plain_runtime(), pp)
    assert (len(counts), sum(counts)) == (pp, layers)
    assert pp == 1 or counts[-1] == max(0, (layers + further + 1) // pp - further - 1)


def test_deepseek_is_cut_as_its_recipe_cuts_it() -> None:
    plain = model(61, 96)
    asked = plain.replace(head=plain.head.replace(mtp_layers=1))
    assert usual_counts(asked, plain_runtime(), 16) == (4,) * 15 + (1,)
    assert usual_counts(asked, plain_runtime(), 8) == (8,) * 7 + (5,)
