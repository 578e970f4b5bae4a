"""A small board whose features are counted from events: a dataset, and the state before one of its searches."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tritower import schema
from tritower.features import step
from tritower.features.config import FeaturesConfig
from tritower.features.online import OnlineFeatures, Request

from tests.support import tiny_dataset

REQUESTS, FIRST = 60, 30
JOBS = [f"j{number}" for number in range(14)]


def build(folder: Path) -> Path:
    """dataset/, embeddings/ and the state/ before search FIRST below `folder`."""
    tiny_dataset.build(folder, requests=REQUESTS, tie_share=0.4)
    earlier = tiny_dataset.excerpt(folder, folder / "earlier", 0, FIRST, seed=3)
    compute(earlier, earlier / "features")
    (folder / "state").symlink_to(earlier / "features" / "state")
    return folder


def embed(texts: Any) -> np.ndarray:
    """A vector of each text that is always the same."""
    vectors = np.stack([np.random.default_rng(list(text.encode())).normal(size=16) + 1.0 for text in texts])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def opened(folder: Path) -> OnlineFeatures:
    return OnlineFeatures.open(folder / "state", folder / "dataset", folder / "embeddings", embed=embed)


def compute(folder: Path, out: Path) -> None:
    config = FeaturesConfig(history_clicks=3, history_searches=2, ctr_half_life_days=0.02)
    step.run(dataset=folder / "dataset", embeddings=folder / "embeddings", features=out, config=config)


def values(online: OnlineFeatures) -> bytes:
    """The features of some searches, now."""
    found = []
    for user in range(6):
        for query in ("nurse", "java developer", "never seen"):
            request = Request(ts=2 * 10**15, user_id=f"u{user}", query=query, city="Boston", region="MA", country="US")
            found += [column.tobytes() for column in online.read(request, JOBS).values()]
    return b"".join(found)


def calls(folder: Path, first: int) -> list[list[dict[str, Any]]]:
    """The events in the order in which they come: each search's rows in one call, each click when it is made, some late."""
    names = ("jobs", "users", "requests", "texts")
    read = {name: pq.read_table(folder / "dataset" / f"{name}.parquet").to_pylist() for name in names}
    found: list[tuple[int, list[dict[str, Any]]]] = []
    for split in schema.SPLITS:
        part = pq.read_table(folder / "dataset" / "impressions" / split)
        part = part.set_column(part.schema.get_field_index("ts"), "ts", part["ts"].cast(pa.int64()))
        at = part.schema.get_field_index("clicked_at")
        for row in part.set_column(at, "clicked_at", part["clicked_at"].cast(pa.int64())).to_pylist():
            if row["request"] < first:
                continue
            search = read["requests"][row["request"]]
            event = {
                "request_id": search["request_id"], "ts": row["ts"], "user_id": read["users"][row["user"]]["user_id"],
                "query": read["texts"][row["query_text"]]["value"], "job_id": read["jobs"][row["job"]]["job_id"],
                "city": search["city"], "region": search["region"], "country": search["country"],
                "position": row["position"], "randomised": row["randomised"],
            }  # fmt: skip
            late = 3 * 60_000_000 * (row["request"] % 7 == 0)
            if found and found[-1][1][0].get("event") is None and found[-1][1][0]["request_id"] == search["request_id"]:
                found[-1][1].append(event)
            else:
                found.append((row["ts"] + late, [event]))
            if row["clicked"]:
                click = event | {"event": "click", "clicked": True, "clicked_at": row["clicked_at"]}
                found.insert(len(found) - 1, (row["clicked_at"] + 1, [click]))
    return [call for _, call in sorted(found, key=lambda one: one[0])]
