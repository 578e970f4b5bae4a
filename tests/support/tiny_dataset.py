"""A small random dataset and its embeddings as files, following schema.py, with ties in time and late clicks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tritower import schema

MINUTE = 60_000_000
START = 1_700_000_000_000_000 // MINUTE * MINUTE
TITLES = ["Registered Nurse", "RN", "Truck Driver (CDL)", "Java Developer", "Cashier", "Remote Accountant", "", "Sr. Cook II"]
COMPANIES = ["Acme", "Globex Health", "Initech"]
CITIES = [
    ("Springfield", "IL", "US"),
    ("Springfield", "MA", "US"),
    ("Boston", "MA", "US"),
    (None, None, None),
    ("Remote", None, "US"),
]
QUERIES = ["nurse", "acme cashier", "", "truck driver remote", "java developer", "cook"]


def build(
    folder: Path, *, requests: int = 60, per_request: int = 5, seed: int = 0, dim: int = 16, tie_share: float = 0.5
) -> Path:
    """Write dataset/ and embeddings/ under `folder`; return `folder`."""
    rng = np.random.default_rng(seed)
    texts: dict[str, int] = {}

    def text(value: str) -> int:
        return texts.setdefault(value, len(texts))

    jobs = [_job(j, rng, text) for j in range(14)]
    users = [_user(u, rng, text) for u in range(6)]
    ts = START + np.cumsum(np.where(rng.random(requests) < tie_share, 0, rng.integers(1, 40, requests))) * MINUTE
    searches, rows = [], []
    for r in range(requests):
        city, region, country = CITIES[rng.integers(len(CITIES))]
        split = schema.SPLITS[min(2, 3 * r // requests)]
        query = QUERIES[rng.integers(len(QUERIES))]
        search = {"request": r, "request_id": f"r{r}", "ts": int(ts[r]), "user": int(rng.integers(6)),
                  "query_text": text(query),
                  "city": city, "region": region, "country": country, "randomised": r % 5 == 0, "split": split}  # fmt: skip
        searches.append(search)
        for position, j in enumerate(rng.choice(14, per_request, replace=False)):
            rows.append(_row(len(rows), search, int(j), position, jobs, rng))
    _write(folder / "dataset", jobs, users, searches, rows, texts)
    matrix = rng.normal(size=(len(texts), dim)) + 1.0
    embed(folder / "embeddings", (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float16))
    return folder


def embed(folder: Path, matrix: np.ndarray) -> None:
    """Write an embeddings folder."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "matrix.npy", matrix)
    (folder / "encoder.json").write_text(json.dumps({"name": "random", "dim": matrix.shape[1], "texts": len(matrix)}))


def _job(j: int, rng: np.random.Generator, text: Any) -> dict[str, Any]:
    title, company = TITLES[rng.integers(len(TITLES))], COMPANIES[rng.integers(3)]
    city, region, country = CITIES[rng.integers(len(CITIES))]
    posted = [None, START - 3 * 24 * 60 * MINUTE, START + 300 * MINUTE][rng.integers(3)]
    rng.integers(4)  # the seeds of the tests were chosen with one more draw per job
    return {"job": j, "job_id": f"j{j}", "title": title, "company": company, "city": city, "region": region, "country": country,
            "occupation": None, "description": None, "posted_at": posted, "expires_at": None, "title_text": text(title),
            "document_text": text(schema.document_text(title, company)),
            "description_text": text(f"We train you at {company}.") if j % 3 else None,
            "company_key": COMPANIES.index(company)}  # fmt: skip


def _user(u: int, rng: np.random.Generator, text: Any) -> dict[str, Any]:
    wanted = [TITLES[i] for i in rng.integers(0, len(TITLES), rng.integers(0, 3))]
    past = [TITLES[i] for i in rng.integers(0, len(TITLES), rng.integers(0, 3))]
    city, region, country = CITIES[rng.integers(len(CITIES))]
    return {"user": u, "user_id": f"u{u}", "interests": wanted, "past_titles": past, "city": city, "region": region,
            "country": country, "interest_texts": [text(t) for t in wanted],
            "past_title_texts": [text(t) for t in past]}  # fmt: skip


def _row(row: int, search: dict[str, Any], j: int, position: int, jobs: list[Any], rng: np.random.Generator) -> dict[str, Any]:
    clicked = bool(rng.random() < 0.35)
    # A delay of 0 is a click in the instant of its impression; the long ones end after many later rows.
    delay = int(rng.choice([0, 1, 5, 60, 600])) * MINUTE
    return {"row": row, "request": search["request"], "ts": search["ts"], "user": search["user"], "job": j,
            "query_text": search["query_text"], "document_text": jobs[j]["document_text"],
            "position": None if rng.random() < 0.1 else position + 1, "clicked": clicked,
            "clicked_at": search["ts"] + delay if clicked else None, "randomised": search["randomised"],
            "split": search["split"]}  # fmt: skip


def _write(
    folder: Path, jobs: list[Any], users: list[Any], searches: list[Any], rows: list[Any], texts: dict[str, int]
) -> None:
    folder.mkdir(parents=True)
    flags = {"is_query": True, "is_title": True, "is_document": True, "is_profile": True, "is_description": False}
    text_rows = [{"text": number, "value": value, **flags} for value, number in texts.items()]
    for name, table, records in (
        ("jobs", schema.DATASET_JOBS, jobs),
        ("users", schema.DATASET_USERS, users),
        ("requests", schema.DATASET_REQUESTS, searches),
        ("texts", schema.DATASET_TEXTS, text_rows),
    ):
        pq.write_table(pa.Table.from_pylist(records, schema=table.arrow()), folder / f"{name}.parquet")
    for split in schema.SPLITS:
        (folder / "impressions" / split).mkdir(parents=True)
        chosen = [{k: v for k, v in row.items() if k != "split"} for row in rows if row["split"] == split]
        pq.write_table(
            pa.Table.from_pylist(chosen, schema=schema.DATASET_IMPRESSIONS.arrow()),
            folder / "impressions" / split / "part-00000.parquet",
        )
    (folder / "dataset.json").write_text("{}")


def excerpt(folder: Path, out: Path, first: int, last: int, *, seed: int) -> Path:
    """The requests first <= number < last of a built folder as a dataset of their own, with all numbers drawn anew.

    Only jobs, users and texts that these requests use are in it, as in the extract of one day.
    """
    rng = np.random.default_rng(seed)
    read = {
        name: pq.read_table(folder / "dataset" / f"{name}.parquet").to_pylist()
        for name in ("jobs", "users", "requests", "texts")
    }
    rows = [{**row, "split": split} for split in schema.SPLITS
            for row in pq.read_table(folder / "dataset" / "impressions" / split).to_pylist()]  # fmt: skip
    rows = [row for row in rows if first <= row["request"] < last]
    searches = [search for search in read["requests"] if first <= search["request"] < last]
    job = _renumber({row["job"] for row in rows}, rng)
    user = _renumber({search["user"] for search in searches}, rng)
    jobs = [read["jobs"][old] for old in job]
    users = [read["users"][old] for old in user]
    used = {search["query_text"] for search in searches}
    of_job = ("title_text", "document_text", "description_text")
    used |= {record[name] for record in jobs for name in of_job if record[name] is not None}
    used |= {t for record in users for name in ("interest_texts", "past_title_texts") for t in record[name]}
    text = _renumber(used, rng)
    for record in jobs:
        record["job"] = job[record["job"]]
        record.update({name: text[record[name]] for name in of_job if record[name] is not None})
    for record in users:
        record["user"] = user[record["user"]]
        for name in ("interest_texts", "past_title_texts"):
            record[name] = [text[t] for t in record[name]]
    for search in searches:
        search["request"], search["user"], search["query_text"] = (
            search["request"] - first,
            user[search["user"]],
            text[search["query_text"]],
        )
    for row in rows:
        row["request"], row["user"], row["job"] = row["request"] - first, user[row["user"]], job[row["job"]]
        row["query_text"], row["document_text"] = text[row["query_text"]], text[row["document_text"]]
    _write(out / "dataset", jobs, users, searches, rows, {read["texts"][old]["value"]: new for old, new in text.items()})
    embed(out / "embeddings", np.load(folder / "embeddings" / "matrix.npy")[list(text)])
    return out


def _renumber(numbers: set[int], rng: np.random.Generator) -> dict[int, int]:
    return {int(old): new for new, old in enumerate(rng.permutation(sorted(numbers)))}
