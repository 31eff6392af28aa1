"""The collectives of the graph are those of a recorded run: same kind, axis, phase and bytes."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from executor.alone.sent import Sent, fake_group
from planner.graph import transformer
from planner.graph.operator import Collective
from planner.graph.view import RankView
from tests.ledger import drawn, grid
from tests.ledger.drawn import Case
from tests.ledger.programs.axes import Axes
from tests.ledger.programs.ends import Embedding, Head
from tests.ledger.programs.layer import Layer
from tests.ledger.recorder import record

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
DRAWS = settings(max_examples=40)


def says(view: RankView, collectives: list[Collective]) -> Counter[Sent]:
    """A graph's collectives as a recorder would see them."""
    degrees = {axis: getattr(view, axis) for axis in ("tp", "cp", "ep", "etp")}
    return Counter(
        Sent(node.op, node.axis, degrees[node.axis], node.phase, node.message_bytes)
        for node in collectives
        for _ in range(node.count)
    )


@contextmanager
def running(case: Case) -> Iterator[Axes]:
    """A fake job in which this process is one rank of the case, in the case's number format."""
    view = case.view
    torch.set_default_dtype(DTYPES[view.dtype])
    choices = {"sequence_parallel": view.sequence_parallel, "cp_style": view.cp_style}
    try:
        with (
            fake_group(grid.ranks(case.degrees), case.rank),
            grid.joined(case.degrees, **choices) as axes,
        ):
            yield axes
    finally:
        torch.set_default_dtype(torch.float32)


def rows(case: Case, tokens: int) -> Tensor:
    """The rows of the residual stream that a rank holds between blocks."""
    view = case.view
    divided = view.cp * (view.tp if view.sequence_parallel else 1)
    return torch.zeros(view.batch * tokens // divided, case.model.hidden, requires_grad=True)


def sent_by_layer(case: Case) -> Counter[Sent]:
    with running(case) as axes:
        layer = Layer(case.model, case.kind, axes)
        x, encoded = rows(case, case.view.seq), rows(case, case.view.source or 0)
        return Counter(record(axes.named, lambda: layer(x, case.view.batch, encoded)))


def layer_graph(case: Case) -> nx.DiGraph:
    return transformer.layer_graph(case.model, case.view, stack=len(case.model.stacks) - 1)


def agree(case: Case) -> None:
    sent = sent_by_layer(case)
    assert sent
    assert says(case.view, transformer.collectives(layer_graph(case))) == sent


@pytest.mark.parametrize("sequence_parallel", [True, False])
def test_tensor_parallel_layer(sequence_parallel: bool) -> None:
    DRAWS(given(drawn.tensor_parallel(sequence_parallel))(agree))()


@pytest.mark.parametrize("style", ["ring", "all_to_all", "all_gather"])
def test_context_parallel_layer(style: str) -> None:
    DRAWS(given(drawn.context_parallel(style))(agree))()


@DRAWS
@given(drawn.expert_parallel())
def test_expert_parallel_layer(case: Case) -> None:
    agree(case)


@pytest.mark.parametrize("sequence_parallel", [True, False])
def test_embedding_and_head(sequence_parallel: bool) -> None:
    DRAWS(given(drawn.tensor_parallel(sequence_parallel))(ends_agree))()


def ends_agree(case: Case) -> None:
    model, view = case.model, case.view
    tokens = torch.arange(view.batch * view.seq) % model.vocab
    with running(case) as axes:
        embedding, head = Embedding(model, axes), Head(model, axes)
        sent = record(axes.named, lambda: head(embedding(tokens), tokens))
    graphs: tuple[Any, ...] = (
        transformer.embedding_graph(model, view, stack=len(model.stacks) - 1),
        transformer.head_graph(model, view, holds_embedding=True),
    )
    said = [node for graph in graphs for node in transformer.collectives(graph)]
    assert says(view, said) == Counter(sent)
