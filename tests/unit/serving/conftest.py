"""One small run and its bundle, made once for all tests of the layer and all processes that run them."""

from dataclasses import replace
from pathlib import Path

import pytest
from tritower.serving import bundling
from tritower.serving.ranking import Ranking

from tests.support import bundles, counted_board, shared
from tests.support.bundles import Run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A generated log and what the steps made of it; not to be changed."""
    return bundles.found(shared.once(tmp_path_factory, "serving-run", bundles.run))


@pytest.fixture(scope="session")
def bundle_folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `run`; not to be changed."""
    made = shared.once(tmp_path_factory, "serving-bundle", lambda folder: bundling.write(run.sources, folder / "bundle"))
    return made / "bundle"


@pytest.fixture(scope="session")
def other_folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of another model of the same log; not to be changed."""

    def make(folder: Path) -> None:
        for name in ("features", "embeddings"):
            (folder / name).symlink_to(getattr(run.sources, name))
        bundling.write(replace(run.sources, model=bundles.random_ranker(folder, seed=1)), folder / "bundle")

    return shared.once(tmp_path_factory, "serving-other", make) / "bundle"


@pytest.fixture(scope="session")
def ranking(bundle_folder: Path) -> Ranking:
    """The bundle, opened; for tests that change no state."""
    return Ranking.open(bundle_folder)


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small board with a state, for what counts events; not to be changed."""
    return shared.once(tmp_path_factory, "serving-board", counted_board.build)
