"""Answers with given candidates: the scores of the step `score`, the order of the step `recommend`."""

import dataclasses
import datetime as dt
import math
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower import storage
from tritower.errors import ConfigError
from tritower.features import step as features
from tritower.features.config import FeaturesConfig
from tritower.features.online import Request
from tritower.ranker import artifact
from tritower.ranker import step as ranker
from tritower.ranker.scoring import Scorer
from tritower.recommend import step as recommend
from tritower.recommend.config import CandidatesConfig, RecommendConfig
from tritower.serving import bundle, retrieval, slimming
from tritower.serving.catalogue import same_advert
from tritower.serving.messages import Filters, Near, PastClick, PastSearch, Question, Visitor
from tritower.serving.ranking import Ranking

from tests.support import family
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


def test_a_batch_and_an_online_answer_are_the_same_list(
    ranking: Ranking, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retrieval, features, scores, ties and duplicates: every search of the last split, asked just after the log's end."""
    own, chosen = run.sources, tmp_path / "candidates"
    config = CandidatesConfig(searches=1000, recent_share=1.0, answer_at="end", candidates_per_search=30)
    recommend.candidates(dataset=own.dataset, embeddings=own.embeddings, candidates=chosen, config=config)
    features.run(
        dataset=own.dataset, embeddings=own.embeddings, entities=own.entities, features=tmp_path / "features",
        candidates=chosen, config=FeaturesConfig(),
    )  # fmt: skip
    ranker.score(features=tmp_path / "features", embeddings=own.embeddings, model=own.model, scores=tmp_path / "scores")
    best = tmp_path / "best.parquet"
    recommend.run(
        dataset=own.dataset, candidates=chosen, scores=tmp_path / "scores", recommendations=best, config=RecommendConfig()
    )
    batch: dict[int, list[tuple[str, float]]] = {}
    for row in pq.read_table(best).to_pylist():
        batch.setdefault(row["request"], []).append((row["job_id"], row["score"]))
    users = pq.read_table(own.dataset / "users.parquet")["user_id"].to_pylist()
    texts = pq.read_table(own.dataset / "texts.parquet")["value"].to_pylist()
    requests = pq.read_table(chosen / "requests.parquet").to_pylist()
    monkeypatch.setattr(retrieval, "CANDIDATES", 30)
    assert len(batch) > 10
    for row in requests:
        asked = Question(
            query=texts[row["query_text"]], user_id=users[row["user"]], city=row["city"], region=row["region"],
            country=row["country"], ts=round(row["ts"].timestamp() * 1e6),
        )  # fmt: skip
        found = ranking.answer(asked).jobs
        assert [job.job_id for job in found] == [job_id for job_id, _ in batch[row["request"]]]
        np.testing.assert_allclose([job.score for job in found], [score for _, score in batch[row["request"]]], atol=1e-6)


def test_filters_hold_for_retrieved_and_for_given_jobs(ranking: Ranking, run: Run, job_ids: list[str]) -> None:
    jobs = {row["job_id"]: row for row in pq.read_table(run.sources.dataset / "jobs.parquet").to_pylist()}
    some = next(row for row in jobs.values() if row["city"])
    since = sorted(row["posted_at"] for row in jobs.values())[len(jobs) // 2]
    filters = Filters(region=f" {some['region'].lower()} ", posted_since=round(since.timestamp() * 1e6),
                      without_companies=(some["company"].upper(),))  # fmt: skip
    wanted = {
        job_id for job_id, row in jobs.items()
        if row["region"] == some["region"] and row["posted_at"] >= since and row["company"] != some["company"]
    }  # fmt: skip
    assert 0 < len(wanted) < len(jobs) // 2
    ts = 10**6 * int(dt.datetime(2026, 1, 30, tzinfo=dt.UTC).timestamp())
    for candidates in (None, tuple(job_ids)):
        found = ranking.answer(Question(query="nurse", filters=filters, candidates=candidates, k=1000, ts=ts))
        assert found.jobs and {job.job_id for job in found.jobs} <= wanted and not found.unknown


def km_between(one: dict[str, Any], north: float, east: float) -> float:
    """Great-circle distance by the law of cosines, in doubles; infinite where a job has no coordinates."""
    if one["latitude"] is None:
        return math.inf
    a, b, across = math.radians(one["latitude"]), math.radians(north), math.radians(one["longitude"] - east)
    cosine = math.sin(a) * math.sin(b) + math.cos(a) * math.cos(b) * math.cos(across)
    return 6371.0088 * math.acos(min(1.0, cosine))


def test_jobs_near_a_place(ranking: Ranking, run: Run, job_ids: list[str]) -> None:
    """By coordinates, by name, and around the place searched in; retrieved and given, against all pairs by hand."""
    jobs = {row["job_id"]: row for row in pq.read_table(run.sources.dataset / "jobs.parquet").to_pylist()}
    unplaced = sum(row["latitude"] is None for row in jobs.values())
    assert 0 < unplaced < len(jobs) // 5
    here = next(row for row in jobs.values() if row["latitude"] is not None)
    town = [row for row in jobs.values() if (row["city"], row["region"]) == (here["city"], here["region"])]
    placed = [row for row in town if row["latitude"] is not None]
    middle = tuple(sum(row[name] for row in placed) / len(placed) for name in ("latitude", "longitude"))
    ts = 10**6 * int(dt.datetime(2026, 1, 30, tzinfo=dt.UTC).timestamp())
    place = {name: here[name] for name in ("city", "region", "country")}
    point = {"latitude": middle[0], "longitude": middle[1]}
    for km in (4.0, 40.0, 400.0):
        wanted = {job_id for job_id, row in jobs.items() if km_between(row, *middle) <= km}
        surely = {job_id for job_id, row in jobs.items() if km_between(row, *middle) <= km - 0.05}  # another middle by metres
        assert surely
        for near, more in (
            (Near(km=km, **point), {}), (Near(km=km, place=f"{here['city']}, {here['region']}"), {}), (Near(km=km), place),
        ):  # fmt: skip
            asked = Question(query="nurse", filters=Filters(near=near), candidates=tuple(job_ids), k=1000, ts=ts, **more)
            answer = ranking.answer(asked)
            found = {job.job_id for job in answer.jobs}
            adverts = {same_advert(jobs[job_id]["title"], jobs[job_id]["company"]) for job_id in surely}
            perhaps = {job_id for job_id, row in jobs.items() if km_between(row, *middle) <= km + 0.05}
            assert found <= perhaps
            assert {same_advert(job.title, job.company) for job in answer.jobs} >= adverts and not answer.unknown
            if near.latitude is not None:
                assert found <= wanted
            assert answer.warnings == (
                f"{unplaced} of {len(jobs)} jobs have no coordinates and are left out where a distance is asked for",
            )
            retrieved = ranking.answer(dataclasses.replace(asked, candidates=None)).jobs
            assert {job.job_id for job in retrieved} <= perhaps and (retrieved or km < 40)
    both = ranking.answer(Question(query="", filters=Filters(near=Near(km=20_040, **point)), candidates=tuple(job_ids), k=9999))
    assert {job.job_id for job in both.jobs} <= {job_id for job_id, row in jobs.items() if row["latitude"] is not None}
    assert not ranking.answer(Question(query="nurse", candidates=tuple(job_ids[:3]))).warnings


@pytest.mark.parametrize(
    ("near", "said"),
    [
        (Near(km=5, place="Atlantis"), "no job is in a place called 'Atlantis'"),
        (Near(km=5), "a distance needs a place"),
    ],
)
def test_a_distance_from_nowhere_is_refused(ranking: Ranking, near: Near, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        ranking.answer(Question(query="nurse", filters=Filters(near=near)))
    assert caught.value.where == "filters.near"


def test_a_bundle_whose_jobs_have_no_coordinates_says_so(run: Run, bundle_folder: Path, tmp_path: Path) -> None:
    """One of a dataset from before there were any."""
    own, dataset, parts, folder = run.sources, tmp_path / "dataset", tmp_path / "parts", tmp_path / "bundle"
    shutil.copytree(own.dataset, dataset, ignore=shutil.ignore_patterns(".*"))
    jobs = pq.read_table(dataset / "jobs.parquet")
    pq.write_table(jobs.drop_columns(["latitude", "longitude"]), dataset / "jobs.parquet")
    parts.mkdir()
    slimming.write(dataset, own.embeddings, own.entities, parts, storage.read_json(own.embeddings / "encoder.json"))
    shutil.copytree(bundle_folder, folder)
    for part in ("dataset", "resident"):  # there was no `resident` either
        shutil.rmtree(folder / part)
    shutil.copytree(parts / "dataset", folder / "dataset")
    bundle.write(folder)
    ranking = Ranking.open(folder)
    assert not ranking.has_places and ranking.answer(Question(query="nurse", candidates=("job-1",))).warnings == ()
    for near in (Near(km=5, latitude=1, longitude=2), Near(km=5, place=jobs["city"][0].as_py())):
        with pytest.raises(ConfigError, match="the catalogue has no coordinates of jobs"):
            ranking.answer(Question(query="nurse", filters=Filters(near=near)))
    ranking.update(changed(raw_jobs(run).slice(0, 1), job_id="new", latitude=1.0, longitude=2.0))
    near = Filters(near=Near(km=5, latitude=1.01, longitude=2))
    found = ranking.answer(Question(query="nurse", filters=near, candidates=("new", jobs["job_id"][0].as_py())))
    assert ranking.has_places and [job.job_id for job in found.jobs] == ["new"]
    ranking.update(changed(raw_jobs(run).slice(0, 1), job_id="new", latitude=91.0, longitude=2.0))
    assert not ranking.has_places


def test_a_visitor_who_is_described_is_ranked_by_that(ranking: Ranking, run: Run, job_ids: list[str]) -> None:
    """Somebody whom the state knows, told in words, gets the list of the state; home and more clicks than told apart."""
    last = ranking._features.last_ts or 0
    told = next(
        past for user in ranking._features.busiest(50) if (past := ranking._features.past(user)).clicked == len(past.clicks)
        and past.searched == len(past.searches)
    )  # fmt: skip
    visitor = Visitor(
        interests=told.wanted_titles, past_titles=told.past_titles,
        clicks=tuple(PastClick(job_id=j, ts=t) for j, t in told.clicks),
        searches=tuple(PastSearch(query=q, ts=t) for q, t in told.searches),
    )  # fmt: skip
    asked = Question(query="nurse", visitor=visitor, ts=last + 5, candidates=tuple(job_ids[:30]), k=100)
    read = ranking._features.read
    user = next(one for one in ranking._features.busiest(50) if ranking._features.past(one) == told)
    known = read(Request(ts=last + 5, user_id=user, query="nurse"), job_ids[:30])
    seen: list[dict[str, np.ndarray]] = []
    ranking._features.read = lambda *given: seen.append(read(*given)) or seen[-1]  # type: ignore[method-assign,func-returns-value]
    try:
        ranking.answer(asked)
        ranking.answer(dataclasses.replace(asked, visitor=Visitor()))
    finally:
        ranking._features.read = read  # type: ignore[method-assign]
    rest = [name for name in known if not name.startswith("home_")]
    order = [job_ids[:30].index(job_id) for job_id in job_ids[:30]]
    for name in rest:
        np.testing.assert_array_equal(seen[0][name], known[name][order], err_msg=name)
    assert np.isnan(seen[1]["history_cos_max"]).all() and np.isfinite(seen[0]["history_cos_max"]).all()
    retrieved = ranking.answer(Question(query="", visitor=visitor, ts=last + 5))
    assert retrieved.jobs


def test_every_reason_is_told_when_asked_for(ranking: Ranking, job_ids: list[str]) -> None:
    answer = ranking.answer(Question(query="nurse", candidates=tuple(job_ids[:30]), explain=True))
    logits = [float(np.log(job.score / (1 - job.score))) for job in answer.jobs]
    totals = [sum(reason.value for reason in job.reasons or ()) for job in answer.jobs]
    middle = answer.median_score or 0.0
    np.testing.assert_allclose(logits, np.array(totals) + np.log(middle / (1 - middle)), atol=1e-5)
    plain = ranking.answer(Question(query="nurse", candidates=tuple(job_ids[:30])))
    assert all(job.reasons is None for job in plain.jobs)
    assert [job.job_id for job in plain.jobs] == [job.job_id for job in answer.jobs]


def raw_jobs(run: Run) -> pa.Table:
    return pq.read_table(run.log / "jobs.parquet")


def changed(jobs: pa.Table, **columns: object) -> pa.Table:
    """The first rows with other values in some columns."""
    for name, value in columns.items():
        at = jobs.schema.get_field_index(name)
        jobs = jobs.set_column(at, jobs.schema.field(at), pa.array([value] * len(jobs), jobs.schema.field(at).type))
    return jobs


def test_jobs_that_are_updated_to_what_they_are_change_nothing(run: Run, bundle_folder: Path, job_ids: list[str]) -> None:
    ranking = Ranking.open(bundle_folder)
    asked = [Question(query=query, candidates=some, k=500, ts=(ranking._features.last_ts or 0) + 1)
             for query in ("night nurse", "") for some in (tuple(job_ids), None)]  # fmt: skip
    before = [{job.job_id: job for job in ranking.answer(one).jobs} for one in asked]
    ranking.update(raw_jobs(run))
    for one, was in zip(asked, before, strict=True):
        now = {job.job_id: job for job in ranking.answer(one).jobs}
        assert len(now.keys() ^ was.keys()) <= 2  # a vector may round to another half
        for job_id in now.keys() & was.keys():
            assert dataclasses.replace(now[job_id], score=0.0, rank=0) == dataclasses.replace(was[job_id], score=0.0, rank=0)
            assert now[job_id].score == pytest.approx(was[job_id].score, abs=1e-3)


def test_new_changed_and_expired_adverts_come_in_while_it_serves(run: Run, bundle_folder: Path, job_ids: list[str]) -> None:
    ranking = Ranking.open(bundle_folder)
    ts = (ranking._features.last_ts or 0) + 1
    asked = Question(query="zookeeper of the night", ts=ts, k=3)
    title = "Zookeeper of the night"
    new = changed(raw_jobs(run).slice(0, 1), job_id="new", title=title, expires_at=None, occupation=None)
    assert ranking.answer(Question(query="x", candidates=("new",))).unknown == ("new",)
    ranking.update(new)
    first = ranking.answer(asked).jobs[0] if ranking.answer(asked).jobs[0].job_id == "new" else None
    scored = ranking.answer(Question(query="x", candidates=("new", job_ids[0]), ts=ts))
    assert {job.job_id for job in scored.jobs} == {"new", job_ids[0]} and not scored.unknown
    found = {job.job_id for job in ranking.answer(dataclasses.replace(asked, k=500)).jobs}
    assert "new" in found and (first is None or first.title == title)
    ranking.update(changed(raw_jobs(run).slice(1, 1), title=title))
    again = ranking.answer(Question(query="x", candidates=(job_ids[1],), ts=ts))
    assert again.jobs[0].title == title
    ranking.update(changed(new, expires_at=dt.datetime(2026, 1, 6, tzinfo=dt.UTC)))
    assert "new" not in {job.job_id for job in ranking.answer(dataclasses.replace(asked, k=500)).jobs}
    assert ranking.answer(Question(query="x", candidates=("new",), ts=ts)).jobs
    assert ranking.guide.places.find("no such place") is None


def test_an_answer_knows_all_of_an_update_or_none(run: Run, bundle_folder: Path, job_ids: list[str]) -> None:
    ranking = Ranking.open(bundle_folder)
    pair = raw_jobs(run).slice(0, 2)
    asked = Question(query="nurse", candidates=tuple(pair["job_id"].to_pylist()), ts=(ranking._features.last_ts or 0) + 1)
    seen: set[tuple[str, ...]] = set()
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            seen.add(tuple(sorted(job.title for job in ranking.answer(asked).jobs)))

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    for number in range(30):
        one, two = (changed(pair.slice(n, 1), title=f"Title {number} {n}") for n in range(2))
        ranking.update(pa.concat_tables([one, two]))
        if number % 6 == 0:
            now = (f"Title {number} 0", f"Title {number} 1")
            family.wait_for(lambda now=now: now in seen, "an answer that knows of it")
    done.set()
    for thread in asking:
        thread.join()
    allowed = {(f"Title {number} 0", f"Title {number} 1") for number in range(30)}
    assert len(seen - allowed) <= 1  # the titles before the first update
    assert len(seen & allowed) > 3


def test_what_is_observed_counts_for_the_next_answer(run: Run, bundle_folder: Path, job_ids: list[str]) -> None:
    ranking = Ranking.open(bundle_folder)
    last = ranking._features.last_ts or 0
    asked = Question(query="nurse", user_id="new user", candidates=tuple(job_ids[:5]), ts=last + 10_000_000)
    before = ranking.answer(asked)
    row = {"request_id": "r", "user_id": "new user", "query": "nurse", "job_id": job_ids[0], "clicked": True}
    ts = pa.array([last + 5_000_000]).cast(pa.timestamp("us", tz="UTC"))
    ranking.observe(pa.table({"ts": ts} | {name: [value] for name, value in row.items()}))
    after = ranking.answer(asked)
    assert before.versions.state < after.versions.state
    assert {job.job_id: job.score for job in before.jobs} != {job.job_id: job.score for job in after.jobs}
    assert ranking._retrieval._clicks.of_user("new user", last + 10_000_000).tolist() == [0]
