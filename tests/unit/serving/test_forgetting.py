"""A person who is forgotten is gone from every file of state, catalogue, journal and log; everybody else's answers stay."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower.errors import ConfigError, StorageError
from tritower.serving import bundle, forgetting, retention, segments, served
from tritower.serving.forgetting import forget
from tritower.serving.journal import Journal, JournalConfig
from tritower.serving.messages import Question
from tritower.serving.ranking import Ranking
from tritower.serving.reading import Reader
from tritower.serving.retention import Retention, expire
from tritower.serving.served import ServedConfig, ServedLog
from tritower.storage import manifest

from tests.unit.serving.test_served import HOUR, START, asked

DAY = 24 * HOUR


def busiest(folder: Path) -> str:
    """Somebody with clicks, searches and a profile."""
    clicks = pq.read_table(folder / "state" / "clicks.parquet").to_pylist()
    searched = set(pq.read_table(folder / "state" / "searches.parquet")["user_id"].to_pylist())
    users = pq.read_table(folder / "dataset" / "users.parquet").to_pylist()
    described = {row["user_id"] for row in users if row["interests"] or row["past_titles"]}
    return next(row["user_id"] for row in clicks if row["user_id"] in searched & described)


@pytest.fixture
def mine(bundle_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(bundle_folder, tmp_path / "bundle")
    return tmp_path / "bundle"


def test_nobody_of_that_name_is_left_in_a_bundle(mine: Path) -> None:
    user = busiest(mine)
    assert holding(mine, user)
    others = [row for row in pq.read_table(mine / "state" / "clicks.parquet").to_pylist() if row["user_id"] != user]
    before = Ranking.open(mine)
    job_ids = tuple(pq.read_table(mine / "dataset" / "jobs.parquet")["job_id"].to_pylist()[:40])
    stranger = Question(query="nurse", user_id="nobody", candidates=job_ids, k=40, ts=START)
    known = Question(query="nurse", user_id=user, candidates=job_ids, k=40, ts=START)
    neighbour = Question(query="nurse", user_id=others[0]["user_id"], candidates=job_ids, k=40, ts=START)
    first = [before.answer(question).jobs for question in (stranger, neighbour, known)]
    removed = forget(user, folder=mine)
    assert removed.clicks and removed.searches and removed.retrieval_clicks and removed.profiles == 1
    assert holding(mine, user) == []
    assert pq.read_table(mine / "state" / "clicks.parquet").to_pylist() == others
    bundle.read(mine)
    after = Ranking.open(mine)
    assert after.versions.bundle != before.versions.bundle
    again = [after.answer(question).jobs for question in (stranger, neighbour, known)]
    assert again[:2] == first[:2], "nobody else is ranked for otherwise"
    assert again[2] == again[0] != first[2], "who was forgotten is a stranger"
    assert forget(user, folder=mine) == forgetting.Removed()


def holding(folder: Path, text: str) -> list[str]:
    """The files that hold a person's id, in a value or as plain bytes."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet":
            table = pq.ParquetFile(path).read()
            texts = [column for column in table.columns if pa.types.is_string(column.type)]
            is_in = any(text in set(column.to_pylist()) for column in texts)
        else:
            is_in = path.is_file() and text.encode() in path.read_bytes()
        found += [str(path.relative_to(folder))] if is_in else []
    return found


def test_words_that_only_one_person_typed_go_with_them(mine: Path) -> None:
    searches = pq.read_table(mine / "state" / "searches.parquet").to_pylist()
    words: dict[str, set[str]] = {}
    for row in searches:
        for text in row["items"]:
            words.setdefault(text, set()).add(row["user_id"])
    user = next(iter(next(users for users in words.values() if len(users) == 1)))
    own = {text for text, users in words.items() if users == {user}}
    before = set(pq.read_table(mine / "state" / "texts.parquet")["text"].to_pylist())
    forget(user, folder=mine)
    texts = pq.read_table(mine / "state" / "texts.parquet")["text"].to_pylist()
    assert before - set(texts) <= own and before - set(texts)
    assert len(np.load(mine / "state" / "vectors.npy")) == len(texts)


def test_a_state_alone(run: Any, tmp_path: Path) -> None:
    shutil.copytree(run.sources.features / "state", tmp_path / "state")
    user = pq.read_table(tmp_path / "state" / "clicks.parquet")["user_id"][0].as_py()
    assert forget(user, folder=tmp_path / "state").clicks
    assert user not in pq.read_table(tmp_path / "state" / "clicks.parquet")["user_id"].to_pylist()
    manifest.check(tmp_path / "state")


@pytest.fixture(params=["local", "s3", "gs"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "gs":
        request.getfixturevalue("gcs")
        return "gs://bucket/server"
    return str(tmp_path) if request.param == "local" else str(request.getfixturevalue("s3"))


def test_journal_and_log(location: str) -> None:
    journal_at, served_at = f"{location}/journal", f"{location}/served"
    row = {"ts": START, "query": "nurse", "job_id": "j"}
    config = JournalConfig(segment_bytes=500, lease_s=6)  # a busy machine renews it in time
    with Journal(journal_at, config) as journal:
        for number in range(8):
            journal.take([row | {"request_id": f"r{number}{user}", "user_id": user} for user in ("anna", "ben")])
        with pytest.raises(StorageError, match="another process is at work on it"):
            forget("anna", journal_at=journal_at)
    log = ServedLog(served_at, ServedConfig(rows=6))
    for number, user in enumerate(("anna", "ben", "anna", "anna")):
        log.put(*asked(number, user=user))
    log.close()
    follower = Reader(journal_at, after=2)
    follower.read()
    removed = forget("anna", journal_at=journal_at, served_at=served_at)
    assert (removed.journal_events, removed.served_rows) == (8, 9)
    left, reader = [], Reader(journal_at)
    while frames := reader.read():
        left += [(frame.number, event["user_id"]) for frame in frames for event in frame.record().events]
    assert left == [(number, "ben") for number in range(1, 9)], "records keep their numbers"
    assert not any(b"anna" in segments.read(journal_at, name) for name in segments.names(journal_at))
    assert len(served.files(served_at)) == 1
    with Journal(journal_at, config) as journal:
        assert journal.take([row | {"request_id": "r3ben", "user_id": "ben"}]).repeated == 1
        assert journal.take([row | {"request_id": "new", "user_id": "ben"}]).taken == 1
        last = journal.figures.records
    found = []
    while frames := follower.read():
        found += [frame.number for frame in frames]
    assert found[-1] == last == 9 and found == sorted(set(found)), "who was following goes on"


def test_what_a_crash_has_cut_goes_as_well(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.take([{"request_id": "r", "ts": 1, "user_id": "anna", "query": "", "job_id": "j"}])
    (segment,) = (tmp_path / "journal").glob("segment-*")
    segment.write_bytes(segment.read_bytes()[:-4])
    Journal(tmp_path / "journal").close()
    assert list((tmp_path / "journal").glob("cut-*"))
    forget("anna", journal_at=tmp_path / "journal")
    assert holding(tmp_path / "journal", "anna") == []
    assert not any(b"anna" in path.read_bytes() for path in (tmp_path / "journal").rglob("*") if path.is_file())


def test_who_or_where_must_be_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="whom to forget"):
        forget("anna")
    with pytest.raises(StorageError, match="neither a bundle nor a state"):
        forget("anna", folder=tmp_path)


def test_what_is_too_old_goes(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    journal_at, served_at = f"{location}/journal", f"{location}/served"
    with Journal(journal_at, JournalConfig(segment_bytes=200, lease_s=1)) as journal:
        for day in range(5):
            with monkeypatch.context() as patched:
                patched.setattr("time.time_ns", lambda day=day: (START + day * DAY) * 1_000)
                journal.take([{"request_id": f"r{day}", "ts": day, "user_id": "u", "query": "", "job_id": "j"}])
    log = ServedLog(served_at)
    for day in range(5):
        log.put(*asked(day, ts=START + day * DAY))
    log.close()
    keep, now = Retention(journal_days=2, served_days=3), START + 5 * DAY
    expired = expire(keep, journal_at=journal_at, served_at=served_at, now=now)
    assert (expired.segments, expired.files) == (2, 2)
    assert [event["request_id"] for event in all_events(journal_at)] == ["r2", "r3", "r4"]
    assert [served.hour_of(name) for name in served.files(served_at)] == [START + day * DAY for day in (2, 3, 4)]
    assert expire(Retention(journal_days=0, served_days=0), journal_at=journal_at, served_at=served_at, now=now).files == 0
    expire(Retention(journal_days=1), journal_at=journal_at, now=now + 100 * DAY)
    assert len(segments.names(journal_at)) == 1, "the last one is written to"


def all_events(location: str) -> list[Any]:
    reader, found = Reader(location), list[Any]()
    while frames := reader.read():
        found += [event for frame in frames for event in frame.record().events]
    return found


def test_people_who_have_not_come_for_long_are_thinned_out(mine: Path) -> None:
    last: dict[str, int] = {}
    for name in ("clicks", "searches"):
        for row in pq.read_table(mine / "state" / f"{name}.parquet").to_pylist():
            last[row["user_id"]] = max([last.get(row["user_id"], 0), *map(int, row["ts"])])
    times = sorted(last.values())
    cut = times[len(times) // 2]
    expired = retention.expire(Retention(state_days=1), folder=mine, now=cut + DAY)
    assert expired.people == sum(ts < cut for ts in last.values()) > 0
    left = set(pq.read_table(mine / "state" / "clicks.parquet")["user_id"].to_pylist())
    assert left == {row for row in left if last[row] >= cut}
    bundle.read(mine)
