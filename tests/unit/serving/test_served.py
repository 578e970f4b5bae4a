"""The log of what was served, and the raw impressions that it makes together with the journal."""

import dataclasses
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower import schema
from tritower.assignment import Arm, Experiment
from tritower.errors import DataError
from tritower.ingest import step as ingest
from tritower.ingest.config import IngestConfig
from tritower.serving import served, shown
from tritower.serving.journal import Journal, JournalConfig
from tritower.serving.messages import Answer, Question, RankedJob, Versions
from tritower.serving.served import ServedConfig, ServedLog
from tritower.serving.shuffling import shuffled

HOUR = 3_600_000_000
START = 1_795_762_800_000_000  # 2026-11-27T07:00Z
NAMES = ("job_ctr", "title_token_set")
VERSIONS = Versions(bundle="b1", name="other", model="m1", encoder="e1", catalogue="c1", state="2026-11-27T06:59:00+00:00")
EXPERIMENT = Experiment(name="towers", salt="s1", arms=(Arm(name="main"), Arm(name="other")))


def asked(request: int, jobs: int = 3, *, ts: int = START, user: str = "u1") -> tuple[Question, Answer]:
    ranked = tuple(
        RankedJob(
            job_id=f"j{i}", rank=i + 1, score=0.5 / (i + 1), title=f"t{i}", company="Acme", features=(i / 8, float("nan"))
        )
        for i in range(jobs)
    )
    question = Question(query="nurse", user_id=user, city="Boston", region="MA", country="US", with_features=True)
    return question, Answer(request_id=f"r{request}", ts=ts, jobs=ranked, versions=VERSIONS, features=NAMES)


def logged(location: Any) -> pa.Table:
    return pa.concat_tables([pq.read_table(name, partitioning=None) for name in served.files(location)])


def test_the_columns_are_those_of_the_schema(tmp_path: Path) -> None:
    log = ServedLog(tmp_path / "served")
    question, answer = asked(1)
    answer = shuffled(answer, share=1, top=2)
    log.put(question, answer, EXPERIMENT.assign("u1"))
    log.close()
    (name,) = served.files(tmp_path / "served")
    assert re.fullmatch(r"hour=2026-11-27T07/part-\d+-[\w.-]+-0\.parquet", str(Path(name).relative_to(tmp_path / "served")))
    table = pq.read_table(name, partitioning=None)
    assert table.schema.equals(schema.SERVED.arrow())
    assert table.schema.metadata[served.NAMES].decode().split("\n") == list(NAMES)
    rows = table.to_pylist()
    assert [row["position"] for row in rows] == [1, 2, 3]
    assert {row["job_id"]: row["model_rank"] for row in rows} == {"j0": 1, "j1": 2, "j2": 3}
    assert [row["propensity"] for row in rows] == [0.5, 0.5, 1]
    assert {(row["shuffled"], row["randomised"]) for row in rows} == {(True, False)}
    given = EXPERIMENT.assign("u1")
    assert {(row["experiment"], row["salt"], row["unit"], row["arm"], row["why"]) for row in rows} == {
        ("towers", "s1", "u1", given.arm, "arm")
    }
    by_job = {row["job_id"]: row["features"] for row in rows}
    assert by_job["j2"][0] == 0.25 and np.isnan(by_job["j2"][1])
    assert rows[0]["bundle"] == "b1" and rows[0]["bundle_name"] == "other" and rows[0]["state"] == VERSIONS.state
    assert rows[0]["ts"].isoformat() == "2026-11-27T07:00:00+00:00"


def test_a_file_holds_an_hour_one_set_of_features_and_so_many_rows(tmp_path: Path) -> None:
    log = ServedLog(tmp_path / "served", ServedConfig(rows=6))
    for number in range(4):
        log.put(*asked(number))
    log.put(*asked(4, ts=START + HOUR))
    question, other = asked(5, ts=START + HOUR)
    log.put(question, dataclasses.replace(other, features=("other", "names")))
    log.put(*asked(6, jobs=0))
    log.close()
    files = [Path(name) for name in served.files(tmp_path / "served")]
    assert [(file.parent.name[-2:], pq.read_metadata(file).num_rows) for file in files] == [
        ("07", 6), ("07", 6), ("08", 3), ("08", 3),
    ]  # fmt: skip
    assert (log.figures.written, log.figures.files, log.figures.lost, log.figures.left_out) == (18, 4, 0, 0)
    assert not list((tmp_path / "served").rglob("*.partial"))


def test_a_file_is_finished_when_its_time_is_over(tmp_path: Path) -> None:
    log = ServedLog(tmp_path / "served", ServedConfig(age_s=0.2))
    log.put(*asked(1))
    end = time.monotonic() + 120
    while not log.figures.files and time.monotonic() < end:
        time.sleep(0.02)
    assert len(served.files(tmp_path / "served")) == 1
    log.close()


def test_a_store_holds_the_same(s3: str) -> None:
    log = ServedLog(f"{s3}/served")
    log.put(*asked(1))
    log.close()
    (name,) = served.files(f"{s3}/served")
    assert served.hour_of(name) == START
    assert log.figures.written == 3


def test_what_cannot_be_written_is_counted_and_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "served").write_text("a file in its place")
    log = ServedLog(tmp_path / "served", ServedConfig(rows=3))
    log.put(*asked(1))
    log.put(*asked(2))
    log.close()
    assert (log.figures.lost, log.figures.written) == (6, 0)


def click(request: int, job: str, at: int, **more: Any) -> dict[str, Any]:
    row = {"request_id": f"r{request}", "ts": START, "user_id": "u1", "query": "nurse", "job_id": job, "event": "click"}
    return row | {"clicked_at": at} | more


def test_raw_impressions_are_what_was_shown_with_its_clicks(tmp_path: Path) -> None:
    """r1: served, clicked. r2: three served, the page showed two. r3: nobody known. r4: shown by others. r9: a lone click."""
    log = ServedLog(tmp_path / "served")
    for one in (asked(1), asked(2), asked(3, user=""), asked(7, ts=START + 30 * HOUR)):
        log.put(*one)
    log.close()
    with Journal(tmp_path / "journal", JournalConfig(segment_bytes=500)) as journal:
        journal.take([click(1, "j1", START + 9), click(1, "j1", START + 5, ts=START)])
        seen = {"ts": START + 1, "user_id": "u1", "query": "nurse"}
        journal.take([{"request_id": "r2", "job_id": f"j{i}", "position": i + 1} | seen for i in range(2)])
        journal.take([{"request_id": "r4", "job_id": "j5", "position": 1} | seen | {"clicked": True}])
        journal.take([click(9, "j1", START + 9)])
    counts = shown.write(served_at=tmp_path / "served", journal=tmp_path / "journal", out=tmp_path / "raw", until=START + HOUR)
    assert counts == {"rows": 9, "clicks": 2, "searches": 4, "lone_clicks": 1}
    table = pq.read_table(tmp_path / "raw")
    assert table.schema.names == schema.SHOWN.names()
    rows = {(row["request_id"], row["job_id"]): row for row in table.to_pylist()}
    assert sorted(rows) == sorted(
        [*((f"r{r}", f"j{i}") for r in (1, 3) for i in range(3)), ("r2", "j0"), ("r2", "j1"), ("r4", "j5")]
    )
    assert [key for key, row in rows.items() if row["clicked"]] == [("r1", "j1"), ("r4", "j5")]
    assert rows["r1", "j1"]["clicked_at"].microsecond == 9
    assert rows["r3", "j0"]["user_id"] == "visit r3"
    assert rows["r2", "j0"]["score"] == 0.5 and rows["r4", "j5"]["score"] is None
    assert rows["r4", "j5"]["position"] == 1
    with pytest.raises(DataError, match="nothing was served"):
        shown.write(served_at=tmp_path / "served", journal=tmp_path / "journal", out=tmp_path / "x", until=5)


def test_ingest_reads_it_as_it_is(tmp_path: Path) -> None:
    log = ServedLog(tmp_path / "served")
    for number in range(30):
        log.put(*asked(number, ts=START + number * HOUR, user=f"u{number % 4}"))
    log.close()
    with Journal(tmp_path / "journal") as journal:
        for number in range(0, 30, 2):
            row = {"ts": START + number * HOUR, "user_id": f"u{number % 4}"}
            journal.take([click(number, "j1", START + number * HOUR + 7) | row])
    shown.write(served_at=tmp_path / "served", journal=tmp_path / "journal", out=tmp_path / "raw")
    jobs = {"job_id": [f"j{i}" for i in range(3)], "title": ["Nurse", "RN", "Cook"], "company": ["Acme"] * 3}
    pq.write_table(pa.table(jobs), tmp_path / "jobs.parquet")
    users = {"user_id": [f"u{i}" for i in range(4)]}
    pq.write_table(pa.table(users), tmp_path / "users.parquet")
    numbers = ingest.run(
        jobs=str(tmp_path / "jobs.parquet"), impressions=str(tmp_path / "raw"), users=str(tmp_path / "users.parquet"),
        dataset=tmp_path / "dataset", config=IngestConfig(),
    )  # fmt: skip
    parts = [pq.read_table(tmp_path / "dataset" / "impressions" / split, partitioning=None) for split in schema.SPLITS]
    rows = pa.concat_tables(parts)
    assert len(rows) == 90 and sum(rows["clicked"].to_pylist()) == 15, numbers
    assert rows["position"].to_pylist()[:3] == [1, 2, 3]
