"""The tiny raw log as a fixture."""

from pathlib import Path

import pytest

from tests.support.ingest_log import Log


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)
