"""Timed: the operators of one block, each timed once a phase however often its time is asked for.

The backward of a block asks for all operators, its share of weight gradients again, recomputation
for those that run twice, overlap for the cores of attention; with a column of divisions in place of
a number each time is many expressions.
"""

from collections.abc import Callable, Sequence

from planner.graph.operator import Node, Operator
from planner.spec.profile import Phase
from planner.spec.provenance import Birth

EMBEDDINGS = ("embedding", "position_embedding")
"""Kinds whose backward makes gradients of weights only: tokens have none."""


class Timed:
    """seconds: of one phase of an operator, and how they are known. Operators are told apart as
    objects: the nodes of one graph."""

    def __init__(self, seconds: Callable[[Operator, Phase], tuple[float, Birth]]):
        self._seconds = seconds
        self._known: dict[tuple[int, Phase], tuple[Operator, float, Birth]] = {}

    def seconds(self, operator: Operator, phase: Phase) -> tuple[float, Birth]:
        """Seconds of one phase of an operator, and how they are known."""
        key = id(operator), phase
        if key not in self._known:
            self._known[key] = operator, *self._seconds(operator, phase)
        _, seconds, birth = self._known[key]
        return seconds, birth

    def compute(
        self, operators: Sequence[Operator], phase: Phase, births: dict[Birth, float] | None = None
    ) -> float:
        """Seconds of operators one after the other; births: theirs are added."""
        total = 0.0
        for operator in operators:
            seconds, birth = self.seconds(operator, phase)
            if births is not None:
                births[birth] = births.get(birth, 0.0) + seconds
            total += seconds
        return total

    def forward(self, nodes: Sequence[Node]) -> float:
        """Seconds of the operators among nodes."""
        return self.compute([node for node in nodes if isinstance(node, Operator)], "forward")

    def gradients(self, operators: Sequence[Operator]) -> tuple[float, float]:
        """Seconds of the gradients of inputs and of weights."""
        whole, share = self.compute(operators, "backward"), self.weight_share(operators)
        return whole * (1 - share), whole * share

    def weight_share(self, operators: Sequence[Operator]) -> float:
        """The part of a backward's compute that is gradients of weights.

        A matrix product's backward is divided as its FLOPs are, whether measured or not; of what
        has parameters and no FLOPs (embeddings, norms) only an embedding makes nothing else.
        """
        whole = weights = 0.0
        for operator in operators:
            seconds, _ = self.seconds(operator, "backward")
            flops = operator.weight_gradient_flops, operator.backward_flops
            only = 1.0 if operator.kind in EMBEDDINGS else 0.0
            whole += seconds
            weights += seconds * (flops[0] / flops[1] if flops[1] else only)
        return weights / whole if whole else 0.0
