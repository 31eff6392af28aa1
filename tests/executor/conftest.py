from collections.abc import Iterator

import pytest

from tests.executor import pool as pools


@pytest.fixture(scope="session")
def pool() -> Iterator[pools.Pool]:
    with pools.started() as pool:
        yield pool
