"""The board as fixtures."""

from pathlib import Path

import pytest

from tests.support import board


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return board.write_dataset(tmp_path / "dataset")


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    return board.write_embeddings(tmp_path / "embeddings")
