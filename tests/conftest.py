"""One hypothesis profile for all tests: no clocks (speed is shown in benchmarks).

`make test` runs two workers. A file's tests stay together, for what they share is made once a
worker.
"""

from hypothesis import settings

settings.register_profile("meshwright", deadline=None)
settings.load_profile("meshwright")
