"""Several servers on one journal, as processes: one takes events, the others follow, and each is killed on its way."""

import contextlib
import hashlib
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tritower import storage
from tritower.serving import records, retention, segments, tailing
from tritower.serving.events import checked
from tritower.serving.retention import Retention

from tests.support import counting_server
from tests.support.counted_board import FIRST, calls, opened, values
from tests.support.serving_process import Served, served, until

Start = Callable[..., contextlib.AbstractContextManager[Served]]
FAST = {"journal_days": 0, "served_days": 0, "state_days": 0}


@pytest.fixture
def start(board: Path, tmp_path: Path) -> Start:
    """Starts a server on the journal at a location."""
    numbers = iter(range(100))

    def one(location: str, *, takes: bool = False, torn: int = 0, **config: Any) -> contextlib.AbstractContextManager[Served]:
        writing = {"segment_bytes": 20_000 if storage.is_local(location) else 0, "lease_s": 2}
        feed = {"journal": location, "takes_events": takes, "poll_s": 0.1, "writing": writing, "retention": FAST}
        command, folder = counting_server.command(board, feed, torn=torn, **config), tmp_path / f"server-{next(numbers)}"
        folder.mkdir()
        return served(command, folder, {counting_server.TOLD: str(folder)})

    return one


def state(running: Served, pid: int) -> dict[str, Any]:
    """What one of a server's processes says of itself."""
    path = running.log.parent / f"{pid}.json"
    return dict(storage.read_json(path)) if path.exists() else {"record": -1, "looked": 0.0, "digest": ""}


def send(running: Served, part: list[list[dict[str, Any]]]) -> None:
    with running.client() as client:
        for call in part:
            answer = client.post("/events", json={"events": call})
            assert answer.status_code == 200, answer.text


def known_to(running: Served, record: int, pids: set[int]) -> set[str]:
    """The features of these processes when they have counted a record."""
    for pid in pids:
        until(lambda pid=pid: state(running, pid)["record"] >= record, 240)
    return {state(running, pid)["digest"] for pid in pids}


def workers_of(running: Served) -> set[int]:
    """The processes that answer; a spare one has not said anything yet."""
    children = {one.pid for one in psutil.Process(running.process.popen.pid).children()}
    return {pid for pid in children if state(running, pid)["record"] >= 0}


@pytest.mark.slow
def test_killed_followers_and_a_torn_writer_come_to_the_same_features(board: Path, tmp_path: Path, start: Start) -> None:
    journal, sent, third = str(tmp_path / "journal"), calls(board, FIRST), len(calls(board, FIRST)) // 3
    lived = opened(board)
    with contextlib.ExitStack() as stack:
        torn = 2 * third
        writer = stack.enter_context(start(journal, takes=True, torn=torn))
        pair = stack.enter_context(start(journal, workers=2))
        with start(journal) as replica:
            send(writer, sent[:third])
            until(lambda: len(workers_of(pair)) == 2)
            first = known_to(writer, third, {writer.process.popen.pid})
            assert known_to(pair, third, workers_of(pair)) == known_to(replica, third, {replica.process.popen.pid}) == first
            replica.process.popen.kill()
            replica.process.popen.wait()
        victim = psutil.Process(min(workers_of(pair)))
        victim.kill()
        victim.wait(300)
        send(writer, sent[third : torn - 1])
        with pytest.raises(httpx.TransportError):
            send(writer, [sent[torn - 1]])
        torn_at = time.time()
        until(lambda: len(workers_of(pair)) == 2 and pair.figure("tritower_ready") == 2)
        replica = stack.enter_context(start(journal))
        for running, pids in ((pair, workers_of(pair)), (replica, {replica.process.popen.pid})):
            for pid in pids:
                until(lambda running=running, pid=pid: state(running, pid)["looked"] > torn_at)
                assert state(running, pid)["record"] == torn - 1, "no half of a record"
        with start(journal, takes=True) as second:
            assert "are no whole record, cut by a crash" in second.said()
            send(second, sent[torn - 2 :])
            for call in sent:
                lived.observe(tailing.table([checked(event) for event in call]))
            count, events = len(sent), sum(map(len, sent))
            digests = known_to(second, count, {second.process.popen.pid}) | known_to(pair, count, workers_of(pair))
            digests |= known_to(replica, count, {replica.process.popen.pid})
            assert len(digests) == 1
            assert digests == {hashlib.sha256(values(lived)).hexdigest()}
            for running, processes in ((pair, 2), (replica, 1), (second, 1)):
                what = 'tritower_events_counted{what="applied_events"'
                until(lambda running=running, of=processes * events, what=what: running.figure(what) == of)
                assert running.figure("tritower_events_record") == count
                assert running.figure('tritower_events_counted{what="missing_records"') == 0
                until(lambda running=running: running.figure("tritower_events_behind_seconds") < 1)


@pytest.mark.slow
def test_what_a_follower_lacks_is_measured(board: Path, tmp_path: Path, start: Start) -> None:
    """It sleeps while the journal goes on and old segments are removed; then the disk of the writer is full."""
    journal, sent = str(tmp_path / "journal"), calls(board, FIRST)
    with start(journal, takes=True) as writer, start(journal) as follower:
        send(writer, sent[:5])
        known_to(follower, 5, {follower.process.popen.pid})
        follower.process.popen.send_signal(signal.SIGSTOP)
        send(writer, sent[5:40])
        retention.expire(Retention(journal_days=1), journal_at=journal, now=int((time.time() + 2 * 86_400) * 1e6))
        (left,) = segments.names(journal)
        first = records.first_number(left)
        assert first and first > 6, "records went that it had not read"
        follower.process.popen.send_signal(signal.SIGCONT)
        known_to(follower, 40, {follower.process.popen.pid})
        until(lambda: follower.figure('tritower_events_counted{what="missing_records"') == first - 6)
        assert f"records 6 to {first - 1} are not there any more" in follower.said()
        applied = sum(map(len, sent[:5])) + sum(map(len, sent[first - 1 : 40]))
        until(lambda: follower.figure('tritower_events_counted{what="applied_events"') == applied)
        assert writer.figure('tritower_events_counted{what="missing_records"') == 0
        _fill(writer, Path(journal) / segments.names(journal)[-1], sent[40])
        send(writer, sent[40:42])
        known_to(follower, 42, {follower.process.popen.pid})


def _fill(writer: Served, path: Path, call: list[dict[str, Any]]) -> None:
    """No file of the writer's grows beyond a few bytes more than this one has."""
    pid, unlimited = writer.process.popen.pid, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    before = path.read_bytes()
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (len(before) + 30, unlimited[1]))
    with writer.client() as client:
        answer = client.post("/events", json={"events": call})
    resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
    assert answer.status_code == 503 and "full" in answer.json()["what"]
    assert path.read_bytes() == before


@pytest.fixture(params=["s3", "gs"])
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "gs":
        request.getfixturevalue("gcs")
        yield "gs://bucket/journal"
    else:
        yield f"{request.getfixturevalue('s3')}/journal"


@pytest.mark.slow
def test_two_servers_on_a_journal_in_a_store(board: Path, store: str, start: Start) -> None:
    """Both are killed; the second writer waits for the first one's lease."""
    sent = calls(board, FIRST)[:40]
    with start(store) as follower, start(store, takes=True) as writer:
        send(writer, sent[:15])
        known_to(follower, 15, {follower.process.popen.pid})
        follower.process.popen.kill()
        send(writer, sent[15:25])
        writer.process.popen.kill()
        writer.process.popen.wait()
    with start(store, takes=True) as writer, start(store) as follower:
        send(writer, sent[20:])
        pids = {writer.process.popen.pid}, {follower.process.popen.pid}
        assert known_to(writer, 40, pids[0]) == known_to(follower, 40, pids[1])
        lived = opened(board)
        for call in sent:
            lived.observe(tailing.table([checked(event) for event in call]))
        assert known_to(follower, 40, pids[1]) == {hashlib.sha256(values(lived)).hexdigest()}
