"""A small evaluated log, made once for all tests of the room."""

import pytest

from tests.support.evaluation_log import write_log


@pytest.fixture(scope="session")
def log(tmp_path_factory):
    """The root folder of one such log."""
    return write_log(tmp_path_factory.mktemp("evaluated") / "log")


@pytest.fixture
def write():
    """`write_log`, for tests that want another log."""
    return write_log
