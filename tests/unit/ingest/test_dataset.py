"""The dataset of a small log, checked value by value and against a plain recomputation."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower import schema

from tests.support.ingest_log import Log, at, jobs


def test_every_table_has_its_schema(log: Log) -> None:
    log.run()
    expected = {
        "jobs": schema.DATASET_JOBS,
        "users": schema.DATASET_USERS,
        "requests": schema.DATASET_REQUESTS,
        "texts": schema.DATASET_TEXTS,
        "quarantine": schema.DATASET_QUARANTINE,
        "impressions/train/part-00000": schema.DATASET_IMPRESSIONS,
        "impressions/validation/part-00000": schema.DATASET_IMPRESSIONS,
        "impressions/test/part-00000": schema.DATASET_IMPRESSIONS,
    }
    found = {str(path.relative_to(log.out).with_suffix("")): path for path in log.out.rglob("*.parquet")}
    assert set(found) == set(expected)
    for name, table in expected.items():
        assert pq.ParquetFile(found[name]).schema_arrow.remove_metadata() == table.arrow(), name
    assert not (log.out / ".scratch").exists()


def test_jobs_users_and_texts_by_hand(log: Log) -> None:
    log.run()
    texts = log.table("texts")
    text = [row["value"] for row in texts]
    assert [row["text"] for row in texts] == list(range(len(texts)))
    assert text == sorted(text, key=str.encode)
    assert {row["value"] for row in texts if row["is_query"]} == {f"nurse {i}" for i in range(4)}
    assert {row["value"] for row in texts if row["is_profile"]} == {"Nurse", "Cook"}
    first, second, third = log.table("jobs")
    assert (first["job"], first["job_id"], first["title"]) == (0, "a", "Registered Nurse")
    assert text[first["title_text"]] == "Registered Nurse"
    assert text[first["document_text"]] == "Registered Nurse, Acme"
    assert first["company_key"] == second["company_key"] != third["company_key"]
    assert first["posted_at"] == at(-50)
    people = log.table("users")
    assert [row["user_id"] for row in people] == ["quiet", "u0", "u1", "u2"]
    assert [[text[t] for t in row["interest_texts"]] for row in people] == [[], ["Nurse", "Cook"], [], []]
    assert [[text[t] for t in row["past_title_texts"]] for row in people] == [[], ["Nurse"], [], []]


def test_first_words_of_descriptions_are_texts(log: Log) -> None:
    """Two jobs share the words kept; a blank description is none, and a title may be a description as well."""
    told = {"a": "We  hire\nnurses for nights", "b": "We hire nurses for days", "c": "Line Cook"}
    more = [{"job_id": "d", "title": "Cook", "company": "Acme", "description": "  "}]
    log.jobs = [job | {"description": told[job["job_id"]]} for job in jobs()] + more
    log.run(description_words=3)
    values = log.table("texts")
    numbers = [job["description_text"] for job in log.table("jobs")]
    words = [None if number is None else values[number]["value"] for number in numbers]
    assert words == ["We hire nurses", "We hire nurses", "Line Cook", None]
    flags = {row["value"]: (row["is_description"], row["is_title"]) for row in values}
    assert flags["We hire nurses"] == (True, False) and flags["Line Cook"] == (True, True) and flags["Cook"] == (False, True)
    log.run(description_words=0)
    assert not any(row["is_description"] for row in log.table("texts"))
    assert {job["description_text"] for job in log.table("jobs")} == {None}


def test_rows_by_hand(log: Log) -> None:
    numbers = log.run()
    rows = log.shown()
    assert [row["row"] for row in rows] == list(range(60))
    assert (numbers["train_impressions"], numbers["test_impressions"]) == (42, 9)
    row = rows[13]  # request 4, job b
    texts, people = log.table("texts"), log.table("users")
    assert (row["request"], row["ts"], row["job"], row["position"], row["clicked"]) == (4, at(4), 1, 2, True)
    assert row["clicked_at"] == at(4 + 1 / 60)
    assert people[row["user"]]["user_id"] == "u1"
    assert texts[row["query_text"]]["value"] == "nurse 0"
    assert texts[row["document_text"]]["value"] == "Line Cook, ACME"
    assert rows[12]["clicked_at"] is None
    splits = [request["split"] for request in log.table("requests")]
    assert splits == ["train"] * 14 + ["validation"] * 3 + ["test"] * 3
    summary = json.loads((log.out / "dataset.json").read_text())
    assert summary["splits"]["validation"]["from"] == at(14).isoformat()
    assert summary["splits"]["validation"]["to"] == at(16).isoformat()


def test_a_click_without_a_time_counts_from_the_impression(log: Log) -> None:
    for row in log.impressions:
        del row["clicked_at"]
    log.run()
    assert all(row["clicked_at"] == (row["ts"] if row["clicked"] else None) for row in log.shown())


def test_requests_of_one_time_stay_in_one_split(log: Log) -> None:
    for row in log.impressions:
        if row["request_id"] in ("r013", "r014", "r015"):
            row["ts"] = at(13)
            row["clicked_at"] = at(14) if row["clicked"] else None
    log.run()
    splits = {row["request_id"]: row["split"] for row in log.table("requests")}
    assert splits["r012"] == "train"
    assert splits["r013"] == splits["r014"] == splits["r015"] == "validation"


def test_rows_of_a_request_take_its_earliest_time(log: Log) -> None:
    log.impressions[4]["ts"] = at(0.5)
    log.run()
    moved = [row for row in log.table("requests") if row["request_id"] == "r001"]
    assert moved[0]["ts"] == at(0.5)
    assert {row["ts"] for row in log.shown() if row["request"] == moved[0]["request"]} == {at(0.5)}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_every_format_gives_the_same_dataset(log: Log, tmp_path: Path, suffix: str) -> None:
    log.run()
    (tmp_path / "other").mkdir()
    other = Log(tmp_path / "other", suffix)
    other.run()
    for name in ("jobs", "requests", "texts"):
        assert other.table(name) == log.table(name)
    assert other.shown() == log.shown()
    # CSV cannot tell an empty list from none.
    assert [row["interest_texts"] for row in other.table("users")] == [row["interest_texts"] for row in log.table("users")]


def test_a_partitioned_folder_of_compressed_files(log: Log, tmp_path: Path) -> None:
    import gzip

    log.run()
    expected = log.shown()
    folder = tmp_path / "days"
    for day, part in enumerate((log.impressions[:30], log.impressions[30:])):
        place = folder / f"country=us{day}"
        place.mkdir(parents=True)
        names = list(part[0])
        lines = [",".join(names)] + [",".join("" if row[n] is None else str(row[n]) for n in names) for row in part]
        (place / "part.csv.gz").write_bytes(gzip.compress("\r\n".join(lines).encode()))
    (folder / "_SUCCESS").touch()
    log.run(places={"impressions": str(folder)})
    assert log.shown() == expected
    assert {row["country"] for row in log.table("requests")} == {"us0", "us1"}


def test_without_users_they_come_from_the_impressions(log: Log) -> None:
    log.run(with_users=False)
    assert [row["user_id"] for row in log.table("users")] == ["u0", "u1", "u2"]


def test_the_same_input_gives_the_same_bytes(log: Log) -> None:
    log.run()
    first = json.loads((log.out / "dataset.json").read_text())["fingerprint"]
    log.run(threads=2)
    assert json.loads((log.out / "dataset.json").read_text())["fingerprint"] == first
    log.impressions[0]["clicked"] = True
    log.run()
    assert json.loads((log.out / "dataset.json").read_text())["fingerprint"] != first


def _random_log(log: Log, seed: int) -> None:
    rng = random.Random(seed)
    log.jobs = [
        {
            "job_id": f"j{rng.randrange(40)}",
            "title": f"title {i % 7}",
            "company": f"c{i % 3}",
            "occupation": rng.choice(["x", None]),
        }
        for i in range(50)
    ]
    rows: list[dict[str, Any]] = []
    for number in range(200):
        for place in range(rng.randrange(1, 6)):
            clicked = rng.random() < 0.3
            when = number // rng.choice([1, 2]) + (0.25 if rng.random() < 0.05 else 0)
            rows.append(
                {
                    "request_id": f"r{number}",
                    "ts": at(when),
                    "user_id": f"u{number % 11}" if rng.random() < 0.98 else "stranger",
                    "query": f"q{number % 5}",
                    "job_id": f"j{rng.randrange(45)}",
                    "clicked": clicked,
                    "position": rng.choice([None, place + 1, -1]),
                    "clicked_at": rng.choice([None, at(when + 1), at(when - 1)]) if clicked else None,
                }
            )
            if rng.random() < 0.1:
                rows.append(dict(rows[-1]))
    rng.shuffle(rows)
    log.impressions = rows


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_random_log_against_plain_python(log: Log, seed: int) -> None:
    _random_log(log, seed)
    numbers = log.run()
    known: dict[str, dict[str, Any]] = {}
    for job in log.jobs:
        known.setdefault(job["job_id"], job)
    fine, refused = [], {}
    for number, row in enumerate(log.impressions):
        if row["position"] == -1:
            row = row | {"position": None}
        if row["clicked_at"] and row["clicked_at"] < row["ts"]:
            refused[number] = "click_before_impression"
        elif row["job_id"] not in known:
            refused[number] = "unknown_job"
        else:
            fine.append((number, row))
    first: dict[str, dict[str, Any]] = {}
    for _, row in fine:
        request = first.setdefault(row["request_id"], dict(row))
        request["ts"] = min(request["ts"], row["ts"])
    order = sorted(first.values(), key=lambda row: (row["ts"], row["request_id"]))
    place = {row["request_id"]: number for number, row in enumerate(order)}
    said: dict[tuple[int, str], list[tuple[int, dict[str, Any]]]] = {}
    for number, row in fine:
        request = first[row["request_id"]]
        if (row["user_id"], row["query"]) != (request["user_id"], request["query"]):
            refused[number] = "request_conflict"
        else:
            said.setdefault((place[row["request_id"]], row["job_id"]), []).append((number, row))
    kept: dict[tuple[int, str], dict[str, Any]] = {}
    again = merged = 0
    for key, pair in said.items():
        statements: list[tuple[Any, ...]] = []
        position = next((row["position"] for _, row in pair if row["position"] is not None), None)
        for number, row in pair:
            statement = tuple(row[name] for name in ("position", "clicked", "clicked_at"))
            if statement in statements:
                again += 1
                continue
            statements.append(statement)
            if len(statements) == 1:
                continue
            if not row["clicked"] and row["position"] not in (None, position):
                refused[number] = "duplicate_id"
            else:
                merged += 1
        clicks = [row for _, row in pair if row["clicked"]]
        kept[key] = pair[0][1] | {"position": position, "clicked": bool(clicks)}
        if len(statements) > 1 and clicks:
            kept[key]["clicked_at"] = min(row["clicked_at"] or row["ts"] for row in clicks)
    ids = sorted(known)
    expected = sorted(
        (
            {
                "request": request,
                "job": ids.index(job),
                "ts": order[request]["ts"],
                "position": row["position"],
                "clicked": row["clicked"],
                "clicked_at": (row["clicked_at"] or order[request]["ts"]) if row["clicked"] else None,
            }
            for (request, job), row in kept.items()
        ),
        key=lambda row: (row["request"], row["position"] is None, row["position"] or 0, row["job"]),
    )
    assert [{name: row[name] for name in expected[0]} for row in log.shown()] == expected
    assert {row: reason for (file, row), reason in log.reasons().items() if file.startswith("impressions")} == refused
    assert numbers["impressions_deduplicated"] == again
    assert merged > 0
    assert numbers["impressions_in"] == len(log.impressions) == len(expected) + len(refused) + again + merged


def test_large_int_ids_and_odd_sources(log: Log) -> None:
    """Ids as integers, dictionary columns, large strings, nanoseconds and local clocks are all read as they mean."""
    names = {"a": 2**60, "b": 7, "c": 10}
    for row in log.jobs:
        row["job_id"] = names[row["job_id"]]
    table = pa.Table.from_pylist(log.impressions)
    shown = pa.array([names[row["job_id"]] for row in log.impressions], pa.int64())
    table = table.set_column(table.column_names.index("job_id"), "job_id", shown)
    table = table.set_column(1, "ts", table["ts"].cast(pa.timestamp("ns", tz="America/New_York")))
    table = table.set_column(3, "query", table["query"].dictionary_encode())
    table = table.set_column(2, "user_id", table["user_id"].cast(pa.large_string()))
    pq.write_table(table, log.folder / "odd.parquet")
    log.run(places={"impressions": str(log.folder / "odd.parquet")})
    assert [row["job_id"] for row in log.table("jobs")] == ["10", "1152921504606846976", "7"]
    assert log.table("requests")[3]["ts"] == at(3)
    assert len(log.shown()) == 60
