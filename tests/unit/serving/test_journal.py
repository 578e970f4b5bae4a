"""The journal on this machine and in stores: acknowledged events are there, once, whatever happens to the writer."""

import contextlib
import functools
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritower import storage
from tritower.errors import ArtifactError, DataError, OverloadError, StorageError
from tritower.serving import forgetting, records, segments, stored
from tritower.serving.journal import Journal, JournalConfig, Receipt, _Seen
from tritower.serving.reading import Reader
from tritower.serving.records import MAGIC, Record

from tests.support.faults import Fault, proxy

WRITER = """
import sys
from tritower.serving.journal import Journal, JournalConfig
journal = Journal(sys.argv[1], JournalConfig(lease_s=1))
for number in range(10_000):
    rows = [dict(request_id=f"r{number}", ts=number, user_id="u", query="q", job_id=f"j{i}") for i in range(3)]
    assert journal.take(rows).taken + journal.take(rows).repeated == 6 or number < int(sys.argv[2])
    print(number, flush=True)
"""


def shown(request: int, job: str = "j0", **more: Any) -> dict[str, Any]:
    return {"request_id": f"r{request}", "ts": request, "user_id": "u", "query": "nurse", "job_id": job} | more


def held(location: Any) -> list[tuple[str, str]]:
    """The events of a journal in order."""
    reader, found = Reader(location), []
    while frames := reader.read():
        found += [(event["request_id"], event["job_id"]) for frame in frames for event in frame.record().events]
    return found


@pytest.fixture(params=["local", "s3", "gs"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "local":
        yield f"{tmp_path}/journal"
    elif request.param == "s3":
        yield f"{request.getfixturevalue('s3')}/journal"
    else:
        store = request.getfixturevalue("gcs")
        yield "gs://bucket/journal"
        assert {name.rpartition("/")[2] for name in store.quick} <= {"writer.json"}, (
            "Google takes one write a second to an object"
        )


def test_what_is_taken_is_there_once_also_after_a_restart(location: str) -> None:
    config = JournalConfig(lease_s=1, segment_bytes=600)
    with Journal(location, config) as journal:
        assert journal.take([shown(1), shown(1, "j1"), shown(1)]) == Receipt(taken=2, repeated=1)
        assert journal.take([shown(1), shown(2)]) == Receipt(taken=1, repeated=1)
        assert journal.take([shown(1, event="click", clicked_at=5)]) == Receipt(taken=1, repeated=0)
        assert (journal.figures.received, journal.figures.journaled, journal.figures.repeated) == (6, 4, 2)
    with Journal(location, config) as journal:
        assert journal.take([shown(1), shown(1, event="click", clicked_at=7)]) == Receipt(taken=0, repeated=2)
        for number in range(3, 12):
            journal.take([shown(number)])
    assert held(location) == [("r1", "j0"), ("r1", "j1"), ("r2", "j0"), ("r1", "j0"), *((f"r{n}", "j0") for n in range(3, 12))]
    assert len(segments.names(location)) > 2


def test_a_reader_follows_the_writer_from_segment_to_segment(location: str) -> None:
    reader, found = Reader(location), list[int]()
    assert reader.read() == []
    with Journal(location, JournalConfig(lease_s=1, segment_bytes=400)) as journal:
        for number in range(10):
            journal.take([shown(number)])
            while frames := reader.read():
                found += [event["ts"] for frame in frames for event in frame.record().events]
            assert found[-1] == number
    assert found == list(range(10))
    assert Reader(location, after=7).read()[0].number == 8


def test_a_second_writer_is_refused_by_name(location: str) -> None:
    config = JournalConfig(lease_s=6)  # a busy machine renews it in time
    with Journal(location, config) as journal:
        with pytest.raises(StorageError, match="another process is at work on it"):
            Journal(location, config)
        assert journal.take([shown(1)]).taken == 1
    with Journal(location, config) as journal:
        assert journal.take([shown(1)]).repeated == 1


def test_a_slow_store_does_not_make_the_lease_longer(s3: str, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease ends by what was written before the request went out, not by when the answer came."""
    with proxy(endpoint) as between:
        monkeypatch.setenv("TRITOWER_S3_ENDPOINT", between.url)
        between.faults.append(Fault("stall", method="PUT", seconds=0.3, times=2))
        writer = stored.Objects(storage.Location.parse(f"{s3}/journal"), 60, 1 << 20)
        assert time.monotonic() - writer._renewed >= 0.3
        begun = time.monotonic()
        writer._renew()
        assert begun <= writer._renewed <= time.monotonic() - 0.3
        writer.close()


def test_a_writer_that_was_thought_dead_writes_no_more(s3: str) -> None:
    """Its lease was taken over while it slept: neither its lease nor its segment is what it left."""
    location = f"{s3}/journal"
    with contextlib.suppress(StorageError), Journal(location, JournalConfig(lease_s=60)) as old:
        old.take([shown(1)])
        lease = storage.read_small(f"{location}/writer.json")
        assert lease and storage.swap_small(f"{location}/writer.json", b"{}", tag=lease[1])
        with Journal(location, JournalConfig(lease_s=1)) as new:
            new.take([shown(2)])
        with pytest.raises(StorageError, match="another process has begun to write it"):
            old.take([shown(3)])
        with pytest.raises(StorageError, match="not taken any more"):
            old.take([shown(4)])
    assert held(location) == [("r1", "j0"), ("r2", "j0")]


@pytest.mark.parametrize("at", ["start", "middle", "end"])
def test_small_objects_are_merged_and_nobody_misses_a_record(s3: str, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers stand before, in and behind what is merged; a merge that died half-way has left what it had merged."""
    location = storage.Location.parse(f"{s3}/journal")
    monkeypatch.setattr(stored, "TOGETHER", 4)
    with Journal(location, JournalConfig(lease_s=5)) as journal:
        for number in range(12):
            journal.take([shown(number)])
        reader = Reader(location)
        for _ in range({"start": 0, "middle": 2, "end": 12}[at]):
            reader.read()
        taken = journal.figures.last_taken
        merge = functools.partial(stored.merge, location, taken_before=taken, segment_bytes=1 << 20)
        assert merge(may=lambda: False) == 0 and len(segments.names(location)) == 12
        held_back = storage.read_small(f"{location}/{records.segment_name(2)}")
        assert held_back and merge(may=lambda: True) == 6
        assert [records.first_number(name) for name in segments.names(location)] == [1, 5, 9, 10, 11, 12]
        assert storage.swap_small(f"{location}/{records.segment_name(2)}", held_back[0])
        assert merge(may=lambda: True) == 3, "2 again, which is in 1 as well, and 5 to 9"
        assert [records.first_number(name) for name in segments.names(location)] == [1, 10, 11, 12]
        journal.take([shown(12)])
        found = []
        while (frames := reader.read()) or (reader._listed and reader.last < 13):
            reader._listed = -60.0  # a minute later
            found += [frame.number for frame in frames]
        assert found == list(range({"start": 1, "middle": 3, "end": 13}[at], 14)) and reader.missing == 0
    assert held(location) == [(f"r{number}", "j0") for number in range(13)]
    with Journal(location, JournalConfig(lease_s=1)) as journal:
        assert journal.take([shown(number) for number in range(14)]) == Receipt(taken=1, repeated=13)


def test_a_writer_merges_by_itself(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TOGETHER", 4), ("MERGED_AFTER_S", 0.0), ("_MERGE_EVERY_S", 0.0)):
        monkeypatch.setattr(stored, name, value)
    location = f"{s3}/journal"
    with Journal(location, JournalConfig(lease_s=2)) as journal:
        for number in range(9):
            journal.take([shown(number)])
        end = time.monotonic() + 120
        while len(segments.names(location)) > 4 and time.monotonic() < end:
            time.sleep(0.05)
    assert held(location) == [(f"r{number}", "j0") for number in range(9)]
    assert len(segments.names(location)) <= 4


def test_a_store_that_fails_is_the_callers_error_and_loses_nothing(
    s3: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer to the PUT that arrived; no PUT at all; and a journal that goes on."""
    location = f"{s3}/journal"
    with proxy(endpoint) as between:
        monkeypatch.setenv("TRITOWER_S3_ENDPOINT", between.url)
        monkeypatch.setenv("TRITOWER_S3_RETRIES", "1")
        with Journal(location, JournalConfig(lease_s=60)) as journal:
            between.faults.append(Fault("lost", method="PUT"))
            assert journal.take([shown(1)]) == Receipt(taken=1, repeated=0)
            between.faults.append(Fault("status", method="PUT", times=2))
            with pytest.raises(StorageError, match="the store failed"):
                journal.take([shown(2)])
            assert journal.take([shown(2)]) == Receipt(taken=1, repeated=0)
    monkeypatch.setenv("TRITOWER_S3_ENDPOINT", endpoint)
    assert held(location) == [("r1", "j0"), ("r2", "j0")]


def test_a_reader_behind_does_not_wait_where_a_segment_was_made_shorter(tmp_path: Path) -> None:
    """`forget` has taken rows out of what it had read: its place is behind the segment's end, and what comes is before it."""
    location = tmp_path / "journal"
    with Journal(location) as journal:
        journal.take([shown(1, f"j{i}") for i in range(20)])
    reader = Reader(location)
    assert reader.read()[-1].number == 1 and reader.read() == []
    assert forgetting.forget("u", journal_at=location).journal_events == 20
    with Journal(location) as journal:
        journal.take([shown(2)])
    assert [frame.number for frame in reader.read()] == [2]


@pytest.mark.parametrize("cut", [1, 9, 40])
def test_the_end_that_a_crash_has_cut_is_put_aside(tmp_path: Path, cut: int, caplog: pytest.LogCaptureFixture) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.take([shown(1)])
        journal.take([shown(2)])
    segment = tmp_path / "journal" / records.segment_name(1)
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-cut])
    left = len(whole) - cut - records.frames(whole)[0].stop
    assert held(tmp_path / "journal") == [("r1", "j0")]
    with Journal(tmp_path / "journal") as journal:
        assert journal.take([shown(2)]) == Receipt(taken=1, repeated=0), "it was never safe"
    assert f"the last {left} bytes are no whole record" in caplog.text
    assert [len(path.read_bytes()) for path in (tmp_path / "journal").glob("cut-*")] == [left]
    assert held(tmp_path / "journal") == [("r1", "j0"), ("r2", "j0")]


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    config = JournalConfig(segment_bytes=300)
    with Journal(tmp_path / "journal", config) as journal:
        for number in range(6):
            journal.take([shown(number)])
    first = tmp_path / "journal" / segments.names(tmp_path / "journal")[0]
    content = bytearray(first.read_bytes())
    content[-3] ^= 1
    first.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match="segment is damaged after record 1"):
        held(tmp_path / "journal")
    with pytest.raises(ArtifactError, match=first.name):
        Journal(tmp_path / "journal", config)
    with storage.exclusive(tmp_path / "journal" / "writer", "looking"):
        """The failed opening has given the place back."""


@pytest.fixture
def writer(location: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WRITER, location, "0"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        yield process
        process.kill()


def test_a_killed_writer_loses_nothing_that_it_acknowledged(location: str, writer: subprocess.Popen[str]) -> None:
    assert writer.stdout
    for _ in range(20):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    acknowledged = max([19, *map(int, writer.stdout.read().split())])
    with Journal(location, JournalConfig(lease_s=2)) as journal:
        again = [journal.take([shown(number, f"j{i}", query="q") for i in range(3)]) for number in range(acknowledged + 1)]
        assert again == [Receipt(taken=0, repeated=3)] * (acknowledged + 1)
    found = held(location)
    assert len(found) == len(set(found))
    assert found[: 3 * (acknowledged + 1)] == [(f"r{n}", f"j{i}") for n in range(acknowledged + 1) for i in range(3)]


@contextlib.contextmanager
def full_disk(spare: int, path: Path) -> Iterator[None]:
    """No file grows beyond what this one holds and `spare` bytes: a real error of the system, after a part was written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_the_callers_error_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal" / records.segment_name(1)
    with Journal(tmp_path / "journal") as journal:
        journal.take([shown(1)])
        before = path.read_bytes()
        with full_disk(30, path), pytest.raises(StorageError, match="the disk is full"):
            journal.take([shown(2)])
        assert path.read_bytes() == before
        assert journal.take([shown(2)]) == Receipt(taken=1, repeated=0)
        assert journal.figures.failed == 1
    assert held(tmp_path / "journal") == [("r1", "j0"), ("r2", "j0")]


def test_too_much_is_refused_and_what_waits_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes its time: one call is being written, one waits, the third has no room."""
    going, done = threading.Event(), threading.Event()
    plain = os.fsync

    def slow(handle: int) -> None:
        going.set()
        assert done.wait(300)
        plain(handle)

    with Journal(tmp_path / "journal", JournalConfig(queued_events=2)) as journal:
        journal.take([shown(0)])
        monkeypatch.setattr(os, "fsync", slow)
        callers = [threading.Thread(target=journal.take, args=([shown(number)],)) for number in (1, 2)]
        callers[0].start()
        assert going.wait(300)
        callers[1].start()
        while journal.figures.waiting < 2:
            time.sleep(0.01)
        with pytest.raises(OverloadError, match="2 events wait"):
            journal.take([shown(3)])
        assert journal.figures.refused == 1
        done.set()
        for caller in callers:
            caller.join()
    assert held(tmp_path / "journal") == [("r0", "j0"), ("r1", "j0"), ("r2", "j0")]


def test_many_callers_share_a_record(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        callers = [threading.Thread(target=journal.take, args=([shown(n, f"j{i}") for i in range(3)],)) for n in range(60)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert journal.figures.journaled == 180
        assert journal.figures.records <= 60
    found = held(tmp_path / "journal")
    assert sorted(found) == sorted((f"r{n}", f"j{i}") for n in range(60) for i in range(3))
    assert all(len({request for request, _ in found[at : at + 3]}) == 1 for at in range(0, 180, 3)), "a call stays together"


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"color": 1}, "no such column"),
        ({"job_id": None}, "job_id. it is missing|missing .in event 0, job_id"),
        ({"user_id": ""}, "user_id"),
        ({"ts": "2026-01-01T00:00:00"}, "no zone"),
        ({"ts": 1.5}, "microseconds"),
        ({"ts": True}, "microseconds"),
        ({"query": 3}, "int, not text"),
        ({"query": "x" * 5_000}, "longer"),
        ({"query": "\ud800"}, "Unicode"),
        ({"clicked": "yes"}, "true or false"),
        ({"position": 0}, "from 1 to 32767"),
        ({"position": True}, "from 1 to 32767"),
        ({"event": "purchase"}, "not impression or click"),
        ({"event": "click", "clicked": False}, "false in a click"),
        ({"event": "click", "clicked_at": -1}, "microseconds"),
        ({"ts": 9, "clicked_at": 8}, "before ts"),
    ],
)
def test_a_bad_row_takes_the_whole_call_back(tmp_path: Path, event: dict[str, Any], message: str) -> None:
    with Journal(tmp_path / "journal") as journal:
        with pytest.raises(DataError, match=message):
            journal.take([shown(1) | event, shown(2)])
        assert journal.take([shown(2, ts="1970-01-01T00:00:01+00:00")]).taken == 1
    reader = Reader(tmp_path / "journal")
    assert reader.read()[0].record().events[0]["ts"] == 1_000_000


events = st.lists(st.dictionaries(st.sampled_from(["request_id", "query"]), st.text(max_size=5)), min_size=1, max_size=4)


@settings(max_examples=60)
@given(st.lists(events, max_size=5), st.integers(0, 10_000), st.integers(0, 255))
def test_no_byte_can_change_or_go_unseen(parts: list[list[dict[str, str]]], at: int, change: int) -> None:
    made = [Record(number=i + 1, taken=i, keys=tuple(range(len(part))), events=tuple(part)) for i, part in enumerate(parts)]
    data = MAGIC + b"".join(record.encode() for record in made)
    assert [frame.record() for frame in records.frames(data)] == [json_like(record) for record in made]
    at = at % len(data)
    assert len(records.frames(data[:at])) <= len(made)
    assert [f.record() for f in records.frames(data[:at])] == [json_like(r) for r in made][: len(records.frames(data[:at]))]
    changed = bytearray(data)
    changed[at] ^= change or 1
    for frame, record in zip(records.frames(bytes(changed)), made, strict=False):
        assert frame.stop <= at or frame.start > at or (frame.record() == record and frame.start > at)


def json_like(record: Record) -> Record:
    return Record(
        number=record.number, taken=record.taken, keys=record.keys, events=tuple(json.loads(json.dumps(record.events)))
    )


def test_keys_are_forgotten_oldest_first() -> None:
    seen = _Seen(2 * 65_536)
    for start in range(0, 4 * 65_536, 16_384):
        seen.add(range(start, start + 16_384))
    asked = [0, 65_535, 2 * 65_536 - 1, 2 * 65_536, 4 * 65_536 - 1, 1 << 40]
    assert seen.among(asked) == {2 * 65_536, 4 * 65_536 - 1}
    seen.add([0, 1 << 63])
    assert seen.among([0, 1, 1 << 63]) == {0, 1 << 63}
