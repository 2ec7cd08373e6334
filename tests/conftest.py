"""Settings for all tests."""

import os

from hypothesis import settings

# No deadlines: a loaded machine is slow. In CI the same examples every time.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
