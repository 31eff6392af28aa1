"""What of an exchange of experts crosses nodes where a token is sent to a node once."""

import itertools

import numpy as np
import pytest

from planner.cost.exchange import once_to_a_node


@pytest.mark.parametrize(("nodes", "copies"), [(1, 3), (2, 1), (2, 2), (2, 4), (4, 2), (5, 3)])
def test_it_is_the_mean_number_of_nodes_that_drawn_experts_lie_on(nodes: int, copies: int) -> None:
    draws = list(itertools.product(range(nodes), repeat=copies))
    mean = sum(len(set(draw)) for draw in draws) / len(draws)
    share = float(once_to_a_node(copies, 8 * nodes, 1, 8))
    assert share == pytest.approx(mean / copies if nodes > 1 else 1.0)


def test_a_group_inside_a_node_sends_everything() -> None:
    assert once_to_a_node(8, 4, 2, 8) == 1.0
    assert once_to_a_node(8, 4, 4, 8) < 1.0


def test_columns_are_their_rows() -> None:
    ranks, stride = np.array([1, 2, 8, 8, 64]), np.array([1, 8, 1, 2, 1])
    column = once_to_a_node(6, ranks, stride, 8)
    rows = [float(once_to_a_node(6, n, s, 8)) for n, s in zip(ranks, stride, strict=True)]
    assert column.tolist() == rows
    assert ((column > 0) & (column <= 1)).all()
