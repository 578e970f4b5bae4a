"""A small log with known relevance and examination, made once for all tests of the room."""

import pytest

from tests.support.ranker_log import Log, write_log


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """800 searches to train on, 200 to validate, 200 to test."""
    return write_log(tmp_path_factory.mktemp("log"), requests={"train": 800, "validation": 200, "test": 200})
