"""Bad input: one clear error, or a quarantined row with its reason; never half a dataset."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tritower.errors import ConfigError, CredentialsError, DataError, QualityError, SchemaError, StorageError, TritowerError

from tests.support.ingest_log import Log, at, save


def _drop(name: str) -> Callable[[Log], None]:
    def change(log: Log) -> None:
        for row in log.impressions:
            del row[name]

    return change


def _rename(old: str, new: str) -> Callable[[Log], None]:
    def change(log: Log) -> None:
        for row in log.impressions:
            row[new] = row.pop(old)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop("user_id"), "column 'user_id' is missing"),
        (_rename("user_id", "userid"), "Did you mean 'userid'"),
        (_rename("job_id", "JobID"), "Did you mean 'JobID'"),
        (_rename("clicked", "is_clicked"), "Did you mean 'is_clicked'"),
        (_rename("clicked", "click"), "Did you mean 'click'"),
    ],
)
def test_a_missing_column(log: Log, change: Callable[[Log], None], message: str) -> None:
    change(log)
    with pytest.raises(SchemaError, match=message) as caught:
        log.run()
    assert "impressions.parquet" in str(caught.value)
    assert "rename" in str(caught.value)
    assert not log.out.exists()


def test_a_column_renamed_by_knob(log: Log) -> None:
    _rename("ts", "shown_at")(log)
    log.run(rename={"impressions.shown_at": "ts"})
    assert len(log.shown()) == 60


@pytest.mark.parametrize(
    ("column", "value", "reason", "detail"),
    [
        ("ts", "yesterday", "wrong_type", "ts = 'yesterday'"),
        ("ts", "2026-02-30T00:00:00", "wrong_type", "ts = '2026-02-30T00:00:00'"),
        ("ts", "", "missing_value", "ts = nothing"),
        ("ts", "2107-01-01", "out_of_range", "ts = '2107-01-01'"),
        ("clicked", "maybe", "wrong_type", "clicked = 'maybe'"),
        ("user_id", "", "missing_value", "user_id = nothing"),
        ("job_id", "nowhere", "unknown_job", "job_id = nowhere"),
        ("clicked_at", at(-1).isoformat(), "click_before_impression", "clicked_at = '2025-12-31T23:00:00+00:00'"),
        ("user_id", "other", "request_conflict", "another user"),
    ],
)
def test_a_bad_value_is_quarantined(tmp_path: Path, column: str, value: str, reason: str, detail: str) -> None:
    log = Log(tmp_path, ".csv")
    log.impressions[7][column] = value
    log.impressions[7]["clicked"] = "true" if column == "clicked_at" else log.impressions[7]["clicked"]
    if column == "clicked":
        log.impressions[7]["clicked"] = value
    numbers = log.run()
    assert log.reasons() == {("impressions.csv", 7): reason}
    row = log.table("quarantine")[0]
    assert row["table"] == "impressions"
    assert detail in row["detail"]
    assert json.loads(row["record"])["request_id"] == "r002"
    assert numbers["impressions_quarantined"] == 1
    assert len(log.shown()) == 59


def test_bad_jobs_and_users(log: Log) -> None:
    log.jobs += [
        {"job_id": "d", "title": " ", "company": "X"},
        {"job_id": "e", "title": "T", "company": None},  # an employer without a name is allowed
        {"job_id": "f", "title": "T", "company": "X", "posted_at": at(2), "expires_at": at(1)},
        {"job_id": "a", "title": "Another", "company": "X"},
        dict(log.jobs[1]),
    ]
    log.users += [{"user_id": "u0", "interests": ["Pilot"]}, {"user_id": None}]
    log.run()
    assert log.reasons() == {
        ("jobs.parquet", 3): "missing_value",
        ("jobs.parquet", 5): "expires_before_posted",
        ("jobs.parquet", 6): "duplicate_id",
        ("users.parquet", 2): "duplicate_id",
        ("users.parquet", 3): "missing_value",
    }
    assert [row["job_id"] for row in log.table("jobs")] == ["a", "b", "c", "e"]
    counts = json.loads((log.out / "dataset.json").read_text())["counts"]
    assert (counts["jobs"]["in"], counts["jobs"]["out"], counts["jobs"]["quarantined"], counts["jobs"]["deduplicated"]) == (
        8,
        4,
        3,
        1,
    )


def test_repeated_rows(log: Log) -> None:
    log.impressions.insert(5, dict(log.impressions[4]))
    log.impressions.insert(6, log.impressions[4] | {"position": 9})
    numbers = log.run()
    assert numbers["impressions_deduplicated"] == 1
    assert log.reasons() == {("impressions.parquet", 6): "duplicate_id"}
    assert len(log.shown()) == 60


def test_a_click_time_without_a_click(log: Log) -> None:
    log.impressions[0]["clicked_at"] = at(1)
    log.run()
    assert log.reasons() == {("impressions.parquet", 0): "click_time_without_click"}


def test_too_many_bad_rows_stop_the_step(log: Log) -> None:
    for row in log.impressions[2:8]:
        row["job_id"] = "gone"
    with pytest.raises(
        QualityError, match=r"10.0% of the rows were refused, at most 5.0% are .*: unknown_job 6.*job_id = gone"
    ):
        log.run(max_quarantined_share=0.05)
    assert not log.out.exists()
    log.run(max_quarantined_share=0.1)


def test_a_csv_in_another_encoding(tmp_path: Path) -> None:
    log = Log(tmp_path, ".csv")
    save(log.jobs, tmp_path / "jobs.csv")
    text = (tmp_path / "jobs.csv").read_text(encoding="utf-8")
    (tmp_path / "latin.csv").write_bytes(text.encode("latin-1"))
    log.run(places={"jobs": str(tmp_path / "latin.csv")})
    reasons = log.reasons()
    assert reasons[("latin.csv", 2)] == "not_utf8"
    assert [row["job_id"] for row in log.table("jobs")] == ["a", "b"]
    row = next(row for row in log.table("quarantine") if row["table"] == "jobs")
    assert "\\xc9t\\xe9" in row["detail"]
    (tmp_path / "wide.csv").write_text(text, encoding="utf-16")
    with pytest.raises(DataError, match="UTF-16"):
        log.run(places={"jobs": str(tmp_path / "wide.csv")})


def test_csv_rows_of_the_wrong_length_keep_the_count(tmp_path: Path) -> None:
    log = Log(tmp_path, ".csv")
    lines = Path(save(log.impressions, tmp_path / "impressions.csv")).read_text().split("\n")
    lines.insert(3, "a,b")
    lines.insert(6, "a," * 30)
    (tmp_path / "ragged.csv").write_text("\n".join(lines))
    log.run(places={"impressions": str(tmp_path / "ragged.csv")})
    assert log.reasons() == {("ragged.csv", 2): "wrong_field_count", ("ragged.csv", 5): "wrong_field_count"}
    assert len(log.shown()) == 60


def test_quoted_line_breaks_and_semicolons(tmp_path: Path) -> None:
    log = Log(tmp_path)
    (tmp_path / "jobs.csv").write_bytes(
        b"\xef\xbb\xbfjob_id;title;company;description\r\n"
        b'a;"Nurse;\r\nnight";Acme;"two\nlines"\r\nb;Cook;Acme;\r\nc;"He said ""hi""";Acme;x\r\n'
    )
    log.run(places={"jobs": str(tmp_path / "jobs.csv")})
    assert [row["title"] for row in log.table("jobs")] == ["Nurse; night", "Cook", 'He said "hi"']
    assert log.table("jobs")[0]["description"] == "two\nlines"


def test_lines_that_are_not_json(tmp_path: Path) -> None:
    log = Log(tmp_path, ".jsonl")
    lines = Path(save(log.impressions, tmp_path / "impressions.jsonl")).read_text().split("\n")
    lines[4] = lines[4][:-5]
    lines.insert(8, "[1, 2]")
    (tmp_path / "broken.jsonl").write_text("\n".join(lines))
    log.run(places={"impressions": str(tmp_path / "broken.jsonl")})
    assert log.reasons() == {("broken.jsonl", 4): "not_json", ("broken.jsonl", 8): "not_json"}
    assert len(log.shown()) == 59


def test_values_of_mixed_types_in_json(tmp_path: Path) -> None:
    log = Log(tmp_path, ".jsonl")
    log.impressions[3]["position"] = "two"
    log.impressions[9]["clicked"] = 0
    log.run()
    assert log.reasons() == {}
    assert log.mended() == {"position.wrong_type": 1}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def _damage(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[4 : len(whole) // 2] = bytes(len(whole) // 2 - 4)
    path.write_bytes(whole)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_cut, "not a whole Parquet file"),
        (_damage, "not a whole Parquet file"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.unlink(), "nothing is there"),
    ],
)
def test_a_spoilt_file(log: Log, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(Path(save(log.impressions * 50, log.folder / "spoilt.parquet")))
    with pytest.raises(TritowerError, match=message) as caught:
        log.run(places={"impressions": str(log.folder / "spoilt.parquet")})
    assert "spoilt.parquet" in str(caught.value)
    assert not log.out.exists()


def test_no_rows_no_files_too_few(log: Log, tmp_path: Path) -> None:
    (tmp_path / "header.csv").write_text("request_id,ts,user_id,query,job_id,clicked\n")
    with pytest.raises(DataError, match="no rows"):
        log.run(places={"impressions": str(tmp_path / "header.csv")})
    (tmp_path / "nothing.csv").write_text("\n")
    with pytest.raises(DataError, match="no header"):
        log.run(places={"impressions": str(tmp_path / "nothing.csv")})
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match="nothing is there"):
        log.run(places={"impressions": str(tmp_path / "empty")})
    (tmp_path / "empty" / "notes.docx").write_text("x")
    with pytest.raises(DataError, match="no CSV, JSON Lines or Parquet"):
        log.run(places={"impressions": str(tmp_path / "empty")})
    log.impressions = log.impressions[:6]
    with pytest.raises(DataError, match="cannot be split by time"):
        log.run()
    assert not log.out.exists()


def test_a_location_without_credentials(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "MINIO_", "TRITOWER_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(log.folder))
    with pytest.raises(CredentialsError, match="AWS_ACCESS_KEY_ID"):
        log.run(places={"impressions": "s3://bucket/impressions"})
    assert not log.out.exists()


def test_a_failed_run_leaves_the_older_dataset(log: Log) -> None:
    log.run()
    before = log.shown()
    log.impressions = log.impressions[:3]
    with pytest.raises(DataError):
        log.run()
    assert log.shown() == before
    assert sorted(path.name for path in log.folder.iterdir() if path.name.startswith(".")) == []


def test_no_room_on_the_disk(log: Log) -> None:
    """A real limit on the size of files, in a process of its own."""
    log.impressions = [
        row | {"request_id": f"r{copy}-{row['request_id']}", "query": f"{copy * 7919 % 10007} {row['query']}"}
        for copy in range(300)
        for row in log.impressions
    ]
    uris = {name: save(getattr(log, name), log.folder / f"{name}.parquet") for name in ("jobs", "impressions", "users")}
    code = (
        "import json, resource, sys\n"
        "from tritower import errors\n"
        "from tritower.ingest import step\n"
        "from tritower.ingest.config import IngestConfig\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "try:\n"
        "    step.run(**json.loads(sys.argv[1]), config=IngestConfig(threads=1))\n"
        "except errors.StorageError as error:\n"
        "    sys.exit(str(error))\n"
    )
    command = [sys.executable, "-c", code, json.dumps(uris | {"dataset": str(log.out)})]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "the disk is full" in done.stderr
    assert not log.out.exists()
    assert sorted(path.name for path in log.folder.iterdir()) == ["impressions.parquet", "jobs.parquet", "users.parquet"]


@pytest.mark.parametrize(
    "knobs",
    [
        {"validation_share": 0.0},
        {"test_share": 0.6},
        {"max_quarantined_share": -0.1},
        {"memory_limit": "lots"},
        {"threads": -1},
        {"negatives": -1},
        {"negatives_window_d": 0.0},
        {"seed": -1},
        {"rename": {"ts": "when"}},
        {"max_ctr_change": 0.0},
        {"max_click_skew_s": -1.0},
        {"max_missing_rise": 2.0},
    ],
)
def test_knobs_out_of_range(log: Log, knobs: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(knobs))):
        log.run(**knobs)


def test_too_little_memory_for_the_engine(log: Log) -> None:
    log.impressions = [
        row | {"request_id": f"{copy}-{row['request_id']}", "query": f"{copy} " * 200}
        for copy in range(800)
        for row in log.impressions
    ]
    with pytest.raises(ConfigError, match="memory_limit"):
        log.run(memory_limit="8MiB")
    assert not log.out.exists()
