"""Exchange: the collectives that tensor parallelism puts around a block.

A block gathers the tokens before it (`enter`) and reduces partial sums behind it (`leave`). With
sequence parallelism that is an all-gather and a reduce-scatter, mirrored in the backward;
without it an all-reduce behind the block and one in the backward before it (Korthikanti et al.
2022). message_bytes is the full tensor of all b*s/c tokens.
"""

from planner.graph.operator import Collective, Node
from planner.graph.view import RankView


def enter(view: RankView, width: int, name: str, rows: int | None = None) -> list[Node]:
    """Before a block: every rank gets all tokens, `width` wide (rows: of another stream)."""
    if view.tp == 1:
        return []
    size = (view.rows if rows is None else rows) * width * view.element_bytes
    if view.sequence_parallel:
        return [
            Collective(name + "gather", "all_gather", "tp", size, "forward"),
            Collective(name + "gather.backward", "reduce_scatter", "tp", size, "backward"),
        ]
    return [Collective(name + "enter.backward", "all_reduce", "tp", size, "backward")]


def leave(view: RankView, width: int, name: str) -> list[Node]:
    """Behind a block: partial sums become each rank's tokens."""
    if view.tp == 1:
        return []
    size = view.rows * width * view.element_bytes
    if view.sequence_parallel:
        return [
            Collective(name + "scatter", "reduce_scatter", "tp", size, "forward"),
            Collective(name + "scatter.backward", "all_gather", "tp", size, "backward"),
        ]
    return [Collective(name + "leave", "all_reduce", "tp", size, "forward")]
