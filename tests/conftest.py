"""Settings and fixtures for all tests."""

from hypothesis import settings

pytest_plugins = ["tests.support.s3"]

# A deadline measures how busy the machine is: what has to be fast is asserted where it matters.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
