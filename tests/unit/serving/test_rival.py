"""The baseline's order beside the model's."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tritower.baseline import step as baseline
from tritower.baseline.config import BaselineConfig
from tritower.errors import ArtifactError
from tritower.serving import step
from tritower.serving.messages import Question
from tritower.serving.ranking import Ranking
from tritower.serving.rival import Rival

from tests.support.bundles import Run


@pytest.fixture(scope="module")
def trained(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline of a few trees, and its scores, of the small run."""
    folder = tmp_path_factory.mktemp("baseline")
    config = BaselineConfig(variant="cosines", search_trials=0, rounds=8)
    places = {"model": folder / "model", "scores": folder / "scores"}
    baseline.run(features=run.sources.features, embeddings=run.sources.embeddings, **places, config=config)
    return folder


def test_its_scores_are_those_of_the_step(run: Run, trained: Path) -> None:
    rival = Rival.load(trained / "model")
    rows = pq.read_table(run.sources.features / "test", columns=rival.names)
    expected = pq.read_table(trained / "scores" / "test.parquet", partitioning=None)["score"].to_numpy()
    assert len(set(expected.tolist())) > 5
    scores = rival.scores({name: rows[name].to_numpy() for name in rival.names})
    assert scores.tobytes() == expected.astype(np.float32).tobytes()


def test_a_bundle_with_a_baseline_tells_its_order_of_the_same_jobs(run: Run, trained: Path, tmp_path: Path) -> None:
    folders = {name: folder for name, folder in vars(run.sources).items() if folder}
    step.bundle(**folders, baseline=trained / "model", out=tmp_path / "bundle")
    ranking = Ranking.open(tmp_path / "bundle")
    ids = tuple(pq.read_table(run.sources.dataset / "jobs.parquet")["job_id"].to_pylist()[:60])
    question = Question(query="nurse", candidates=ids, k=1_000, ts=(ranking._features.last_ts or 0) + 1)
    answer, other = ranking.answer(question), ranking.rival(question)
    assert other is not None and len(other.jobs) > 20
    seen = [{(job.title.lower(), job.company.lower()) for job in one.jobs} for one in (answer, other)]
    assert seen[0] == seen[1]
    assert [job.score for job in other.jobs] == sorted((job.score for job in other.jobs), reverse=True)
    assert [job.job_id for job in other.jobs] != [job.job_id for job in answer.jobs]
    nothing = ranking.rival(dataclasses.replace(question, candidates=("of", "another", "board")))
    assert nothing is not None and nothing.jobs == ()


def test_a_bundle_without_one_says_so(ranking: Ranking) -> None:
    assert ranking.rival(Question(query="nurse")) is None


def test_a_baseline_that_no_server_can_compute_is_refused(tmp_path: Path) -> None:
    (tmp_path / "baseline.json").write_text('{"config": {"variant": "full"}}')
    with pytest.raises(ArtifactError, match="a server cannot show a baseline of the variant 'full'"):
        Rival.check(tmp_path)
