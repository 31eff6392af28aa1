"""One hypothesis profile for all tests: no clocks (speed is shown in benchmarks).

`make test` runs two workers. A file's tests stay together, for what they share is made once a
worker; so do all files whose tests start ranks: two such tests at once would want four times the
cores.
"""

import pytest
from hypothesis import settings

settings.register_profile("meshwright", deadline=None)
settings.load_profile("meshwright")

RANKS = ("tests/executor/", "tests/laboratory/", "tests/profiler/", "tests/test_promises.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        file = item.nodeid.partition("::")[0]
        group = "ranks" if file.startswith(RANKS) else file
        item.add_marker(pytest.mark.xdist_group(group))
