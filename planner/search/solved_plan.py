"""Solved plan: from a solved outer choice to a plan with its prediction."""

from planner.cost.blocks import Blocks
from planner.search.outer.search import Solved
from planner.simulator.prediction import planned
from planner.spec.asked import Asked
from planner.spec.layout import make_stages
from planner.spec.plan import Plan


def plan_of(blocks: Blocks, solved: Solved, asked: Asked | None = None) -> Plan:
    """A solved choice as a plan, predicted by replay. asked: what it was searched for."""
    cut = solved.cut
    layout = solved.choice.table.layout(solved.choice.row).replace(recompute=cut.mode)
    made = planned(blocks, layout, make_stages(layout, cut.counts, cut.recomputed))
    return made.replace(asked=asked)
