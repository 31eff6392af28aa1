"""What the search finds is never worse than a published layout that it could have found."""

from planner.spec.runs.case import Case
from reports.planning.problems import PROBLEMS
from reports.planning.published import compared, configurations


def test_fine_tuning_is_counted_and_two_measurements_are_one_configuration() -> None:
    found, skipped = configurations(("nemo_2407",))
    assert sum(skipped.values()) + sum(len(each.measured_seconds) for each in found) == 36
    assert all(len(each.measured_seconds) == 2 for each in found)
    assert all(isinstance(each.case, Case) for each in found)


def test_found_is_no_slower_than_a_published_layout_of_the_space() -> None:
    found, _ = configurations(("megatron_sc21_table1",))
    got = compared(found[0])
    assert not got.outside
    assert got.gain >= -1e-9


def test_four_of_eight() -> None:
    asked = next(each for each in PROBLEMS if each.devices == 4).asked()
    assert asked.cluster.devices == 4
