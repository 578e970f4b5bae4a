"""A small log with known relevance and position bias, written as the features and embed steps write theirs."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tritower import schema

EXAMINATION = np.array([1.0, 0.6, 0.4, 0.3, 0.25])
SIZES = {"train": 3000, "validation": 1500, "test": 800}


def write_log(root: Path, *, seed: int = 0, positions: bool = True, random_share: float = 0.0) -> dict[str, np.ndarray]:
    """features/ and embeddings/ under `root`; returns the relevance of each split's rows.

    Relevance follows a plain feature, a cosine and the inner product of the embeddings; the page is sorted by the plain
    feature with noise, and a click needs examination.
    """
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(200, 12))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    (root / "embeddings").mkdir(parents=True)
    np.save(root / "embeddings" / "matrix.npy", vectors.astype(np.float16))
    described = [
        {"name": "plain", "needs_embeddings": False},
        {"name": "noise", "needs_embeddings": False},
        {"name": "cosine", "needs_embeddings": True},
    ]
    (root / "features").mkdir()
    (root / "features" / "features.json").write_text(json.dumps({"version": 1, "features": described}))
    truth, row, request = {}, 0, 0
    for split, requests in SIZES.items():
        count = requests * 5
        query = np.repeat(rng.integers(0, 50, requests), 5)
        document = rng.integers(50, 200, count)
        plain = rng.normal(size=count)
        hidden = rng.normal(size=count)
        cosine = np.where(rng.random(count) < 0.1, np.nan, hidden)  # a tenth is missing
        inner = (vectors[query] * vectors[document]).sum(axis=1)
        relevance = 1 / (1 + np.exp(-(-1.2 + 1.2 * plain + 1.0 * hidden + 3.0 * inner)))
        randomised = np.repeat(rng.random(requests) < random_share, 5)
        hint = 2 * hidden  # the policy knows what only the cosine tells a model, and tells it to nobody
        policy = (np.where(randomised, 0, plain + (hint if random_share else 0)) + rng.normal(size=count)).reshape(requests, 5)
        place = (np.argsort(np.argsort(-policy, axis=1), axis=1) + 1).ravel()
        clicked = rng.random(count) < relevance * EXAMINATION[place - 1]
        columns = {
            "row": np.arange(row, row + count),
            "request": np.repeat(np.arange(request, request + requests), 5),
            "ts": pa.array(np.repeat(np.arange(request, request + requests), 5) * 1_000_000, pa.timestamp("us", tz="UTC")),
            "user": np.repeat(rng.integers(0, 300, requests), 5).astype(np.int32),
            "job": document.astype(np.int32),
            "query_text": query.astype(np.int32),
            "document_text": document.astype(np.int32),
            "position": pa.array(place if positions else [None] * count, pa.int16()),
            "clicked": clicked,
            "randomised": randomised,
        }
        table = pa.table([pa.array(columns[c.name]) for c in schema.FEATURE_KEYS.columns], schema=schema.FEATURE_KEYS.arrow())
        for name, values in (("plain", plain), ("noise", rng.normal(size=count)), ("cosine", cosine)):
            table = table.append_column(name, pa.array(values, pa.float32(), from_pandas=True))
        described = pa.array(query.astype(np.int32), mask=rng.random(count) < 0.2)  # any text will do
        table = table.append_column("description_text", described)
        folder = root / "features" / split
        folder.mkdir()
        half = count // 2
        pq.write_table(table[:half], folder / "part-0000.parquet")
        pq.write_table(table[half:], folder / "part-0001.parquet")
        truth[split] = relevance
        row, request = row + count, request + requests
    return truth
