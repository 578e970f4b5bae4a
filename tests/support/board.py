"""A board of six jobs, two users and three searches, small enough to work out by hand."""

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tritower.schema import DATASET_IMPRESSIONS, DATASET_JOBS, DATASET_REQUESTS, DATASET_TEXTS, DATASET_USERS

DAY = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
TEXTS = [
    "nurse",  # 0: a query
    "",  # 1: the empty query
    "truck driver",  # 2: a query
    "Registered Nurse, Mercy",  # 3: documents from here
    "Night Nurse, Mercy",
    "Truck Driver, Haul Co",
    "Truck  driver, HAUL CO",
    "Retired Advert, Mercy",
    "Future Advert, Mercy",
    "driver",  # 9: a wanted title
]
ANGLES = [0, 50, 90, 10, 20, 90, 95, 0, 0, 92]  # degrees; the cosine of two texts is that of their difference


def at(days: float) -> dt.datetime:
    return DAY + dt.timedelta(days=days)


def write_dataset(folder: Path) -> Path:
    folder.mkdir()
    jobs = [
        ("j0", "Registered Nurse", "Mercy", "Austin", "TX", -9, None, 3),
        ("j1", "Night Nurse", "Mercy", "Dallas", "TX", -8, None, 4),
        ("j2", "Truck Driver", "Haul Co", "Austin", "TX", -7, None, 5),
        ("j3", "Truck  driver", "HAUL CO", None, "TX", -6, None, 6),
        ("j4", "Retired Advert", "Mercy", "Austin", "TX", -9, -1, 7),
        ("j5", "Future Advert", "Mercy", "Austin", "TX", 30, None, 8),
    ]
    company = {"Mercy": 0, "Haul Co": 1, "HAUL CO": 1}
    rows = [
        {
            "job": n, "job_id": i, "title": t, "company": c, "city": city, "region": region, "country": "US",
            "posted_at": at(posted),
            "expires_at": None if expires is None else at(expires), "title_text": 0,
            "document_text": text, "company_key": company[c],
        }
        for n, (i, t, c, city, region, posted, expires, text) in enumerate(jobs)
    ]  # fmt: skip
    write(folder / "jobs.parquet", rows, DATASET_JOBS.arrow())
    users = [
        {"user": 0, "user_id": "u0", "interest_texts": [9], "past_title_texts": []},
        {"user": 1, "user_id": "u1", "interest_texts": [], "past_title_texts": []},
    ]
    write(folder / "users.parquet", users, DATASET_USERS.arrow())
    requests = [("r0", 0, 1, 0, "austin "), ("r1", 1, 1, 1, "Austin"), ("r2", 2, 0, 2, None)]
    rows = [
        {
            "request": n,
            "request_id": i,
            "ts": at(ts),
            "user": user,
            "query_text": query,
            "city": city,
            "region": "TX",
            "randomised": False,
            "split": "test",
        }
        for n, (i, ts, user, query, city) in enumerate(requests)
    ]
    write(folder / "requests.parquet", rows, DATASET_REQUESTS.arrow())
    rows = [
        {
            "text": n,
            "value": v,
            "is_query": n < 3,
            "is_title": False,
            "is_document": 3 <= n < 9,
            "is_profile": n == 9,
            "is_description": False,
        }
        for n, v in enumerate(TEXTS)
    ]
    write(folder / "texts.parquet", rows, DATASET_TEXTS.arrow())
    # u0 clicked j1 half a day after searching "nurse": after r0 and before r1 and r2.
    click = {
        "row": 0, "request": 0, "ts": at(0), "user": 0, "job": 1, "query_text": 0, "document_text": 4, "position": 1,
        "clicked": True, "clicked_at": at(0.5), "randomised": False,
    }  # fmt: skip
    for split, rows in (("train", [click, click | {"row": 1, "job": 2, "clicked": False, "clicked_at": None}]), ("test", [])):
        (folder / "impressions" / split).mkdir(parents=True)
        write(folder / "impressions" / split / "part-00000.parquet", rows, DATASET_IMPRESSIONS.arrow())
    return folder


def write_embeddings(folder: Path) -> Path:
    folder.mkdir()
    angle = np.deg2rad(np.array(ANGLES, dtype=np.float64))
    np.save(folder / "matrix.npy", np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float16))
    return folder


def write(path: Path, rows: list[dict[str, object]], schema: pa.Schema) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
