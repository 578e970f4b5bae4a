"""A small log with known relevance, made once for all tests of the room."""

import pytest

from tests.support.baseline_log import write_log


@pytest.fixture(scope="session")
def log(tmp_path_factory):
    """(root folder, relevance by split)."""
    root = tmp_path_factory.mktemp("log")
    return root, write_log(root)


@pytest.fixture
def write():
    """`write_log`, for tests that want another log."""
    return write_log
