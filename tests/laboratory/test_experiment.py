"""What the laboratory concludes from its trials."""

import pytest

from laboratory import links
from laboratory.__main__ import _broken
from laboratory.experiment import Trial, summary
from laboratory.topology import TOPOLOGIES, Topology


def test_summary() -> None:
    found = [Trial("t", "a", 1.0, 1.1), Trial("t", "b", 2.0, 1.0), Trial("t", "c", 3.0, 4.0)]
    said = summary("t", found)
    assert said.best_loss == pytest.approx(0.1)
    assert said.median_error == pytest.approx(0.25)
    assert said.rank_correlation == pytest.approx(0.5)
    assert len(_broken(found, [said])) == 3


def test_promises_that_are_kept() -> None:
    found = [Trial("t", "a", 1.0, 1.02), Trial("t", "b", 2.0, 1.9)]
    assert _broken(found, [summary("t", found)]) == []


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=lambda each: each.name)
def test_every_group_of_a_layout_is_measured(topology: Topology) -> None:
    asked = links.requests(topology)
    assert all(request.busy <= topology.ranks for request in asked)
    shapes = {(request.ranks, request.stride) for request in asked}
    assert {(2, 1), (2, 2), (4, 1)} <= shapes
    assert {request.op for request in asked} == set(links.OPS)
