"""Expert moments: what passes on one rank while a layer with experts runs, as the executor runs it.

A rank routes n tokens k times and receives as many copies as it sends (balanced routing). In bytes:

    R = n k h e          the copies that a rank sends       x = etp
    G = x R              all that its experts work on       f = columns of an expert on the rank
    F = x n k f e        one of their inner activations     i of them are kept: 4 gated, else 2
    W = E/ep h f e       the gradient of one of their matrices

S is all that the layer keeps, of which the experts G + iF (their input, what is between their
matrices) and R (their answers). A moment is S and more:

    forward   down      a list of every expert's rows, then one tensor of them:  2G - R
              back      sorted as they came:  2G - R
              return    sent back:  R
    backward  combine   gradients of answers and of their weights, token by token:  2R
              down      answers gone; the gradients of matrices as a list and stacked:  -R + 2W
              between   gradients of both sides of the product:  -R + 2F
              gate      the inner ones gone:  -R - iF + F + G + 2W
              up        the inputs' gradients of both:  -R - iF + 2G + 2W
    with ZeRO 2 and 3 from the first stacked gradient on the unit's gradients U besides

The shared MLP runs after the experts, and backward before them: what it keeps is never there
meanwhile. The rest of the layer runs backward when the experts' S is gone.

Left out: indices and counts (8 bytes per copy), and that routing is never quite even.
"""

from dataclasses import dataclass

from planner.cost.block_parts import widest_bytes
from planner.cost.blocks import BlockCost, Blocks
from planner.graph import transformer
from planner.graph.operator import LayerKind, Operator
from planner.graph.view import RankView
from planner.spec.layer import Experts


@dataclass(frozen=True, slots=True)
class ExpertBytes:
    """The sizes above, and of the rest of the layer: the stream (and that of all tp ranks), its
    widest activation gradient and largest weight gradient, what its shared MLP keeps, and whether
    gradients of the rest are there before those of experts. parameters, rest_parameters:
    elements, of experts and of the rest."""

    sent: int
    gathered: int
    inner: int
    kept_inner: int
    weight: int
    stream: int
    gathered_stream: int
    widest: int
    rest_weight: int
    shared: int
    rest_first: bool
    parameters: int
    rest_parameters: int

    @property
    def ahead(self) -> float:
        """The most of the forward beside S."""
        return max(2 * self.gathered - self.sent - self.shared, self.sent, 2 * self.widest)

    @property
    def second(self) -> float:
        """The most of a forward that a backward runs again: besides, the stream before the norm,
        the gradient of the layer's output, and that of the shared MLP's, which is gathered."""
        return self.ahead + 2 * self.stream + self.gathered_stream * (self.shared > 0)

    @property
    def unkept(self) -> float:
        """The most of a forward that keeps nothing."""
        return self.ahead + self.sent + self.shared + self.gathered + 2 * self.inner

    def behind(self, gathered: float, gradient: float, gathered_rest: float, rest: float) -> float:
        """The most of the backward beside S.

        gathered, gradient: bytes of an element of the experts' unit that are there meanwhile;
        gathered_rest, rest: the same of the layer's other unit.
        """
        unit = gradient * self.parameters
        before = -self.sent - self.shared
        inner = before - self.kept_inner * self.inner
        experts = max(
            2 * self.sent + self.stream - self.shared,
            before + 2 * self.gathered,
            before + 2 * self.weight,
            before + self.weight + unit,
            before + 2 * self.inner + unit,
            inner + self.inner + self.gathered + 2 * self.weight + unit,
            inner + 2 * self.gathered + 2 * self.weight + unit,
        )
        after = inner - self.gathered + 2 * self.widest + self.rest_weight
        of_rest = rest * self.rest_parameters
        whole = gathered * self.parameters + gathered_rest * self.rest_parameters
        return whole + max(
            experts + (of_rest if self.rest_first else 0), after + of_rest, 2 * self.widest
        )


def sizes(blocks: Blocks, kind: LayerKind, view: RankView, cost: BlockCost) -> ExpertBytes:
    """Of a layer whose feed-forward part has experts."""
    model, size = blocks.model, view.element_bytes
    spec = model.stacks[kind.stack].kinds[kind.kind]
    part = spec.feed_forward
    assert isinstance(part, Experts)
    copies = view.outer_rows * part.per_token
    columns = part.expert.ffn // view.etp
    rest = [op for op in _operators(blocks, kind, view) if not op.expert]
    return ExpertBytes(
        sent=copies * model.hidden * size,
        gathered=view.etp * copies * model.hidden * size,
        inner=view.etp * copies * columns * size,
        kept_inner=(4 if part.expert.gated else 2) - (part.expert.activation == "relu"),
        weight=-(-part.experts // view.ep) * model.hidden * columns * size,
        stream=view.outer_rows * model.hidden * size,
        gathered_stream=view.rows * model.hidden * size,
        widest=max(widest_bytes(op, size) for op in rest if op.kind not in ("permute", "combine")),
        rest_weight=max(op.parameters for op in rest) * size,
        shared=sum(op.saved_bytes for op in rest if ".shared." in op.name),
        rest_first=part.shared is not None or spec.placement != "pre",
        parameters=cost.expert_parameters,
        rest_parameters=cost.parameters - cost.expert_parameters,
    )


def _operators(blocks: Blocks, kind: LayerKind, view: RankView) -> list[Operator]:
    return list(transformer.operators(transformer.layer_graph(blocks.model, view, "", *kind)))
