"""A small log with known relevance and examination, made once for all tests of the room."""

from pathlib import Path

import pytest

from tests.support import shared
from tests.support.ranker_log import Log, write_log
from tests.support.ranker_training import SMALL, train


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """800 searches to train on, 200 to validate, 200 to test."""
    return write_log(tmp_path_factory.mktemp("log"), requests={"train": 800, "validation": 200, "test": 200})


@pytest.fixture(scope="session")
def one(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of an undisturbed single process."""
    return shared.once(tmp_path_factory, "ranker-one", lambda folder: train(log, folder, SMALL)) / "model"
