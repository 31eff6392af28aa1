"""Pictures: valid, the same every time, nothing on top of anything else, everything said."""

import itertools
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.graph import transformer
from planner.graph.operator import Node
from planner.graph.picture import caption, drawing
from planner.graph.picture.collapse import collapse, leaves, ranges
from planner.graph.picture.placement import scene
from planner.graph.picture.scene import Box, Scene
from planner.graph.structure import outline, parallelism
from planner.graph.view import RankView
from planner.spec import catalog
from tests.graph import shapes
from tests.graph.structure.test_parallelism import encoder_decoder

SVG = "{http://www.w3.org/2000/svg}"
MODELS = [
    "gpt2",
    "llama3.1-8b",
    "mixtral-8x7b",
    "deepseek-v3",
    "gemma3-27b",
    "qwen2-57b-a14b",
    "gpt-neox-20b",
    "bert-base",
    "vit-base",
    "t5-base",
    "bart-large",
    "whisper-large-v3",
]


def model_graph(name: str, **view: int) -> nx.DiGraph:
    model = catalog.find_model(name)
    return transformer.model_graph(model, RankView(1, min(model.max_positions, 2048), **view))


@st.composite
def towers(draw: st.DrawFn) -> nx.DiGraph:
    """Any graph without cycles, its operators in layers of one, two or three chains."""
    graph = draw(shapes.dags(most=12))
    names = {}
    for i, node in enumerate(graph):
        tower = draw(st.sampled_from(["", "text.", "image."]))
        layer = draw(st.sampled_from(["layer0.", "layer1.", "layer2.", "embedding."]))
        part = draw(st.sampled_from(["", "attention.", "mlp."]))
        names[node] = f"{tower}{layer}{part}n{i}"
    return shapes.renamed(graph, names)


def overlap(a: Box, b: Box) -> bool:
    return a.x < b.right and b.x < a.right and a.y < b.bottom and b.y < a.bottom


def check(placed: Scene, graph: nx.DiGraph) -> None:
    """The laws of a picture."""
    boxes = list(placed.boxes.values())
    assert not any(overlap(a, b) for a, b in itertools.combinations(boxes, 2))
    panels = [panel.box for panel in placed.panels]
    assert not any(overlap(a, b) for a, b in itertools.combinations(panels, 2))
    for panel in placed.panels:
        for node in panel.part.members[0].nodes:
            assert within(placed.boxes[node], panel.box)
        assert all(within(band.box, panel.box) for band in panel.bands)
    assert all(box.x >= 0 and box.right <= placed.width for box in panels)
    assert all(box.y >= 0 and box.bottom <= placed.height for box in panels)
    assert {wire.ends for wire in placed.wires} == set(graph.edges)
    for wire in placed.wires:
        start, end = (placed.boxes[node] for node in wire.ends)
        assert wire.points[0][1] == start.bottom
        assert wire.points[-1][1] == end.y
        assert start.x < wire.points[0][0] < start.right
        assert end.x < wire.points[-1][0] < end.right
        for piece in itertools.pairwise(wire.points):
            assert piece[0][1] <= piece[1][1], "edges go down"
            assert not any(crosses(piece, box) for box in boxes), wire.ends


def within(inner: Box, outer: Box) -> bool:
    return (
        outer.x <= inner.x
        and inner.right <= outer.right
        and outer.y <= inner.y
        and inner.bottom <= outer.bottom
    )


def crosses(piece: tuple[tuple[float, float], tuple[float, float]], box: Box) -> bool:
    """Whether a line or a curve between two points, which stays between them, meets a box."""
    (x, y), (to_x, to_y) = piece
    left, right = min(x, to_x), max(x, to_x)
    return left < box.right and box.x < right + 1e-9 and y < box.bottom and box.y < to_y


@settings(deadline=None)
@given(towers())
def test_nothing_lies_on_anything_else_in_drawn_graphs(graph: nx.DiGraph) -> None:
    drawn = collapse(graph)
    check(scene(drawn), drawn.graph)


@pytest.mark.parametrize("name", MODELS)
def test_nothing_lies_on_anything_else_in_models(name: str) -> None:
    drawn = collapse(model_graph(name))
    check(scene(drawn), drawn.graph)


@settings(deadline=None)
@given(towers(), st.integers(0, 3))
def test_the_same_graph_gives_the_same_picture(graph: nx.DiGraph, seed: int) -> None:
    text = drawing.picture(graph, "drawn")
    assert drawing.picture(shapes.shuffled(graph, seed), "drawn") == text
    ET.fromstring(text)


def test_the_picture_is_the_same_in_every_process() -> None:
    code = (
        "from planner.graph.picture import drawing\n"
        "from tests.graph.structure.test_parallelism import *\n"
        "print(drawing.picture(encoder_decoder(2), 'x'))"
    )
    here = drawing.picture(encoder_decoder(2), "x")
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
        assert done.stdout == here + "\n", done.stderr


@pytest.mark.parametrize("name", MODELS)
def test_a_picture_says_every_operator_and_the_totals(name: str) -> None:
    graph = model_graph(name)
    root = ET.fromstring(drawing.picture(graph, f"{name} <&>"))
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert texts[0] == f"{name} <&>"
    drawn = collapse(graph)
    tips = [tip.text or "" for tip in root.iter(f"{SVG}title")]
    assert {tip.partition("\n")[0] for tip in tips[1:]} == {node.name for node in drawn.graph}
    found = parallelism.summary(graph)
    assert f"{found.operators} operators, {found.width} could run at once" in texts[1]
    for part in leaves(drawn.parts):
        if part.count > 1:
            assert f"× {part.count}" in texts


def test_126_layers_are_drawn_once() -> None:
    few, many = (scene(collapse(shapes.decoder((0,) * n))) for n in (2, 126))
    assert [box for _, box in few.boxes.items()] == [box for _, box in many.boxes.items()]
    assert (few.width, few.height) == (many.width, many.height)


def test_every_operator_has_one_that_stands_for_it() -> None:
    graph = shapes.decoder((1, 1, 0) * 3 + (1,))
    drawn = collapse(graph)
    assert set(drawn.of) == set(graph)
    assert set(drawn.of.values()) == set(drawn.graph)
    assert all(strip(node) == strip(first) for node, first in drawn.of.items())
    assert nx.is_directed_acyclic_graph(drawn.graph)


def strip(node: Node) -> Node:
    return shapes.with_(node, name="")


def test_a_pattern_gets_a_frame_that_says_its_layers() -> None:
    drawn = collapse(shapes.decoder((1, 1, 1, 1, 1, 0) * 4 + (1, 1)))
    (frame,) = scene(drawn).frames
    assert (frame.part.count, ranges(frame.part.members)) == (4, "0–23")
    said = [ranges(part.members) for part in leaves(drawn.parts)]
    assert said == ["", "0–4, 6–10, 12–16, 18–22", "5, 11, 17, 23", "24–25", ""]
    inside = [panel.box for panel in scene(drawn).panels[1:3]]
    assert all(within(box, frame.box) for box in inside)
    assert not any(overlap(frame.box, panel.box) for panel in scene(drawn).panels[3:])


def test_encoder_and_decoder_are_columns_joined_by_edges() -> None:
    placed = scene(collapse(encoder_decoder(3)))
    encoder = [box for node, box in placed.boxes.items() if node.name.startswith("encoder")]
    decoder = [box for node, box in placed.boxes.items() if not node.name.startswith("encoder")]
    assert max(box.right for box in encoder) < min(box.x for box in decoder)
    across = {tuple(node.name for node in wire.ends) for wire in placed.wires if wire.across}
    assert across == {("encoder.norm", f"decoder.layer0.cross.{part}") for part in "kv"}


def test_an_edge_passes_a_column_in_between_without_touching_it() -> None:
    chains = [
        shapes.series(*(shapes.layer(f"{name}.layer{i}.") for i in range(2))) for name in "abc"
    ]
    graph = nx.compose_all(chains)
    first = next(iter(chains[0]))
    graph.add_edge(first, next(n for n in chains[2] if not chains[2].succ[n]))
    graph.add_edge(first, next(n for n in chains[1] if not chains[1].succ[n]))
    drawn = collapse(graph)
    placed = scene(drawn)
    assert len({box.x for box in (panel.box for panel in placed.panels)}) == 3
    assert sum(wire.across for wire in placed.wires) == 2
    check(placed, drawn.graph)


def test_the_critical_path_is_emphasised() -> None:
    graph = shapes.series(*(shapes.single(f"a.{name}") for name in "xyz"))
    graph.add_edge(next(iter(graph)), shapes.op("a.aside"))
    root = ET.fromstring(drawing.picture(graph, "path"))
    wires = [path for path in root.iter(f"{SVG}path") if path.get("marker-end")]
    assert sorted(path.get("class") for path in wires) == ["wire", "wire path", "wire path"]


def test_a_graph_without_names_of_layers_is_drawn_with_its_repetition() -> None:
    graph = shapes.decoder((0,) * 5)
    hidden = shapes.renamed(graph, {node: f"n_{i}" for i, node in enumerate(graph)})
    drawn = collapse(hidden)
    check(scene(drawn), drawn.graph)
    assert "× 5" in drawing.picture(hidden, "captured")
    assert len(drawn.graph) == 1 + 11 + 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 FLOP"), (12, "12 FLOP"), (5e6, "5 MFLOP"), (6.87e10, "68.7 GFLOP"), (2e18, "2 EFLOP")],
)
def test_flops_are_said_shortly(value: float, text: str) -> None:
    assert caption.flop(value) == text


def test_sharded_views_show_their_collectives() -> None:
    graph = model_graph("mixtral-8x7b", tp=2, ep=4)
    text = drawing.picture(graph, "sharded")
    assert "all_to_all" in text
    assert "reduce_scatter" in text
    drawn = collapse(graph)
    check(scene(drawn), drawn.graph)


@pytest.mark.timing
def test_405_billion_parameters_are_drawn_in_a_second() -> None:
    graph = model_graph("llama3.1-405b")
    start = time.perf_counter()
    drawing.picture(graph, "llama3.1-405b")
    assert time.perf_counter() - start < 1.0
    assert outline.outline(graph)[1].count == 126
