"""Ranking: what a search found, and how sure it is."""

from dataclasses import dataclass

from planner.search.outer.relaxed_space import Space
from planner.search.outer.search import Outcome
from planner.search.tabulated.table import Table
from planner.spec.plan import Plan


class NoPlanError(Exception):
    """No legal plan fits; the message names the binding limit and what would help.

    limit: the first part of it, without the leanest choice.
    """

    def __init__(self, limit: str, leanest: str = ""):
        super().__init__(f"{limit} {leanest}" if leanest else limit)
        self.limit = limit


class OutOfTimeError(NoPlanError):
    """The time limit came before the first plan; whether any fits is not known."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The result of a search. plans: best first, each with its prediction.

    candidates: outer choices (on shared cores: plans) enumerated; fitting: those that may fit the
    limit of memory (an exact search: of those it kept), safe: those not at risk. tables: of a
    tabulated search. space, outcome: of an exact one, None otherwise.

    lower_bound_seconds: no plan of the space has a shorter step (for objective "cost": no plan
    costs less than a step of this length of the best plan's devices).
    gap = 1 - lower bound / best. Both None where no bound is known. claim: what else is proven, in
    words.
    """

    plans: tuple[Plan, ...]
    tables: tuple[Table, ...]
    candidates: int
    fitting: int
    safe: int
    replayed: int
    lower_bound_seconds: float | None
    gap: float | None
    space: Space | None
    outcome: Outcome | None
    wall_seconds: float
    cpu_seconds: float
    claim: str = ""

    @property
    def proven(self) -> bool:
        """Whether no plan of the tabulated space is better than the first."""
        return self.gap is not None and self.gap <= 0.0
