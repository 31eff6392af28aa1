"""Drawing: a graph as an SVG picture, with text that can be selected and searched.

Colours say what an operator is (planner.graph.picture.caption), a badge how often a part repeats,
the thick line the critical path by forward FLOPs, a dashed line what goes from one column to
another. Everything else about an operator is in its tooltip. The same graph gives the same text,
whatever order its nodes were put in.
"""

import itertools
from collections.abc import Iterable
from html import escape

import networkx as nx

from planner.graph.operator import Node, Operator
from planner.graph.picture import caption, collapse
from planner.graph.picture.placement import scene
from planner.graph.picture.scene import BOLD, LETTER, Band, Box, Frame, Panel, Point, Scene, Wire
from planner.graph.structure import parallelism
from planner.graph.structure.outline import Part
from planner.graph.structure.parallelism import Parallelism
from planner.spec.units import format_count

FILLS: dict[caption.Category, tuple[str, str, str]] = {
    "matrix": ("#dbe9ff", "#3b6fb5", "matrix product"),
    "attention": ("#ffe3c2", "#c9761a", "attention"),
    "memory": ("#eceff1", "#78868f", "memory-bound"),
    "embedding": ("#e6dcf7", "#7c5cb8", "embedding"),
    "collective": ("#cdeee5", "#23856d", "collective"),
    "loss": ("#fbf1b8", "#a38a12", "loss"),
}
INK, SOFT, PATH, ACROSS = "#1d252b", "#5d6b75", "#d0342c", "#7c5cb8"
FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
HEAD = 124.0
"""Height of title and legend."""
LEGEND_WIDTH = 720.0
STYLE = f"""
text {{ font-family: {FONT}; fill: {INK}; }}
.title {{ font-size: 20px; font-weight: bold; }}
.line {{ font-size: 13px; fill: {SOFT}; }}
.name {{ font-size: 12px; font-weight: bold; }}
.dims {{ font-size: 12px; }}
.cost {{ font-size: 11px; fill: {SOFT}; }}
.part {{ font-size: 13px; font-weight: bold; }}
.each {{ font-size: 11px; font-weight: normal; fill: {SOFT}; }}
.band {{ font-size: 11px; fill: {SOFT}; }}
.badge {{ font-size: 13px; font-weight: bold; fill: #ffffff; }}
.wire {{ fill: none; stroke: #8b979f; stroke-width: 1.2; }}
.across {{ fill: none; stroke: {ACROSS}; stroke-dasharray: 6 3; stroke-width: 1.6; }}
.path {{ fill: none; stroke: {PATH}; stroke-width: 2.6; }}
"""


def picture(graph: nx.DiGraph, title: str) -> str:
    """The whole graph as an SVG document."""
    drawn = collapse.collapse(graph)
    placed = scene(drawn)
    facts = parallelism.summary(graph)
    hot = {(drawn.of[u], drawn.of[v]) for u, v in itertools.pairwise(facts.path)}
    width = max(placed.width, LEGEND_WIDTH)
    body = [
        *_head(graph, title, facts, any(wire.across for wire in placed.wires)),
        f'<g transform="translate({_n((width - placed.width) / 2)} {_n(HEAD)})">',
        *itertools.chain.from_iterable(map(_frame, placed.frames)),
        *itertools.chain.from_iterable(map(_panel, placed.panels)),
        *(_wire(wire, wire.ends in hot) for wire in _last(placed.wires, hot)),
        *itertools.chain.from_iterable(
            _box(placed, node, {drawn.of[n] for n in facts.path}) for node in placed.boxes
        ),
        *itertools.chain.from_iterable(map(_panel_text, placed.panels)),
        "</g>",
    ]
    return _document(title, width, placed.height + HEAD, body)


def _document(title: str, width: float, height: float, body: Iterable[str]) -> str:
    size = f'width="{_n(width)}" height="{_n(height)}" viewBox="0 0 {_n(width)} {_n(height)}"'
    arrows = [
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="{size}" '
        f'markerHeight="{size}" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path d="M0 0.5 L8 4 L0 7.5 z" fill="{colour}"/></marker>'
        for name, colour, size in (
            ("arrow-wire", "#8b979f", 7),
            ("arrow-path", PATH, 9),
            ("arrow-across", ACROSS, 8),
        )
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            f"<defs>{''.join(arrows)}</defs>",
            f'<rect width="{_n(width)}" height="{_n(height)}" fill="#ffffff"/>',
            *body,
            "</svg>\n",
        ]
    )


def _head(graph: nx.DiGraph, title: str, facts: Parallelism, across: bool) -> list[str]:
    nodes = [node for node in graph if isinstance(node, Operator)]
    parameters = sum(node.parameters for node in nodes)
    forward = sum(node.forward_flops for node in nodes)
    share = f"{facts.critical / facts.work:.0%} of the FLOPs" if facts.work else "no FLOPs"
    at_least = "" if facts.exact else "at least "
    lines = [
        f"{format_count(parameters)} parameters, {caption.flop(forward)} forward, "
        f"{facts.operators} operators, {at_least}{facts.width} could run at once "
        f"({facts.average:.2f} on average)",
        f"critical path: {len(facts.path)} operators with {share}",
    ]
    return [
        f'<text class="title" x="26" y="34">{escape(title)}</text>',
        f'<text class="line" x="26" y="56">{escape(lines[0])}</text>',
        *_legend(26, 82, lines[1], across),
    ]


def _legend(x: float, y: float, path: str, across: bool) -> list[str]:
    found = []
    place = x
    for fill, stroke, text in FILLS.values():
        found.append(
            f'<rect x="{_n(place)}" y="{_n(y - 11)}" width="14" height="14" rx="3" '
            f'fill="{fill}" stroke="{stroke}"/>'
            f'<text class="line" x="{_n(place + 19)}" y="{_n(y)}">{text}</text>'
        )
        place += 38 + 7.4 * len(text)
    found += _sample(x, y + 21, "path", path)
    if across:
        found += _sample(x + 80 + 7.4 * len(path), y + 21, "across", "between columns")
    return found


def _sample(x: float, y: float, kind: str, text: str) -> list[str]:
    return [
        f'<path class="{kind}" d="M{_n(x)} {_n(y - 4)} h22"/>',
        f'<text class="line" x="{_n(x + 28)}" y="{_n(y)}">{escape(text)}</text>',
    ]


def _frame(frame: Frame) -> list[str]:
    box, blocks = frame.box, len(frame.part.members) // frame.part.count
    text = f"{blocks} layers in turn: {collapse.ranges(frame.part.members)}"
    return [
        *_stack(box, frame.part.count, "#f6f8fa"),
        f'<text class="part" x="{_n(box.x + 12)}" y="{_n(box.y + 20)}">{escape(text)}</text>',
        *_badge(box, frame.part.count),
    ]


def _panel(panel: Panel) -> list[str]:
    bands = (line for band in panel.bands for line in _band(band))
    return [*_stack(panel.box, panel.part.count, "#fbfcfd"), *bands]


def _stack(box: Box, count: int, fill: str) -> list[str]:
    sheets = (8, 4, 0) if count > 1 else (0,)
    return [
        f'<rect x="{_n(box.x + shift)}" y="{_n(box.y + shift)}" width="{_n(box.width)}" '
        f'height="{_n(box.height)}" rx="8" fill="{fill}" stroke="#b9c4cc"/>'
        for shift in sheets
    ]


def _band(band: Band) -> list[str]:
    box, x, y = band.box, band.box.x + 13, band.box.y + band.box.height / 2
    return [
        f'<rect x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.width)}" '
        f'height="{_n(box.height)}" rx="6" fill="#f1f4f6"/>',
        f'<text class="band" text-anchor="middle" transform="rotate(-90 {_n(x)} {_n(y)})" '
        f'x="{_n(x)}" y="{_n(y)}">{escape(band.name)}</text>',
    ]


def _panel_text(panel: Panel) -> list[str]:
    box, part = panel.box, panel.part
    each = " each" if len(part.members) > 1 else ""
    nodes = [node for node in part.members[0].nodes if isinstance(node, Operator)]
    parameters = format_count(sum(node.parameters for node in nodes))
    forward = caption.flop(sum(node.forward_flops for node in nodes))
    name = _called(part)
    y, aside = _n(box.y + 20), box.x + 24 + 8.4 * len(name)
    return [
        f'<text class="part" x="{_n(box.x + 12)}" y="{y}">{escape(name)}</text>',
        f'<text class="each" x="{_n(aside)}" y="{y}">{parameters} parameters, {forward}{each}'
        f"</text>",
        *_badge(box, part.count),
    ]


def _called(part: Part) -> str:
    name, numbers = collapse.series_name(part.members[0]), collapse.ranges(part.members)
    return f"{name} {numbers}" if numbers else name


def _badge(box: Box, count: int) -> list[str]:
    if count == 1:
        return []
    text = f"× {count}"
    width = 18 + 7.6 * len(text)
    x, y = box.right - width - 8, box.y - 9
    return [
        f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="22" rx="11" fill="{INK}"/>',
        f'<text class="badge" text-anchor="middle" x="{_n(x + width / 2)}" y="{_n(y + 15.5)}">'
        f"{text}</text>",
    ]


def _box(placed: Scene, node: Node, path: set[Node]) -> list[str]:
    box = placed.boxes[node]
    fill, stroke, _ = FILLS[caption.category(node)]
    colour, thick = (PATH, 2.2) if node in path else (stroke, 1)
    name, dims = placed.names[node], caption.shape(node)
    room = int((box.width - 16) / LETTER)
    name = _cut(name, room)
    dims = _cut(dims, max(int((box.width - 24 - len(name) * BOLD) / LETTER), 1))
    left, right = _n(box.x + 8), _n(box.right - 8)
    return [
        f"<g><title>{escape(caption.facts(node))}</title>",
        f'<rect x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.width)}" '
        f'height="{_n(box.height)}" rx="6" fill="{fill}" stroke="{colour}" '
        f'stroke-width="{thick}"/>',
        f'<text class="name" x="{left}" y="{_n(box.y + 17)}">{escape(name)}</text>',
        f'<text class="dims" text-anchor="end" x="{right}" y="{_n(box.y + 17)}">'
        f"{escape(dims)}</text>",
        f'<text class="cost" x="{left}" y="{_n(box.y + 32)}">'
        f"{escape(_cut(caption.cost(node), room + 2))}</text></g>",
    ]


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(room - 1, 0)] + "…"


def _last(wires: Iterable[Wire], hot: set[tuple[Node, Node]]) -> list[Wire]:
    """The critical path is drawn over everything else."""
    return sorted(wires, key=lambda wire: wire.ends in hot)


def _wire(wire: Wire, hot: bool) -> str:
    kind = "across" if wire.across else "wire"
    marker = "arrow-path" if hot else f"arrow-{kind}"
    line = _square(wire.points) if wire.across else _curved(wire.points)
    path = f"{kind} path" if hot else kind
    return f'<path class="{path}" d="{line}" marker-end="url(#{marker})"/>'


def _curved(points: tuple[Point, ...]) -> str:
    """Curves in the gaps between rows, straight lines through the rows."""
    text = [f"M{_n(points[0][0])} {_n(points[0][1])}"]
    for number, ((x, y), (to_x, to_y)) in enumerate(itertools.pairwise(points)):
        if number % 2 or x == to_x:
            text.append(f"L{_n(to_x)} {_n(to_y)}")
        else:
            half = _n((y + to_y) / 2)
            text.append(f"C{_n(x)} {half} {_n(to_x)} {half} {_n(to_x)} {_n(to_y)}")
    return " ".join(text)


def _square(points: tuple[Point, ...]) -> str:
    return "M" + " L".join(f"{_n(x)} {_n(y)}" for x, y in points)


def _n(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")
