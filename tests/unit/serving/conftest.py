"""One small run and its bundle, made once for all tests of the layer."""

from dataclasses import replace
from pathlib import Path

import pytest
from tritower.serving import bundling
from tritower.serving.ranking import Ranking

from tests.support import bundles, counted_board
from tests.support.bundles import Run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A generated log and what the steps made of it."""
    return bundles.run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def bundle_folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `run`; not to be changed."""
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    bundling.write(run.sources, folder)
    return folder


@pytest.fixture(scope="session")
def other_folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of another model of the same log; not to be changed."""
    folder = tmp_path_factory.mktemp("other")
    for name in ("features", "embeddings"):
        (folder / name).symlink_to(getattr(run.sources, name))
    bundling.write(replace(run.sources, model=bundles.random_ranker(folder, seed=1)), folder / "bundle")
    return folder / "bundle"


@pytest.fixture(scope="session")
def ranking(bundle_folder: Path) -> Ranking:
    """The bundle, opened; for tests that change no state."""
    return Ranking.open(bundle_folder)


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small board with a state, for what counts events; not to be changed."""
    return counted_board.build(tmp_path_factory.mktemp("board"))
