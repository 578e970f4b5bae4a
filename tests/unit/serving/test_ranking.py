"""Answers with given candidates: the scores of the step `score`, the order of the step `recommend`."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tritower import storage
from tritower.ranker import artifact
from tritower.ranker.scoring import Scorer
from tritower.serving.catalogue import same_advert
from tritower.serving.messages import Question
from tritower.serving.ranking import Ranking

from tests.support.bundles import Run


@pytest.fixture(scope="module")
def job_ids(run: Run) -> list[str]:
    return pq.read_table(run.sources.dataset / "jobs.parquet")["job_id"].to_pylist()


def test_scores_are_those_of_torch_on_the_features_read(ranking: Ranking, run: Run, job_ids: list[str]) -> None:
    """By hand: the features that the state has now, through the torch model, descriptions included."""
    dataset = run.sources.dataset
    query = next(
        row["value"] for row in pq.read_table(dataset / "texts.parquet").to_pylist() if row["is_query"] and row["value"]
    )
    user = pq.read_table(dataset / "users.parquet")["user_id"][3].as_py()
    asked = job_ids[:40]
    ts = ranking._features.last_ts or 0
    question = Question(query=query, user_id=user, city="Austin", region="TX", ts=ts + 1, candidates=tuple(asked), k=100)
    answer = ranking.answer(question)
    jobs, texts = pq.read_table(dataset / "jobs.parquet").slice(0, 40), pq.read_table(dataset / "texts.parquet")["value"]
    from tritower.features.online import Request

    columns = ranking._features.read(Request(ts=ts + 1, user_id=user, query=query, city="Austin", region="TX"), asked)
    loaded = artifact.load(run.sources.model)
    scorer = Scorer(loaded, np.load(run.sources.embeddings / "matrix.npy"))
    description_N1 = jobs["description_text"].fill_null(-1).to_numpy().astype(np.int32)[:, None]
    expected = scorer.score(
        np.full(40, texts.to_pylist().index(query)), jobs["document_text"].to_numpy(),
        np.ascontiguousarray(np.stack([columns[name] for name in loaded.names]).T), description_N1,
    )  # fmt: skip
    score_of = dict(zip(asked, expected.tolist(), strict=True))
    assert len(answer.jobs) > 20
    for job in answer.jobs:
        assert job.score == pytest.approx(score_of[job.job_id], abs=1e-6)
    assert [job.rank for job in answer.jobs] == list(range(1, len(answer.jobs) + 1))
    assert [job.score for job in answer.jobs] == sorted((job.score for job in answer.jobs), reverse=True)
    assert len({score_of[job_id] for job_id in asked}) > 20


def test_each_advert_comes_once_and_all_others_do(ranking: Ranking, run: Run, job_ids: list[str]) -> None:
    answer = ranking.answer(Question(query="nurse", candidates=tuple(job_ids), k=10_000))
    jobs = {row["job_id"]: row for row in pq.read_table(run.sources.dataset / "jobs.parquet").to_pylist()}
    keys = [same_advert(job.title, job.company) for job in answer.jobs]
    assert len(set(keys)) == len(keys) == len({same_advert(row["title"], row["company"]) for row in jobs.values()})
    for job in answer.jobs:
        assert (job.title, job.company, job.city) == tuple(jobs[job.job_id][name] for name in ("title", "company", "city"))


def test_k_cuts_and_unknown_candidates_are_named(ranking: Ranking, job_ids: list[str]) -> None:
    answer = ranking.answer(Question(query="nurse", candidates=("no such job", *job_ids[:9], job_ids[0], ""), k=4))
    assert (len(answer.jobs), answer.unknown) == (4, ("no such job", ""))
    assert ranking.answer(Question(query="nurse", candidates=("no such job",))).jobs == ()
    assert ranking.answer(Question(query="nurse", candidates=())).jobs == ()


@pytest.mark.parametrize("query", ["", "   ", "a query that nobody has typed", "x" * 100_000, "\x00", "водитель 日本"])
def test_any_query_and_nobody_known_get_an_answer(ranking: Ranking, job_ids: list[str], query: str) -> None:
    answer = ranking.answer(Question(query=query, user_id="nobody", candidates=tuple(job_ids[:20])))
    assert len(answer.jobs) == 10
    assert all(0 < job.score < 1 for job in answer.jobs)


def test_an_answer_says_what_gave_it(ranking: Ranking, bundle_folder: Path, job_ids: list[str]) -> None:
    answer = ranking.answer(Question(query="nurse", candidates=tuple(job_ids[:3]), request_id="mine", ts=5))
    assert (answer.request_id, answer.ts, answer.versions.name) == ("mine", 5, "main")
    join = storage.read_json(bundle_folder / "ranker" / "join.json")
    assert (answer.versions.model, answer.versions.encoder) == (join["model"], join["encoder"]["hash"])
    assert answer.versions.state.startswith("2026-0")
    other = ranking.answer(Question(query="nurse", candidates=tuple(job_ids[:3])))
    assert len(other.request_id) == 32 and other.ts > 1_700_000_000_000_000


def test_the_same_advert_whatever_its_white_space_and_case() -> None:
    assert same_advert(" Truck  driver", "HAUL CO") == same_advert("Truck\tDriver ", "Haul Co")
    assert same_advert("Truck driver", "Haul Co") != same_advert("Truckdriver", "Haul Co")
