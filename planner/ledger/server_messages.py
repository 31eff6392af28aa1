"""Server messages: what parameter servers send in our executor (executor.states.served).

d = dp * cp ranks hold the same parameters; each is a worker and the server of some of them. W_j
elements has parameter j in the whole model, P_j on this rank (where tp divides it, fewer). By
decreasing W_j, what tp divides first, each parameter goes to the server with the least so far:

    L_i    the sum of W_j of server i, which decides; the same on all ranks of tp
    S_i    the sum of P_j of server i, each rounded up to a 64-byte line

Rank i sends and receives, g being the bytes of a gradient and e of a weight, once per step

    gradients  send S_k * g to every other server k     recv S_i * g from every other worker
    optimizer  send S_i * e to every other worker       recv S_k * e from every other server k

An empty message is not sent. The order of parameters of one size does not matter here.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from planner.graph.data_parallel import DataParallel
from planner.spec.ledger import Line


@dataclass(frozen=True, slots=True)
class Parameter:
    """Elements: whole, W_j, and own, P_j. replicated: every rank of tp has all of it."""

    whole: int
    own: int
    replicated: bool


def shares(parameters: Iterable[Parameter], how: DataParallel) -> list[int]:
    """S_i of every server, in elements."""
    line = max(1, how.line_bytes // how.weight_bytes)
    found, loads = [0] * how.ranks, [0] * how.ranks
    for each in sorted(parameters, key=lambda each: (-each.whole, each.replicated)):
        server = loads.index(min(loads))
        loads[server] += each.whole
        found[server] += -(-each.own // line) * line
    return found


def per_step(served: Sequence[int], index: int, how: DataParallel) -> Iterator[tuple[Line, int]]:
    """Lines of server `index`, with their counts; equal ones may come again."""
    own, ranks, gradient, weight = served[index], how.ranks, how.gradient_bytes, how.weight_bytes
    for share in (*served[:index], *served[index + 1 :]):
        lines: tuple[Line, ...] = (
            ("gradients", "send", "dp", ranks, share * gradient),
            ("gradients", "recv", "dp", ranks, own * gradient),
            ("optimizer", "send", "dp", ranks, own * weight),
            ("optimizer", "recv", "dp", ranks, share * weight),
        )
        yield from ((line, 1) for line in lines if line[-1])
