"""The scaling curve: whole nodes or a part of one, speed-up against the first."""

import pytest

from planner.search import scaling
from planner.spec import catalog
from planner.spec.documents import InputError
from tests.examples import blocks, gpu_cluster, llama_like


def test_curve_is_relative_to_the_first() -> None:
    asked = blocks(llama_like(layers=8), gpu_cluster(nodes=2))
    rows = scaling.curve(asked, [1, 4, 8, 16])
    assert rows[0]["speedup"] == 1.0
    for row in rows:
        assert row["efficiency"] == pytest.approx(row["speedup"] / row["devices"])


def test_a_number_without_a_plan_is_kept_and_explained() -> None:
    asked = blocks(cluster=gpu_cluster(nodes=2, memory="1GB"))
    small = blocks(llama_like(layers=12, vocab=400_000), gpu_cluster(nodes=2, memory="0.2GB"))
    assert scaling.curve(asked, [8])[0]["step_seconds"] is not None
    rows = scaling.curve(small, [1, 16])
    assert rows[0]["step_seconds"] is None
    assert rows[0]["plan"].startswith("no plan fits")
    assert rows[1]["speedup"] == 1.0


@pytest.mark.parametrize(("devices", "message"), [(12, "multiple of 8"), (20, "multiple of 8")])
def test_broken_nodes_are_refused(devices: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scaling.resized(gpu_cluster(nodes=2), devices)


def test_one_node_does_not_grow_by_itself() -> None:
    """The name that the error tells is a cluster that does."""
    with pytest.raises(InputError, match=r"nodes \(h100-sxm:2\)") as caught:
        scaling.resized(catalog.find_cluster("h100-sxm"), 16)
    told = str(caught.value).rpartition("(")[2].rstrip(")")
    assert scaling.resized(catalog.find_cluster(told), 32).devices == 32


@pytest.mark.parametrize("text", ["", "8,x", "0", "8,-1"])
def test_counts_must_be_numbers(text: str) -> None:
    with pytest.raises(InputError, match="8,16,32"):
        scaling.read_counts(text)
