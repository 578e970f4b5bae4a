"""Followers of a journal: the features of whoever follows are those of one who never stopped, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
from tritower import storage
from tritower.errors import DataError
from tritower.features.online import OnlineFeatures
from tritower.serving.events import checked
from tritower.serving.journal import Journal, JournalConfig
from tritower.serving.tailing import Follower, Known, begins, table

from tests.support import tiny_dataset
from tests.support.counted_board import FIRST, calls, compute, embed, opened, values

SERVER = """
import sys, time
from pathlib import Path
from tests.support.counted_board import opened
from tritower.serving.journal import Journal
from tritower.serving.tailing import Follower, Known
import json
folder, calls = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
journal = Journal(folder / "journal")
follower = Follower(folder / "journal", opened(folder).observe, Known.read(folder / "state"), wake=journal.written)
follower.start()
for call in calls[: 3 * len(calls) // 4]:
    journal.take(call)
    print(journal.figures.records, flush=True)
time.sleep(600)  # until it is killed
"""


def test_a_follower_counts_what_one_that_is_told_counts(board: Path, tmp_path: Path) -> None:
    told, following = opened(board), opened(board)
    known = Known.read(board / "state")
    with Journal(tmp_path / "journal", JournalConfig(segment_bytes=4_000)) as journal:
        follower = Follower(tmp_path / "journal", following.observe, known, wake=journal.written)
        for call in calls(board, FIRST):
            told.observe(table([checked(event) for event in call]))
            journal.take(call)
            follower.catch_up()
            lag = follower.lag()
    assert values(told) == values(following)
    assert (lag.skipped_events, lag.failed_events, lag.missing_records) == (0, 0, 0)
    assert lag.applied_events == journal.figures.journaled == sum(map(len, calls(board, FIRST)))
    assert lag.last_record == journal.figures.records and lag.behind_s < 1


def test_after_a_kill_the_features_are_those_of_one_that_lived_on(board: Path, tmp_path: Path) -> None:
    """The process that takes and counts is killed in the middle; a second one starts, and clients send again what they had no
    answer for."""
    folder = tmp_path / "server"
    folder.mkdir()
    for name in ("state", "dataset", "embeddings"):
        (folder / name).symlink_to((board / name).resolve())
    sent = calls(board, FIRST)
    (tmp_path / "calls.json").write_text(json.dumps(sent))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), *filter(None, sys.path)])}
    command = [sys.executable, "-c", SERVER, str(folder), str(tmp_path / "calls.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        for _ in range(len(sent) // 2):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        acknowledged = len(sent) // 2 + len(process.stdout.read().split())
    assert acknowledged < len(sent), "it was killed in the middle"
    second = opened(folder)
    with Journal(folder / "journal") as journal:
        follower = Follower(folder / "journal", second.observe, Known.read(folder / "state"), wake=journal.written)
        follower.start()
        for call in sent[acknowledged - 2 :]:
            journal.take(call)
        end = time.monotonic() + 120
        while follower.lag().last_record < journal.figures.records and time.monotonic() < end:
            time.sleep(0.02)
        follower.stop()
    third = opened(folder)
    Follower(folder / "journal", third.observe, Known.read(folder / "state")).catch_up()
    lived = opened(board)
    for call in sent:
        lived.observe(table([checked(event) for event in call]))
    assert values(second) == values(lived)
    assert values(third) == values(lived)


def test_a_newer_state_leaves_out_what_it_knows(board: Path, tmp_path: Path) -> None:
    """The journal holds every event since FIRST; the state of request 45 is opened, then more come, and one comes late."""
    journal_at, middle = tmp_path / "journal", 45
    newer = tiny_dataset.excerpt(board, tmp_path / "newer", 0, middle, seed=5)
    compute(newer, newer / "features")
    online = OnlineFeatures.open(newer / "features" / "state", board / "dataset", board / "embeddings", embed=embed)
    alone = OnlineFeatures.open(newer / "features" / "state", board / "dataset", board / "embeddings", embed=embed)
    known = Known.read(newer / "features")
    before = [call for call in calls(board, FIRST) if int(call[0]["request_id"][1:]) < middle]
    after = [call for call in calls(board, middle) if call[0].get("event") is None]
    with Journal(journal_at) as journal:
        for call in before:
            journal.take(call)
        at_opening = journal.figures.records
        follower = Follower(journal_at, online.observe, known)
        follower.catch_up()
        assert values(online) == values(alone), "the state has all of it"
        assert follower.lag().skipped_events == journal.figures.journaled
        for call in after:
            journal.take(call)
            alone.observe(table([checked(event) for event in call]))
        late = before[0][0] | {"request_id": "late"}
        journal.take([late])
        alone.observe(table([checked(late)]))
        follower.catch_up()
        assert values(online) == values(alone)
    again = OnlineFeatures.open(newer / "features" / "state", board / "dataset", board / "embeddings", embed=embed)
    Follower(journal_at, again.observe, known).catch_up()
    assert values(again) == values(alone), "the late one counts after a restart as well"
    assert begins(journal_at, known.identity) == at_opening
    assert storage.read_json(journal_at / "states.json") == {known.identity: at_opening}


def test_records_that_are_gone_are_counted_as_missing(tmp_path: Path) -> None:
    rows: list[pa.Table] = []
    with Journal(tmp_path / "journal", JournalConfig(segment_bytes=200)) as journal:
        for number in range(6):
            journal.take([{"request_id": f"r{number}", "ts": number, "user_id": "u", "query": "", "job_id": "j"}])
    segments = sorted((tmp_path / "journal").glob("segment-*"))
    for segment in segments[:2]:
        segment.unlink()
    follower = Follower(tmp_path / "journal", rows.append, Known(identity="x"))
    follower._begins = 0  # a state that was opened before any of it was written
    assert follower.catch_up() == 6 - int(segments[2].stem.split("-")[1]) + 1
    assert follower.lag().missing_records == int(segments[2].stem.split("-")[1]) - 1


def test_events_that_cannot_be_counted_stop_nobody(tmp_path: Path) -> None:
    found: list[str] = []

    def observe(rows: pa.Table) -> None:
        if rows["request_id"][0].as_py() == "r1":
            raise DataError("no vector", where="here")
        found.extend(rows["request_id"].to_pylist())

    with Journal(tmp_path / "journal") as journal:
        follower = Follower(tmp_path / "journal", observe, Known(identity="x"), poll_s=0.05)
        follower.start()
        for number in range(3):
            journal.take([{"request_id": f"r{number}", "ts": number, "user_id": "u", "query": "", "job_id": "j"}])
        end = time.monotonic() + 120
        while follower.lag().last_record < 3 and time.monotonic() < end:
            time.sleep(0.02)
        follower.stop()
    assert found == ["r0", "r2"]
    assert follower.lag().failed_events == 1
