"""Rows of one request and job, and ids that two tables spell in two ways."""

import datetime
import json
import random
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower.engines.protocol import open_engine
from tritower.ingest import repeats, step
from tritower.ingest.config import IngestConfig

from tests.support.ingest_log import Log, at

CASES = Path(__file__).parents[2] / "data" / "cases"


def test_a_log_with_its_clicks_as_second_rows(tmp_path: Path) -> None:
    folder = CASES / "18_click_as_second_row"
    uris = {"jobs": str(folder / "jobs.csv"), "impressions": str(folder / "impressions.parquet"), "users": ""}
    step.run(**uris, dataset=tmp_path / "out", config=IngestConfig(threads=1, max_quarantined_share=0.0))
    counts = json.loads((tmp_path / "out/dataset.json").read_text())["counts"]["impressions"]
    assert (counts["in"], counts["out"], counts["merged"], counts["deduplicated"]) == (4023, 3852, 171, 0)
    raw = pq.read_table(folder / "impressions.parquet").to_pylist()
    expected = {(row["request_id"], row["job_id"]): row["clicked_at"] for row in raw if row["clicked"]}
    requests = pq.read_table(tmp_path / "out/requests.parquet")["request_id"].to_pylist()
    jobs = pq.read_table(tmp_path / "out/jobs.parquet")["job_id"].to_pylist()
    parts = sorted((tmp_path / "out/impressions").rglob("*.parquet"))
    rows = [row for part in parts for row in pq.ParquetFile(part).read().to_pylist()]
    assert {(requests[row["request"]], jobs[row["job"]]): row["clicked_at"] for row in rows if row["clicked"]} == expected
    assert all(row["position"] for row in rows)


def _second(row: dict[str, Any], **more: Any) -> dict[str, Any]:
    return row | {"clicked": True, "clicked_at": None, "position": None} | more


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_click_events_without_query_position_or_time(tmp_path: Path, suffix: str, before: bool) -> None:
    """An event log: rows of what was shown, and rows of clicks that hold little; in either order."""
    log = Log(tmp_path, suffix)
    for row in log.impressions:
        row["clicked"], row["clicked_at"] = False, None
    shown = log.impressions[3]
    event = _second(shown, ts=shown["ts"] + datetime.timedelta(minutes=2), query=None)
    log.impressions = [event, *log.impressions] if before else [*log.impressions, event]
    log.run(max_quarantined_share=0.0)
    clicked = [row for row in log.shown() if row["clicked"]]
    assert len(log.shown()) == 60 and len(clicked) == 1
    assert (clicked[0]["position"], clicked[0]["ts"], clicked[0]["clicked_at"]) == (1, at(1), at(1 + 2 / 60))
    texts = log.table("texts")
    assert texts[clicked[0]["query_text"]]["value"] == "nurse 1"


def test_two_clicks_on_one_job_are_one_at_the_earlier_time(log: Log) -> None:
    clicked = log.impressions[1]
    assert clicked["clicked_at"] == at(1 / 60)
    log.impressions += [clicked | {"clicked_at": at(0.5)}, clicked | {"clicked_at": at(0.01)}, dict(clicked)]
    log.run(max_quarantined_share=0.0)
    row = log.shown()[1]
    assert (row["clicked_at"], row["position"], len(log.shown())) == (at(0.01), 2, 60)
    counts = json.loads((log.out / "dataset.json").read_text())["counts"]["impressions"]
    assert (counts["merged"], counts["deduplicated"]) == (2, 1)


def test_a_row_without_a_click_at_another_place_is_refused(log: Log) -> None:
    log.impressions += [
        log.impressions[0] | {"position": 9},
        log.impressions[1] | {"position": 9, "clicked": False, "clicked_at": None},
    ]
    log.impressions += [log.impressions[2] | {"position": None}, _second(log.impressions[4], position=9)]
    log.run()
    assert log.reasons() == {("impressions.parquet", 60): "duplicate_id", ("impressions.parquet", 61): "duplicate_id"}
    rows = log.shown()
    assert [row["position"] for row in rows[:6]] == [1, 2, 3, 1, 2, 3]
    assert rows[4]["clicked"] and rows[1]["clicked"]


@pytest.mark.parametrize("seed", range(3))
def test_no_click_is_lost_and_every_row_has_one_fate(seed: int) -> None:
    """200 requests of one to five rows on two jobs, in any order, against a reading of each pair by itself."""
    rng = random.Random(seed)
    rows = [
        {
            "request": request,
            "job": rng.randrange(2),
            "position": rng.choice([None, 1, 2]),
            "clicked": rng.random() < 0.4,
            "clicked_at": rng.choice([None, 5, 7]),
            "ts": rng.randrange(1, 5),
        }
        for request in range(200)
        for _ in range(rng.randrange(1, 6))
    ]
    rng.shuffle(rows)
    for seq, row in enumerate(rows):
        row |= {"seq": seq, "clicked_at": row["clicked_at"] if row["clicked"] else None, "conflict": False, "job_id": "a"}
    table = pa.Table.from_pylist(rows).append_column("reason", pa.nulls(len(rows), pa.string()))
    with open_engine(threads=1) as engine:
        for name in ("i_impressions", "c_impressions", "m_impressions"):
            engine.register(name, table)
        engine.register("n_jobs", pa.table({"job_id": ["a"]}))
        found = repeats.unique_impressions(engine)
        kept = {(row["request"], row["job"]): row for row in engine.rows("SELECT * FROM u_impressions")}
        refused = [rows[row["seq"]] for row in engine.rows("SELECT * FROM late_impressions")]
    assert min(found["deduplicated"], found["merged"], len(refused)) > 10
    assert len(rows) == len(kept) + found["deduplicated"] + found["merged"] + len(refused)
    assert not any(row["clicked"] for row in refused)
    assert set(kept) == {(row["request"], row["job"]) for row in rows}
    for key, row in kept.items():
        same = [other for other in rows if (other["request"], other["job"]) == key]
        clicks = [other for other in same if other["clicked"]]
        assert row["clicked"] == bool(clicks)
        assert row["position"] == next((other["position"] for other in same if other["position"]), None)
        said = {(other["position"], other["clicked"], other["clicked_at"]) for other in same}
        earliest = min((other["clicked_at"] or other["ts"] for other in clicks), default=None)
        assert row["clicked_at"] == (same[0]["clicked_at"] if len(said) == 1 else earliest)


def _with_uuids(log: Log) -> dict[str, uuid.UUID]:
    keys = {name: uuid.uuid5(uuid.NAMESPACE_DNS, name) for name in ("a", "b", "c", "u0")}
    log.jobs = [row | {"job_id": str(keys[row["job_id"]])} for row in log.jobs]
    log.users = [row | {"user_id": str(keys["u0"]).upper()} for row in log.users if row["user_id"] == "u0"]
    return keys


@pytest.mark.parametrize(
    "spelling",
    [lambda key: key.hex, lambda key: str(key).upper(), lambda key: f"{{{key}}}", lambda key: key.urn, lambda key: f" {key}\t"],
)
def test_ids_of_another_spelling_match(log: Log, spelling: Any) -> None:
    keys = _with_uuids(log)
    for row in log.impressions:
        row["job_id"] = spelling(keys[row["job_id"]])
        row["user_id"] = spelling(keys["u0"]) if row["user_id"] == "u0" else row["user_id"]
    log.run(max_quarantined_share=0.0)
    assert log.mended()["job_id.respelt"] == 60 and len(log.shown()) == 60
    assert [row["job_id"] for row in log.table("jobs")] == sorted(str(keys[name]) for name in "abc")
    profiles = {row["user_id"]: row["interests"] for row in log.table("users")}
    assert profiles == {str(keys["u0"]).upper(): ["Nurse", "Cook"], "u1": None, "u2": None}
    users = log.table("users")
    assert sum(users[row["user"]]["interests"] is not None for row in log.shown()) == 21


@pytest.mark.parametrize("kind", [pa.binary(16), pa.uuid(), pa.binary()])
def test_uuids_as_bytes(log: Log, kind: pa.DataType) -> None:
    keys = _with_uuids(log)
    table = pa.Table.from_pylist(log.impressions)
    ids = pa.array([keys[row["job_id"]].bytes for row in log.impressions], kind)
    pq.write_table(table.set_column(table.column_names.index("job_id"), "job_id", ids), log.folder / "bytes.parquet")
    log.run(places={"impressions": str(log.folder / "bytes.parquet")}, max_quarantined_share=0.0)
    assert len(log.shown()) == 60 and "job_id.respelt" not in log.mended()


def test_an_id_that_could_be_two_jobs_is_no_job(log: Log) -> None:
    key = uuid.uuid5(uuid.NAMESPACE_DNS, "a")
    log.jobs += [{"job_id": spelt, "title": "T", "company": "C"} for spelt in (str(key), str(key).upper())]
    log.impressions[0]["job_id"] = key.hex
    log.run()
    assert log.reasons() == {("impressions.parquet", 0): "unknown_job"}


@pytest.mark.parametrize(
    "kind", [pa.int32(), pa.uint64(), pa.float64(), pa.decimal128(19, 0), pa.decimal128(38, 2), pa.string()]
)
def test_ids_of_another_type_match(log: Log, kind: pa.DataType) -> None:
    numbers = {"a": 101, "b": 102, "c": 103}
    log.jobs = [row | {"job_id": numbers[row["job_id"]]} for row in log.jobs]
    table = pa.Table.from_pylist(log.impressions)
    written = pa.array([numbers[row["job_id"]] for row in log.impressions])
    written = pa.array([f"{number}.0" for number in written.to_pylist()]) if kind == pa.string() else written.cast(kind)
    pq.write_table(table.set_column(table.column_names.index("job_id"), "job_id", written), log.folder / "other.parquet")
    log.run(places={"impressions": str(log.folder / "other.parquet")}, max_quarantined_share=0.0)
    assert len(log.shown()) == 60


def test_floats_too_large_to_tell_ids_apart_are_refused(log: Log) -> None:
    """2**53 + 1 has no float of its own: two jobs would become one."""
    table = pa.Table.from_pylist(log.impressions)
    written = pa.array([float(2**53 + 2)] * 60)
    pq.write_table(table.set_column(table.column_names.index("job_id"), "job_id", written), log.folder / "large.parquet")
    with pytest.raises(ValueError, match="wrong_type 60"):
        log.run(places={"impressions": str(log.folder / "large.parquet")}, max_quarantined_share=0.5)
