"""Attempt after attempt in one store, with ranks that come in any order and some that never do."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch import distributed as dist

from executor.rendezvous import agree

LONG, SHORT = timedelta(seconds=20), timedelta(seconds=0.1)


def test_every_attempt_agrees_on_a_name_of_its_own() -> None:
    store, names = dist.HashStore(), set[str]()
    for ranks, order in ((3, (2, 1, 0)), (3, (0, 1, 2)), (2, (1, 0)), (4, (3, 0, 2, 1))):
        with ThreadPoolExecutor() as threads:
            found = [threads.submit(agree, store, rank, ranks, LONG) for rank in order]
            (name,) = {each.result() for each in found}
        assert name not in names
        names.add(name)


def test_a_dead_attempt_is_not_joined() -> None:
    store = dist.HashStore()
    with ThreadPoolExecutor() as threads:
        for rank in (0, 1):
            threads.submit(agree, store, rank, 2, LONG)
    with pytest.raises(TimeoutError, match="rank 0 did not answer"):
        agree(store, 1, 2, SHORT)
