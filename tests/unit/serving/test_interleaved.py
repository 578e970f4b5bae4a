"""Lists of two bundles: the draft of what each would have answered, logged with teams, and one list where the other fails."""

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from tritower import processes, schema
from tritower.assignment import Arm, Experiment
from tritower.config import from_dict
from tritower.errors import ConfigError, DataError
from tritower.experiment.draft import coin
from tritower.serving import bundling, interleaved, served, shown
from tritower.serving.app import create_app
from tritower.serving.config import ServeConfig
from tritower.serving.feed import Feed, FeedConfig
from tritower.serving.interleaved import Interleave
from tritower.serving.messages import Answer, Filters, Question, RankedJob, Versions
from tritower.serving.metrics import Metrics
from tritower.serving.ranking import Ranking
from tritower.serving.service import Service

from tests.support import bundles
from tests.support.bundles import Run
from tests.support.served import served as served_app
from tests.support.serving_process import served as serving

TS = 1_900_000_000_000_000


def versions(name: str) -> Versions:
    return Versions(bundle=f"b-{name}", name=name, model=f"m-{name}", encoder="e", catalogue="c", state="")


def answered(name: str, jobs: str, **more: Any) -> Answer:
    """Jobs named by letters; a capital letter is another id of the same advert."""
    ranked = tuple(
        RankedJob(job_id=job, rank=rank, score=1 / (rank + 1), title=job, company="Acme", features=(float(rank),))
        for rank, job in enumerate(jobs, 1)
    )
    return Answer(request_id="r1", ts=TS, jobs=ranked, versions=versions(name), **{"features": ("one",)} | more)


@dataclasses.dataclass
class Fixed:
    """A bundle that answers one list, or fails."""

    name: str
    given: Answer | Exception
    asked: list[Question] = dataclasses.field(default_factory=list)

    def answer(self, question: Question) -> Answer:
        self.asked.append(question)
        if isinstance(self.given, Exception):
            raise self.given
        return dataclasses.replace(self.given, request_id=question.request_id, jobs=self.given.jobs[: question.k])

    @property
    def versions(self) -> Versions:
        return versions(self.name)


class Both:
    """Holds two of them, or one."""

    def __init__(self, **held: Fixed) -> None:
        self.held = held

    def get(self, name: str | None = None) -> Fixed:
        try:
            return self.held[name or "main"]
        except KeyError:
            raise ConfigError("no bundle", where="server") from None


@contextlib.contextmanager
def answering(held: Both, config: FeedConfig) -> Iterator[httpx.Client]:
    with contextlib.closing(Feed(config)) as feed:
        service = Service(held, ServeConfig(rate_per_s=0), Metrics())  # type: ignore[arg-type]
        with served_app(create_app(service, mounts=[feed.mount])) as url, httpx.Client(base_url=url, timeout=300) as client:  # type: ignore[arg-type]
            yield client


def logged(folder: Path) -> list[dict[str, Any]]:
    return [row for name in served.files(folder) for row in pq.read_table(name, partitioning=None).to_pylist()]


def test_a_draft_of_answers_by_hand() -> None:
    """a: x q p, b: x P r, where P is p under another id. The head has no team; then q (a) and P (b), in the coin's order;
    then a has nothing left, and r no team."""
    found = interleaved.drafted(answered("main", "xqp"), answered("other", "xPr"), 4, "s")
    first = coin("r1", "s", 0)
    assert [job.job_id for job in found.jobs] == list("xqPr" if first else "xPqr")
    assert [job.rank for job in found.jobs] == [1, 2, 3, 4]
    about = found.interleaved
    assert about and about.teams == (("", "a", "b", "") if first else ("", "b", "a", ""))
    assert about.sources == (("a", "a", "b", "b") if first else ("a", "b", "a", "b"))
    assert about.ranks == (1, 2, 2, 3)
    assert (found.versions, about.other, about.salt, about.failed) == (versions("main"), versions("other"), "s", "")


def test_features_of_another_model_are_not_logged_under_the_firsts_names() -> None:
    found = interleaved.drafted(answered("main", "pq"), answered("other", "rs", features=("two",)), 4, "s")
    assert found.features == ("one",) and found.interleaved
    for job, source in zip(found.jobs, found.interleaved.sources, strict=True):
        assert (job.features is None) == (source == "b")


def test_who_gets_an_interleaved_list_is_drawn_and_stays_so() -> None:
    asked = [Question(user_id=f"u{number}", request_id=f"r{number}") for number in range(2_000)]
    for by in ("user", "request"):
        few, more = (Interleave(share=share, by=by) for share in (0.1, 0.4))  # type: ignore[arg-type]
        taken = {one.user_id for one in asked if few.takes(one)}
        assert len(taken) == pytest.approx(200, abs=45)
        assert taken < {one.user_id for one in asked if more.takes(one)}
        assert taken == {one.user_id for one in asked if few.takes(dataclasses.replace(one, query="another", k=3))}
        other = {one.user_id for one in asked if Interleave(share=0.1, by=by, salt="new").takes(one)}  # type: ignore[arg-type]
        assert len(taken & other) < 50
    assert not Interleave().takes(Question(request_id="r1")), "nobody known"
    for bad in ({"share": 2}, {"salt": ""}, {"by": "day"}, {"other": "main"}):
        with pytest.raises(ConfigError):
            from_dict(Interleave, bad)
    arms = (Arm(name="main"), Arm(name="other"))
    with pytest.raises(ConfigError, match="would be interleaved"):
        FeedConfig(experiment=Experiment(name="x", arms=arms), interleave=Interleave())


def test_over_http_a_share_of_the_users_gets_drafts_and_the_log_has_the_teams(tmp_path: Path) -> None:
    held = Both(main=Fixed("main", answered("main", "pqrs")), other=Fixed("other", answered("other", "tuvp")))
    config = FeedConfig(
        served=str(tmp_path), interleave=Interleave(share=0.5, salt="s"), shuffle_share=1.0, shuffle_top=2
    )  # fmt: skip
    firsts: Counter[str] = Counter()
    answers = {}
    with answering(held, config) as client:
        for number in range(300):
            asked = {"user_id": f"u{number}", "request_id": f"r{number}", "k": 3}
            answer = answers[f"r{number}"] = client.post("/rank", json=asked).json()
            assert bool(answer["interleaved"]) == Interleave(share=0.5, salt="s").takes(Question(user_id=f"u{number}"))
            if answer["interleaved"]:
                firsts[answer["interleaved"]["teams"][0]] += 1
                assert answer["interleaved"]["teams"][0] == ("a" if coin(f"r{number}", "s", 0) else "b")
                assert (answer["versions"]["bundle"], answer["interleaved"]["other"]["bundle"]) == ("b-main", "b-other")
                assert all(job["propensity"] == 1 for job in answer["jobs"]), "a draft is not shuffled"
                assert client.post("/rank", json=asked).json()["jobs"] == answer["jobs"]
        assert firsts["a"] + firsts["b"] == pytest.approx(150, abs=35) and abs(firsts["a"] - firsts["b"]) < 50
        assert f'tritower_interleaved_total{{result="both"}} {2 * sum(firsts.values())}.0' in client.get("/metrics").text
    rows = logged(tmp_path)
    for row in rows:
        answer = answers[row["request_id"]]
        place = [job["job_id"] for job in answer["jobs"]].index(row["job_id"])
        about = answer["interleaved"]
        if not about:
            assert (row["interleaving"], row["team"], row["other_bundle"], row["bundle"]) == ("", "", "", "b-main")
            continue
        source = about["sources"][place]
        assert (row["interleaving"], row["team"], row["failed"]) == ("s", about["teams"][place], "")
        assert (row["bundle_name"], row["bundle"], row["other_bundle"]) == (
            *(("main", "b-main") if source == "a" else ("other", "b-other")),
            "b-other",
        )
        assert row["position"] == place + 1 and row["model_rank"] == about["ranks"][place] and not row["shuffled"]
        assert row["model_rank"] == ("pqrs" if source == "a" else "tuvp").index(row["job_id"]) + 1
    assert {row["team"] for row in rows if row["interleaving"]} == {"a", "b"}


FAULTS: dict[str, Callable[[Both], object]] = {
    "a": lambda held: held.held.update(main=Fixed("main", RuntimeError("a fault of ours"))),
    "b": lambda held: held.held.update(other=Fixed("other", DataError("no vectors", where="bundle"))),
    "b, dropped": lambda held: held.held.pop("other"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_where_one_fails_the_other_answers_and_the_log_says_so(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    held = Both(main=Fixed("main", answered("main", "pqr")), other=Fixed("other", answered("other", "tuv")))
    with answering(held, FeedConfig(served=str(tmp_path), interleave=Interleave())) as client:
        FAULTS[fault](held)
        answer = client.post("/rank", json={"user_id": "u", "request_id": "r7", "k": 2})
        assert answer.status_code == 200
        assert f'tritower_interleaved_total{{result="{fault[0]} failed"}} 1.0' in client.get("/metrics").text
    left, name = ("pq", "main") if fault[0] == "b" else ("tu", "other")
    assert [job["job_id"] for job in answer.json()["jobs"]] == list(left)
    about = answer.json()["interleaved"]
    assert (answer.json()["versions"]["name"], about["other"], about["failed"]) == (name, None, fault[0])
    assert f"bundle {fault[0]} failed, request r7 gets the other's list" in caplog.text
    rows = logged(tmp_path)
    assert [(row["team"], row["failed"], row["interleaving"], row["bundle_name"], row["other_bundle"]) for row in rows] == [
        ("", fault[0], "interleaving", name, "")
    ] * 2


def test_a_question_that_neither_can_answer_is_refused_as_ever(tmp_path: Path) -> None:
    refused = DataError("the jobs have no coordinates", where="filters.near", remedy="Leave it out.")
    held = Both(main=Fixed("main", refused), other=Fixed("other", refused))
    with answering(held, FeedConfig(interleave=Interleave())) as client:
        answer = client.post("/rank", json={"user_id": "u", "k": 2})
        assert answer.status_code == 422 and answer.json()["where"] == "filters.near"
        assert client.post("/rank", json={"k": 2}).status_code == 422


def test_without_a_second_bundle_it_does_not_start() -> None:
    held = Both(main=Fixed("main", answered("main", "p")))
    with (
        pytest.raises(ConfigError, match="the ranker 'other' has no bundle"),
        answering(held, FeedConfig(interleave=Interleave())),
    ):
        """It does not start."""


@pytest.mark.slow
def test_a_server_of_two_bundles_as_a_process(run: Run, bundle_folder: Path, tmp_path: Path) -> None:
    """Real bundles, candidates with repeats and unknown ones, filters, k above the catalogue; clicks come back with teams."""
    folder = run.sources.features.parent
    model = bundles.random_ranker(folder, seed=1)
    bundling.write(dataclasses.replace(run.sources, model=model), tmp_path / "other")
    a, b = Ranking.open(bundle_folder), Ranking.open(tmp_path / "other", "other")
    jobs = pq.read_table(run.sources.dataset / "jobs.parquet")["job_id"].to_pylist()
    now = shown.moment(a.versions.state) + 1
    asked: list[dict[str, Any]] = [
        {"query": "nurse", "k": 7, "ts": now, "user_id": "u1"},
        {"query": "driver", "k": 500, "ts": now, "user_id": "u2", "candidates": [*jobs[:30], *jobs[:5], "gone"]},
        {"query": "cook", "k": 3, "ts": now, "user_id": "u3", "candidates": jobs[30:60], "filters": {"region": "TX"}},
        {"query": "cook", "k": 3, "ts": now, "user_id": "u4", "candidates": []},
    ]
    feed = {"served": str(tmp_path / "served"), "journal": str(tmp_path / "journal"), "interleave": {"salt": "s"}}
    command = processes.module(
        "tritower.serving", "serve", "--bundle", str(bundle_folder), "--other", str(tmp_path / "other"), "--port", "0",
        "--feed", json.dumps(feed),
    )  # fmt: skip
    answers = []
    with serving(command, tmp_path / "run") as server, server.client() as client:
        for number, body in enumerate(asked):
            answer = client.post("/rank", json=body | {"request_id": f"r{number}"}).json()
            answers.append(answer)
            filters = Filters(**body.get("filters", {}))
            candidates = tuple(body["candidates"]) if "candidates" in body else None
            plain = {name: body[name] for name in ("query", "k", "ts", "user_id")}
            question = Question(**plain, candidates=candidates, filters=filters, request_id=f"r{number}")
            expected = interleaved.drafted(a.answer(question), b.answer(question), body["k"], "s")
            assert [job["job_id"] for job in answer["jobs"]] == [job.job_id for job in expected.jobs]
            assert [job["score"] for job in answer["jobs"]] == pytest.approx([job.score for job in expected.jobs], abs=1e-6)
            assert expected.interleaved and answer["interleaved"]["teams"] == list(expected.interleaved.teams)
            assert answer["versions"]["model"] != answer["interleaved"]["other"]["model"]
            assert answer["unknown"] == (["gone"] if number == 1 else [])
        assert len(answers[0]["jobs"]) == 7 and {"a", "b"} <= set(answers[0]["interleaved"]["teams"])
        assert 0 < len(answers[1]["jobs"]) <= 30 and answers[3]["jobs"] == []
        place = answers[0]["interleaved"]["teams"].index("b")
        click = {"request_id": "r0", "job_id": answers[0]["jobs"][place]["job_id"], "user_id": "u1", "query": "nurse"}
        click |= {"event": "click", "ts": now, "clicked_at": now + 9}
        assert client.post("/events", json={"events": [click]}).json()["taken"] == 1
        server.process.popen.terminate()
        assert server.process.ended(120) == 0
    counts = shown.write(served_at=feed["served"], journal=feed["journal"], out=tmp_path / "shown")  # type: ignore[arg-type]
    assert counts["clicks"] == 1 and counts["rows"] == sum(len(answer["jobs"]) for answer in answers)
    table = pq.read_table(tmp_path / "shown")
    assert table.schema.names == schema.SHOWN.names()
    (clicked,) = table.filter(table["clicked"]).to_pylist()
    assert (clicked["team"], clicked["interleaving"], clicked["bundle_name"]) == ("b", "s", "other")
