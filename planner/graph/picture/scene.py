"""Scene: where everything of a picture stands, in pixels, before any ink."""

from collections.abc import Mapping
from dataclasses import dataclass

from planner.graph.operator import Node
from planner.graph.structure.outline import Part

BOX_HEIGHT = 40.0
ROW_GAP = 30.0
PANEL_HEAD = 34.0
PANEL_PAD = 16.0
LETTER, BOLD = 7.2, 7.9
"""Width of a letter of the captions; of a bold one."""

Point = tuple[float, float]
Pair = tuple[Node, Node]


@dataclass(frozen=True)
class Box:
    """A rectangle; x and y of its upper left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """x of the right side."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """y of the lower side."""
        return self.y + self.height

    @property
    def middle(self) -> float:
        """x of the centre."""
        return self.x + self.width / 2


@dataclass(frozen=True)
class Band:
    """Rows of a panel that belong to one half of a layer (`attention`, `mlp`)."""

    name: str
    box: Box


@dataclass(frozen=True)
class Panel:
    """A part of one block: its rectangle and its bands."""

    part: Part
    box: Box
    bands: tuple[Band, ...]


@dataclass(frozen=True)
class Frame:
    """A part of several parts."""

    part: Part
    box: Box


@dataclass(frozen=True)
class Wire:
    """An edge, as a line through points from what is read down to its reader.

    across: between columns, with right angles; else straight in rows and curved between them.
    """

    ends: Pair
    points: tuple[Point, ...]
    across: bool


@dataclass(frozen=True)
class Scene:
    """Everything, from (0, 0) to (width, height). names: what is written on the operators."""

    boxes: Mapping[Node, Box]
    names: Mapping[Node, str]
    panels: tuple[Panel, ...]
    frames: tuple[Frame, ...]
    wires: tuple[Wire, ...]
    width: float
    height: float


def row_top(row: int) -> float:
    """y of a row of operators, counted from the top of its panel."""
    return PANEL_HEAD + row * (BOX_HEIGHT + ROW_GAP)
