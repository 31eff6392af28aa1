"""Every schedule drawn small: a change of any grid must be meant."""

from pathlib import Path

from planner import schedule_card
from planner.schedule.orders import default_chunks, orders
from planner.spec.runtime import SCHEDULES

GOLDEN = Path(__file__).parent / "schedules.txt"
RANKS, MICROBATCHES = 3, 6


def text() -> str:
    """Each schedule on 3 ranks with 6 microbatches: drawn, then as torch executes it."""
    found = [orders(name, RANKS, MICROBATCHES, default_chunks(name)) for name in SCHEDULES]
    shown = [f"{schedule_card.drawing(made)}\n\n{schedule_card.lowered(made)}" for made in found]
    return "\n\n".join(shown) + "\n"
