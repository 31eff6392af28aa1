"""One hypothesis profile for all tests: no clocks (speed is shown in benchmarks)."""

from hypothesis import settings

settings.register_profile("meshwright", deadline=None)
settings.load_profile("meshwright")
