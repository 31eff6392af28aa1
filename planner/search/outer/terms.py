"""Terms: on what terms the plans of a question compete."""

from dataclasses import dataclass, field, replace

import numpy as np

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.collectives import Floats
from planner.search.wishes import Wish, Wishes
from planner.spec.asked import Asked
from planner.spec.divisors import divisors
from planner.spec.plan import Plan
from planner.spec.runtime import Recompute


@dataclass(frozen=True, slots=True)
class Terms:
    """limit_bytes: memory of a rank. dollars: the value of a plan is its step's dollars, not its
    seconds. sizes: numbers of devices that a plan may occupy; None: all of the cluster's, and where
    dollars count also the nodes' divisors."""

    limit_bytes: float
    dollars: bool = False
    wishes: Wishes = field(default_factory=Wishes)
    sizes: tuple[int, ...] | None = None

    @classmethod
    def of_asked(cls, asked: Asked, plan: Plan) -> "Terms":
        """The terms on which a plan was found. Where the fewest devices were sought, its own number
        of devices is given."""
        sizes = (plan.layout.devices,) if asked.objective == "devices" else None
        return cls(asked.limit_bytes, asked.objective == "cost", Wishes.of_asked(asked), sizes)

    def within(self, limit_bytes: float) -> "Terms":
        """The same with another memory limit."""
        return replace(self, limit_bytes=limit_bytes)

    def without(self, wish: Wish) -> "Terms":
        """The same without a wish."""
        return replace(self, wishes=self.wishes.without(wish))

    def forbidding(self, mode: Recompute) -> "Terms":
        """The same without a way to recompute."""
        unwanted = Wish("recompute", mode, wanted=False)
        return replace(self, wishes=replace(self.wishes, choices=(*self.wishes.choices, unwanted)))

    def devices(self, blocks: Blocks) -> tuple[int, ...]:
        """The numbers of devices of the question's plans."""
        if self.sizes is not None:
            return self.sizes
        if not self.dollars:
            return (blocks.cluster.devices,)
        per_node = blocks.cluster.devices_per_node
        return tuple(per_node * n for n in divisors(blocks.cluster.nodes))

    def weight(self, blocks: Blocks, table: Candidates) -> Floats:
        """What one second of each row counts: 1, or the dollars of its devices."""
        if not self.dollars:
            return np.ones(len(table))
        price = blocks.cluster.accelerator.price_usd_per_hour or 0.0
        devices = table.dp * table.tp * table.cp * table.pp
        result: Floats = devices * price / 3600
        return result

    def value(self, plan: Plan) -> float:
        """Seconds of a plan's step, or its dollars."""
        assert plan.predicted is not None
        predicted = plan.predicted
        return (predicted.usd_per_step or 0.0) if self.dollars else predicted.step_seconds
