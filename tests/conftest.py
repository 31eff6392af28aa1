"""One hypothesis profile for all tests: no clocks (speed is shown in benchmarks), and the same
cases every time, unless FRESH_DRAWS asks for others.

`make test` runs a few workers. A file's tests stay together, for what they share is made once a
worker.
"""

import os

from hypothesis import settings

FRESH = "FRESH_DRAWS" in os.environ
settings.register_profile("meshwright", deadline=None, derandomize=not FRESH)
settings.load_profile("meshwright")
