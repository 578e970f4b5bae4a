"""A search without candidates: the batch's own list, filters, new clicks and adverts, and reasons that add up."""

import datetime as dt
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tritower.recommend import step
from tritower.recommend.clicks import Clicks
from tritower.recommend.config import CandidatesConfig
from tritower.recommend.index import Index
from tritower.schema import RAW_JOBS
from tritower.serving.messages import Filters, PastClick, Question, Visitor
from tritower.serving.ranking import Ranking
from tritower.serving.retrieval import Retrieval

from tests.support.bundles import Run

HOUR = 3_600_000_000


class Board:
    """The run's dataset in the words of a question."""

    def __init__(self, run: Run) -> None:
        self.dataset = run.sources.dataset
        self.matrix_TD = np.load(run.sources.embeddings / "matrix.npy")
        self.texts = pq.read_table(self.dataset / "texts.parquet")["value"].to_pylist()
        self.row = {text: row for row, text in enumerate(self.texts)}
        self.jobs = pq.read_table(self.dataset / "jobs.parquet")
        self.users = pq.read_table(self.dataset / "users.parquet").to_pylist()

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return self.matrix_TD[[self.row[text] for text in texts]]

    def profile(self, user: int) -> list[str]:
        given = self.users[user]
        return [self.texts[text] for text in (*given["interest_texts"], *given["past_title_texts"])]

    def question(self, request: dict) -> Question:
        return Question(
            query=self.texts[request["query_text"]], user_id=self.users[request["user"]]["user_id"], city=request["city"],
            region=request["region"], country=request["country"],
        )  # fmt: skip

    def events(self) -> pa.Table:
        """Every click of the log."""
        parts = [pq.read_table(part) for part in sorted((self.dataset / "impressions").rglob("*.parquet"))]
        rows = pa.concat_tables(parts).filter(pc.field("clicked"))
        text, user = pa.array(self.texts), pa.array([one["user_id"] for one in self.users])
        return pa.table({
            "ts": rows["ts"], "user_id": user.take(rows["user"].combine_chunks()), "clicked": rows["clicked"],
            "query": text.take(rows["query_text"].combine_chunks()), "clicked_at": rows["clicked_at"],
            "job_id": self.jobs["job_id"].take(rows["job"]),
        })  # fmt: skip


@pytest.fixture(scope="module")
def board(run: Run) -> Board:
    return Board(run)


@pytest.fixture
def retrieval(bundle_folder: Path) -> Retrieval:
    return Retrieval.open(bundle_folder / "index", bundle_folder / "clicks")


@pytest.fixture(scope="module")
def batch(board: Board, run: Run, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict, list[str]]]:
    """Searches, and what the step `candidates` finds for each."""
    out = tmp_path_factory.mktemp("batch") / "candidates"
    config = CandidatesConfig(searches=60, split="all", recent_share=1.0, candidates_per_search=200)
    step.candidates(dataset=board.dataset, embeddings=run.sources.embeddings, candidates=out, config=config)
    rows, ids = pq.read_table(out / "candidates"), board.jobs["job_id"].to_pylist()
    found: dict[int, list[str]] = {}
    for request, job in zip(rows["request"].to_pylist(), rows["job"].to_pylist(), strict=True):
        found.setdefault(request, []).append(ids[job])
    return [(request, found[request["request"]]) for request in pq.read_table(out / "requests.parquet").to_pylist()]


def asked(board: Board, retrieval: Retrieval, request: dict) -> list[str]:
    ts = round(request["ts"].timestamp() * 1_000_000)
    return retrieval.search(board.question(request), ts, board.embed, board.profile(request["user"]))


def test_the_batch_and_the_server_find_the_same_jobs(
    board: Board, retrieval: Retrieval, batch: list[tuple[dict, list[str]]]
) -> None:
    sorts = Counter()
    for request, wanted in batch:
        assert asked(board, retrieval, request) == wanted
        sorts[bool(board.texts[request["query_text"]]), bool(board.profile(request["user"]))] += 1
    assert len(sorts) >= 3 and min(len(wanted) for _, wanted in batch) > 20


def test_clicks_that_were_observed_count_as_those_of_the_log(
    board: Board, bundle_folder: Path, batch: list[tuple[dict, list[str]]]
) -> None:
    none = Clicks.build(
        user_E=pa.array([], pa.string()), job_E=np.empty(0, np.int64), query_text_E=np.empty(0, np.int64),
        clicked_us_E=np.empty(0, np.int64), text_T=pa.array(board.texts), matrix_TD=board.matrix_TD,
    )  # fmt: skip
    online = Retrieval(Index.open(bundle_folder / "index"), none)
    assert any(asked(board, online, request) != wanted for request, wanted in batch)
    events = board.events()
    for part in np.array_split(np.random.default_rng(0).permutation(len(events)), 5):
        online.observe(events.take(pa.array(part)), board.embed)
    for request, wanted in batch:
        assert asked(board, online, request) == wanted


def test_a_visitors_clicks_are_those_of_the_question(
    board: Board, retrieval: Retrieval, batch: list[tuple[dict, list[str]]]
) -> None:
    """A visitor with the past of a user gets the user's jobs; an unknown job counts for nothing."""
    clicks = Counter(board.events()["user_id"].to_pylist())
    request, user = next(
        (one, board.users[one["user"]]["user_id"]) for one, _ in reversed(batch) if clicks[board.users[one["user"]]["user_id"]]
    )
    own = [one for one in board.events().to_pylist() if one["user_id"] == user]
    past = tuple(
        PastClick(job_id=one["job_id"], ts=round((one["clicked_at"] or one["ts"]).timestamp() * 1_000_000)) for one in own
    )
    question, ts = board.question(request), round(request["ts"].timestamp() * 1_000_000)
    described = Visitor(interests=tuple(board.profile(request["user"])), clicks=(*past, PastClick(job_id="no such job", ts=0)))
    one = Question(query=question.query, city=question.city, region=question.region, visitor=described)
    assert retrieval.search(one, ts, board.embed, described.interests) == asked(board, retrieval, request)


def test_new_changed_and_expired_adverts(board: Board, retrieval: Retrieval, batch: list[tuple[dict, list[str]]]) -> None:
    request, before = next((request, found) for request, found in batch if board.texts[request["query_text"]])
    query, now = board.texts[request["query_text"]], request["ts"]
    row = board.jobs["job_id"].to_pylist().index(before[0])
    gone = board.jobs.slice(row, 1).select(RAW_JOBS.names()).to_pylist()[0] | {"expires_at": now - dt.timedelta(days=1)}
    fresh = gone | {"job_id": "brand new", "title": query, "expires_at": None, "posted_at": now - dt.timedelta(days=1)}
    fresh |= {"city": request["city"], "region": request["region"]}
    document = {f"{query}, {fresh['company']}": query}

    def embed(texts: Sequence[str]) -> np.ndarray:
        return board.embed([document.get(text, text) for text in texts])

    retrieval.update(pa.Table.from_pylist([fresh, gone], schema=RAW_JOBS.arrow()), embed)
    after = asked(board, retrieval, request)
    assert after.index("brand new") < 3 and before[0] not in after
    assert set(before) - set(after) <= {before[0], *before[-3:]}


def test_what_a_filter_leaves_out_is_not_found(board: Board, ranking: Ranking) -> None:
    jobs = {job["job_id"]: job for job in board.jobs.to_pylist()}
    city, count = Counter(job["city"] for job in jobs.values() if job["city"]).most_common(1)[0]
    company = Counter(job["company"] for job in jobs.values() if job["city"] == city).most_common(1)[0][0]
    ts = (ranking._features.last_ts or 0) + HOUR
    filters = Filters(city=city.upper(), without_companies=(f" {company.lower()}",))
    answer = ranking.answer(Question(query="nurse", ts=ts, k=500, filters=filters))
    assert 0 < len(answer.jobs) < count
    assert all(job.city == city and job.company != company for job in answer.jobs)


def test_reasons_add_up(board: Board, ranking: Ranking, batch: list[tuple[dict, list[str]]]) -> None:
    for request, _ in batch[-5:]:
        question = board.question(request)
        asked_why = Question(
            query=question.query, user_id=question.user_id, city=question.city, region=question.region, explain=True,
            ts=round(request["ts"].timestamp() * 1_000_000),
        )  # fmt: skip
        answer = ranking.answer(asked_why)
        assert len(answer.jobs) == 10 and answer.median_score is not None
        for job in answer.jobs:
            total = sum(reason.value for reason in job.reasons or ())
            assert total == pytest.approx(_logit(job.score) - _logit(answer.median_score), abs=1e-5)
        plain = ranking.answer(Question(query=question.query, user_id=question.user_id, ts=asked_why.ts))
        assert plain.median_score is None and all(job.reasons is None for job in plain.jobs)


def _logit(score: float) -> float:
    return math.log(score / (1 - score))
