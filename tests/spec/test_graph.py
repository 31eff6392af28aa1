"""GraphDocument: what is stored twice must agree, and names and edges must be whole."""

import pytest

from planner.spec.documents import InputError, parse
from planner.spec.graph import (
    GraphDocument,
    GraphLayer,
    GraphOperator,
    Totals,
    joined,
    within,
)


def op(name: str, **facts) -> GraphOperator:
    return GraphOperator(name=name, kind="linear", forward_flops=6, parameters=3, **facts)


def document(**changes):
    inner = (op("a:0"), op(":0"))
    layer = GraphLayer(
        container="layers.*",
        structure="0" * 16,
        prefixes=("layers.0", "layers.1"),
        operators=inner,
        edges=((0, 1),),
        totals=Totals.of(inner),
    )
    made = GraphDocument(
        name="two layers",
        totals=Totals.of([op("x")] * 5, parameters=7),
        unused_parameters=7,
        operators=(op("head:0"),),
        layers=(layer,),
        edges=((2, 3), (4, 0)),
    )
    return made.model_dump(mode="json") | changes


def test_layers_are_unfolded_by_prefix():
    graph = parse(GraphDocument, document(), "graph.json")
    names = [operator.name for operator in graph.flat_operators()]
    assert names == ["head:0", "layers.0.a:0", "layers.0:0", "layers.1.a:0", "layers.1:0"]
    assert graph.flat_edges() == ((1, 2), (2, 3), (3, 4), (4, 0))
    assert graph.totals.forward_flops == 30
    assert graph.totals.parameters == 5 * 3 + 7


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"edges": [[0, 5]]}, ["edges", "[0, 5]", "5 there are"]),
        ({"unused_parameters": 0}, ["parameters", "22 given", "sum to 15"]),
        ({"operators": []}, ["totals"]),
        ({"schema": "graph/2"}, ["graph/2", "graph/1"]),
    ],
)
def test_what_does_not_agree_is_refused(changes, words):
    if changes.get("operators") == []:
        changes = changes | {"edges": []}
    with pytest.raises(InputError) as caught:
        parse(GraphDocument, document(**changes), "graph.json")
    for word in ["graph.json", *words]:
        assert word in str(caught.value)


def test_two_operators_of_one_name_are_refused():
    twice = [op("head:0").model_dump(mode="json")] * 2
    totals = Totals.of([op("x")] * 6, parameters=7).model_dump()
    with pytest.raises(InputError, match="same name"):
        parse(GraphDocument, document(operators=twice, totals=totals, edges=[]), "graph.json")


def test_the_edges_and_totals_of_a_layer_must_agree():
    data = document()
    layer = data["layers"][0]
    for changes, word in (({"edges": [[0, 2]]}, "edges"), ({"operators": []}, "edges")):
        with pytest.raises(InputError, match=word):
            parse(GraphDocument, data | {"layers": [layer | changes]}, "graph.json")


@pytest.mark.parametrize("name", ["a:0", ":0", "a.b:3", ""])
def test_relative_names_are_undone(name):
    assert within("layers.3", joined("layers.3", name)) == name
