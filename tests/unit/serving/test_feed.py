"""A real server that takes events: counted within seconds, safe when it is killed, logged as it was served."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from tritower import processes, schema
from tritower.assignment import Arm, Experiment
from tritower.config import from_dict, to_dict
from tritower.errors import ConfigError
from tritower.features.online import Request
from tritower.serving import served, shown
from tritower.serving.app import create_app
from tritower.serving.config import ServeConfig
from tritower.serving.feed import Feed, FeedConfig
from tritower.serving.journal import JournalConfig
from tritower.serving.messages import Answer, Question, RankedJob, Versions
from tritower.serving.metrics import Metrics
from tritower.serving.service import Service
from tritower.serving.tailing import Known

from tests.support.counted_board import JOBS, opened
from tests.support.served import served as served_app

EXPERIMENT = Experiment(name="towers", arms=(Arm(name="main"), Arm(name="other")))
TS = 1_900_000_000_000_000


class Counted:
    """Ranks jobs by how often they were clicked, as real features of a small board count it."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._online = folder, opened(folder)
        self.observe = self._online.observe
        self.versions = Versions(bundle=f"b-{name}", name=name, model="m", encoder="e", catalogue="c", state="")

    def known(self) -> Known:
        return Known.read(self._folder / "state")

    def answer(self, question: Question) -> Answer:
        jobs = list(question.candidates or ())
        columns = self._online.read(Request(ts=question.ts or 0, user_id=question.user_id, query=question.query), jobs)
        score = columns["job_clicks"] / 10
        order = sorted(range(len(jobs)), key=lambda i: (-score[i], jobs[i]))[: question.k]
        names = tuple(columns) if question.with_features else ()
        ranked = tuple(
            RankedJob(
                job_id=jobs[i], rank=rank, score=float(score[i]), title="", company="",
                features=tuple(float(columns[name][i]) for name in names) if names else None,
            )
            for rank, i in enumerate(order, 1)
        )  # fmt: skip
        request_id = question.request_id or f"made for {question.user_id}"
        return Answer(request_id=request_id, ts=question.ts or 0, jobs=ranked, versions=self.versions, features=names)


class Two:
    """Two of them, as `holder.Holder` holds bundles."""

    def __init__(self, folder: Path, feed: Feed) -> None:
        self._held = {name: Counted(folder, name) for name in ("main", "other")}
        for ranking in self._held.values():
            feed.attach(ranking)  # type: ignore[arg-type]

    def get(self, name: str | None = None) -> Counted:
        return self._held[name or "main"]


@contextlib.contextmanager
def answering(folder: Path, config: FeedConfig) -> Iterator[httpx.Client]:
    """A real HTTP server with a feed."""
    with contextlib.closing(Feed(config)) as feed:
        service = Service(Two(folder, feed), ServeConfig(), Metrics())  # type: ignore[arg-type]
        with served_app(create_app(service, mounts=[feed.mount])) as url, httpx.Client(base_url=url, timeout=300) as client:  # type: ignore[arg-type]
            yield client


def figure(client: httpx.Client, name: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in client.get("/metrics").text.splitlines() if line.startswith(name))


def scores(answer: dict[str, Any]) -> list[tuple[str, float]]:
    return sorted((job["job_id"], job["score"]) for job in answer["jobs"])


def test_the_config_is_what_the_command_line_brings() -> None:
    config = FeedConfig(journal="s3://b/journal", experiment=EXPERIMENT, shuffle_share=0.05)
    assert from_dict(FeedConfig, json.dumps(to_dict(config))) == config
    for bad in ({"shuffle_top": 1}, {"shuffle_share": 2}, {"poll_s": 0}, {"jurnal": "x"}, {"events_at": "host:80"}):
        with pytest.raises(ConfigError):
            from_dict(FeedConfig, bad)


def test_events_are_counted_and_a_follower_counts_the_same(board: Path, tmp_path: Path) -> None:
    journal = str(tmp_path / "journal")
    rows = [{"request_id": "q1", "job_id": job, "ts": TS, "user_id": "eve", "query": "nurse"} for job in JOBS[:3]]
    click = rows[0] | {"event": "click", "clicked_at": TS + 5}
    asked = {"query": "nurse", "user_id": "eve", "candidates": JOBS, "k": 12, "ts": TS + 1_000_000}
    with answering(board, FeedConfig(journal=journal)) as client:
        before = client.post("/rank", json=asked).json()
        assert client.post("/events", json={"events": rows}).json() == {"taken": 3, "repeated": 0}
        assert client.post("/events", json={"events": [click, *rows]}).json() == {"taken": 1, "repeated": 3}
        end = time.monotonic() + 120
        while figure(client, 'tritower_events_counted{what="applied_events"') < 8 and time.monotonic() < end:
            time.sleep(0.2)
        assert figure(client, 'tritower_events_counted{what="applied_events"') == 8, "by both bundles"
        after = client.post("/rank", json=asked).json()
        assert dict(scores(after))["j0"] > dict(scores(before))["j0"]
        assert figure(client, 'tritower_events{what="journaled"') == 4
        for bad, word in (
            ({"events": [{**rows[0], "job_id": ""}]}, "job_id"),
            ({"events": [{**rows[0], "ts": -1}]}, "ts"),
            ({"events": [{**rows[0], "color": 1}]}, "color"),
            ({"events": "x"}, "events"),
        ):
            answer = client.post("/events", json=bad)
            assert answer.status_code == 422 and word in answer.text
        assert client.post("/events", json={"events": []}).json() == {"taken": 0, "repeated": 0}
    with answering(board, FeedConfig(journal=journal, takes_events=False)) as client:
        assert scores(client.post("/rank", json=asked).json()) == scores(after), "bit for bit"


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_follower_says_who_takes_events(board: Path, tmp_path: Path, slash: str) -> None:
    journal = str(tmp_path / "journal")
    row = {"request_id": "q1", "job_id": "j1", "ts": TS, "user_id": "eve", "query": "nurse"}
    with answering(board, FeedConfig(journal=journal)) as writer, httpx.Client(timeout=300) as client:
        there = str(writer.base_url).rstrip("/")
        with answering(board, FeedConfig(journal=journal, takes_events=False, events_at=there + slash)) as follower:
            answer = follower.post("/events", json={"events": [row]})
            assert (answer.status_code, answer.headers["Location"]) == (307, f"{there}/events")
            assert f"Send them to {there}/events" in answer.json()["remedy"]
            sent = client.post(f"{str(follower.base_url).rstrip('/')}/events", json={"events": [row]}, follow_redirects=True)
            assert sent.json() == {"taken": 1, "repeated": 0}, "method and body went along"
            assert set(follower.get("/openapi.json").json()["paths"]["/events"]["post"]["responses"]) == {"307"}
        with answering(board, FeedConfig(journal=journal, takes_events=False)) as follower:
            answer = follower.post("/events", json={"events": [row]})
            assert answer.status_code == 421 and "another one takes events" in answer.json()["what"]
            assert "takes_events" in answer.json()["remedy"]
            assert set(follower.get("/openapi.json").json()["paths"]["/events"]["post"]["responses"]) == {"421"}


def test_no_room_is_503_with_the_time_to_wait(board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"request_id": "q1", "job_id": "j1", "ts": TS, "user_id": "eve", "query": "nurse"}
    with answering(board, FeedConfig(journal=str(tmp_path / "journal"), writing=JournalConfig(queued_events=1))) as client:
        going, done = threading.Event(), threading.Event()
        plain = os.fsync

        def slow(handle: int) -> None:
            going.set()
            assert done.wait(300)
            plain(handle)

        monkeypatch.setattr(os, "fsync", slow)
        caller = threading.Thread(target=client.post, args=("/events",), kwargs={"json": {"events": [row]}})
        caller.start()
        assert going.wait(300)
        answer = client.post("/events", json={"events": [row | {"job_id": "j2"}]})
        done.set()
        caller.join()
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert client.post("/events", json={"events": [row | {"job_id": "j2"}]}).json() == {"taken": 1, "repeated": 0}


def test_what_was_served_is_logged_and_makes_raw_impressions(board: Path, tmp_path: Path) -> None:
    places = {"journal": str(tmp_path / "journal"), "served": str(tmp_path / "served")}
    config = FeedConfig(**places, shuffle_share=1.0, shuffle_top=3, experiment=EXPERIMENT)
    answers = {}
    with answering(board, config) as client:
        for number in range(8):
            asked = {"query": "nurse", "user_id": f"u{number}", "candidates": JOBS, "k": 3, "ts": TS}
            answers[f"u{number}"] = client.post("/rank", json=asked).json()
        first = answers["u0"]
        click = {"request_id": first["request_id"], "job_id": first["jobs"][1]["job_id"], "user_id": "u0", "query": "nurse"}
        click |= {"event": "click", "ts": TS, "clicked_at": TS + 9}
        assert client.post("/events", json={"events": [click]}).json() == {"taken": 1, "repeated": 0}
        assert all(job["propensity"] == pytest.approx(1 / 3) for job in first["jobs"])
    (name,) = served.files(tmp_path / "served")
    rows = pq.read_table(name, partitioning=None).to_pylist()
    assert len(rows) == 24, "all of it is there when the server has ended"
    for row in rows:
        answer = answers[row["user_id"]]
        place = {job["job_id"]: job["rank"] for job in answer["jobs"]}
        assert row["request_id"] == answer["request_id"] and row["position"] == place[row["job_id"]]
        assert (row["arm"], row["bundle_name"]) == (EXPERIMENT.assign(row["user_id"]).arm,) * 2
        assert row["randomised"] and row["shuffled"] and len(row["features"]) > 50
    assert {row["arm"] for row in rows} == {"main", "other"}
    assert shown.write(served_at=places["served"], journal=places["journal"], out=tmp_path / "raw")["clicks"] == 1
    table = pq.read_table(tmp_path / "raw")
    assert table.schema.names == schema.SHOWN.names()
    (clicked,) = table.filter(table["clicked"]).to_pylist()
    assert clicked["job_id"] == first["jobs"][1]["job_id"] and clicked["position"] == 2


def test_an_arm_needs_a_bundle(board: Path) -> None:
    arms = (Arm(name="main"), Arm(name="third"))
    with (
        pytest.raises(ConfigError, match="'third' has no bundle"),
        answering(board, FeedConfig(experiment=Experiment(name="x", arms=arms))),
    ):
        """It does not start."""


def test_several_workers_do_not_write_one_journal(tmp_path: Path) -> None:
    feed = json.dumps({"journal": str(tmp_path / "journal")})
    given = ["serve", "--bundle", str(tmp_path), "--workers", "2", "--feed", feed]
    with (
        (tmp_path / "log").open("w") as log,
        processes.started(processes.module("tritower.serving", *given), stderr=log) as process,
    ):
        assert process.ended(120) == 1
    assert "several workers would write one journal" in (tmp_path / "log").read_text()


def test_features_go_into_the_log_only(tmp_path: Path) -> None:
    feed = Feed(FeedConfig(served=str(tmp_path / "served")))
    question = Question(query="nurse", user_id="u")
    assert feed.ask(question).with_features
    job = RankedJob(job_id="j", rank=1, score=0.5, title="t", company="c", features=(1.0,))
    versions = Versions(bundle="b", name="main", model="m", encoder="e", catalogue="c", state="")
    answer = feed.finish(question, Answer(request_id="r", ts=TS, jobs=(job,), versions=versions, features=("one",)))
    feed.close()
    assert answer.features == () and answer.jobs[0].features is None
    assert pq.read_table(served.files(tmp_path / "served")[0], partitioning=None)["features"].to_pylist() == [[1.0]]
    assert feed.arm(question) is None
