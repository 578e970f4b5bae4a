"""A small log with known relevance and examination, written as the features and embedding steps would write it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tritower import schema, storage

DIM = 16
PAGE = 8  # rows of a request
EXAMINATION = 1 / np.arange(1, PAGE + 1) ** 0.6


@dataclass
class Log:
    """Where the log lies, and the truth about its rows by split."""

    features: Path
    embeddings: Path
    relevance: dict[str, np.ndarray]
    examination: np.ndarray


def write_log(
    folder: Path, *, requests: dict[str, int], seed: int = 0, names: tuple[str, ...] = ("match", "popularity", "age")
) -> Log:
    """Relevance depends on the product of the two texts and on two features; the third is noise with missing values."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(260, DIM)).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    embeddings, features = folder / "embeddings", folder / "features"
    embeddings.mkdir(parents=True)
    np.save(embeddings / "matrix.npy", matrix.astype(np.float16))
    storage.write_json(
        embeddings / "encoder.json", {"name": "random", "hash": "abc123", "dim": DIM, "texts": 260, "normalised": True}
    )
    features.mkdir()
    storage.write_json(features / "features.json", {"version": 1, "features": [{"name": name} for name in names]})
    relevance, row, request = {}, 0, 0
    for split, count in requests.items():
        n = count * PAGE
        query = np.repeat(random.integers(0, 60, count), PAGE)
        document = random.integers(60, 260, n)
        match, popularity = random.normal(size=n), random.gamma(1.0, 20.0, n)
        age = np.where(random.random(n) < 0.3, np.nan, random.exponential(100.0, n))
        weight = np.linspace(3, -3, DIM)
        logit = -1.0 + 2 * (matrix[query] * matrix[document]) @ weight + 0.8 * match + 0.8 * np.log1p(popularity / 20)
        relevance[split] = 1 / (1 + np.exp(-logit))
        position = np.tile(np.arange(1, PAGE + 1), count)
        clicked = random.random(n) < relevance[split] * EXAMINATION[position - 1]
        keys = {
            "row": np.arange(row, row + n), "request": np.repeat(np.arange(request, request + count), PAGE),
            "ts": np.arange(n), "user": np.zeros(n), "job": document, "query_text": query, "document_text": document,
            "position": position, "clicked": clicked, "randomised": np.ones(n, bool),
        }  # fmt: skip
        arrays = [pa.array(keys[c.name]).cast(schema.arrow_type(c.type)) for c in schema.FEATURE_KEYS.columns]
        values = dict(zip(names, (match, popularity, age), strict=True))
        arrays += [pa.array(values[name], type=pa.float32(), from_pandas=True) for name in names]
        table = pa.Table.from_arrays(arrays, names=[*schema.FEATURE_KEYS.names(), *names])
        (features / split).mkdir()
        half = n // 2
        pq.write_table(table.slice(0, half), features / split / "part-00000.parquet")
        pq.write_table(table.slice(half), features / split / "part-00001.parquet")
        row, request = row + n, request + count
    return Log(features, embeddings, relevance, EXAMINATION)
