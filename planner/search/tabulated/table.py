"""Table: candidates of one pipeline depth with their estimates."""

from dataclasses import dataclass

from planner.cost.candidates import Candidates
from planner.cost.collectives import Floats


@dataclass(frozen=True, slots=True)
class Table:
    """One table of candidates with its estimates; rows that do not fit take infinite time."""

    candidates: Candidates
    step_seconds: Floats
    bound_seconds: Floats
    peak_bytes: Floats
