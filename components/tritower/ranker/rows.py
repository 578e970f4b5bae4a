"""Training rows as memory-mapped arrays: a few integers and normalised float16 features per row, no text and no vector.

Legend: N rows, F features. A folder holds query.npy, document.npy, request.npy (int32), position.npy (int16, 0 = unknown),
clicked.npy, randomised.npy (bool) and feature.npy (float16 N x F, NaN = missing).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tritower import schema, storage
from tritower.errors import ArtifactError, SchemaError
from tritower.ranker.normaliser import Normaliser

Array = NDArray[Any]
_COLUMNS = {
    "query": "query_text",
    "document": "document_text",
    "request": "request",
    "position": "position",
    "randomised": "randomised",
    "clicked": "clicked",
}
_TYPES = {
    "query": np.int32,
    "document": np.int32,
    "request": np.int32,
    "position": np.int16,
    "clicked": np.bool_,
    "randomised": np.bool_,
}
_BATCH = 65_536


@dataclass(frozen=True)
class Rows:
    """The arrays of one split; gather from them by row index."""

    query: Array
    document: Array
    request: Array
    position: Array
    clicked: Array
    randomised: Array
    feature: Array

    def __len__(self) -> int:
        return len(self.query)

    def take(self, index_B: Array) -> "Rows":
        """The rows at `index_B`, in memory."""
        return Rows(**{name: np.asarray(getattr(self, name)[index_B]) for name in (*_COLUMNS, "feature")})


def feature_names(features: Path) -> list[str]:
    """The feature columns in order.

    Raises:
        SchemaError: features.json lists none.
    """
    path = features / "features.json"
    names = [entry["name"] for entry in storage.read_json(path)["features"]]
    if not names:
        raise SchemaError("no features are listed", where=str(path), remedy="Switch on at least one kind of feature.")
    return names


def count(split: Path) -> int:
    """Rows in a split's Parquet files, from their footers."""
    return sum(pq.read_metadata(part).num_rows for part in storage.parquet_parts(split))


def stream(split: Path, columns: list[str], names: list[str]) -> Iterator[tuple[pa.RecordBatch, NDArray[np.float32]]]:
    """Record batches of the key columns, each with its raw features (N, F) float32, NaN = missing.

    Raises:
        SchemaError: a column is missing.
    """
    for part in storage.parquet_parts(split):
        file = pq.ParquetFile(part)
        missing = [name for name in (*columns, *names) if name not in file.schema_arrow.names]
        if missing:
            raise SchemaError(f"missing columns {missing}", where=str(part), remedy="Run the features step again.")
        for batch in file.iter_batches(batch_size=_BATCH, columns=[*columns, *names]):
            feature_NF = np.empty((batch.num_rows, len(names)), dtype=np.float32)
            for f, name in enumerate(names):
                feature_NF[:, f] = batch.column(name).cast(pa.float32()).to_numpy(zero_copy_only=False)
            yield batch.select(columns), feature_NF


def sample(split: Path, names: list[str], *, limit: int) -> NDArray[np.float32]:
    """About `limit` evenly spaced rows of raw features (all of them when there are fewer)."""
    stride = max(1, -(-count(split) // limit))
    kept, seen = [], 0
    for _, feature_NF in stream(split, [], names):
        kept.append(feature_NF[(-seen) % stride :: stride].copy())
        seen += len(feature_NF)
    return np.concatenate(kept)


def write(split: Path, folder: Path, *, names: list[str], normaliser: Normaliser) -> Rows:
    """Turn a split's Parquet files into a folder of arrays, in one pass with memory for one batch."""
    total = count(split)
    folder.mkdir(parents=True)
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=kind, shape=(total,))
        for name, kind in _TYPES.items()
    }
    feature = np.lib.format.open_memmap(folder / "feature.npy", mode="w+", dtype=np.float16, shape=(total, len(names)))
    start = 0
    for batch, feature_NF in stream(split, list(_COLUMNS.values()), names):
        stop = start + batch.num_rows
        for name, column in _COLUMNS.items():
            values = batch.column(column)
            arrays[name][start:stop] = (values.fill_null(0) if values.null_count else values).to_numpy(zero_copy_only=False)
        feature[start:stop] = normaliser.apply(feature_NF)
        start = stop
    for array in (*arrays.values(), feature):
        array.flush()
    return read(folder)


def read(folder: Path) -> Rows:
    """Map the arrays of a folder that `write` made."""
    return Rows(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in (*_COLUMNS, "feature")})


def load_embeddings(folder: Path) -> tuple[NDArray[np.float16], dict[str, Any]]:
    """The memory-mapped text embeddings (T, D) float16 and what encoder.json says of them.

    Raises:
        ArtifactError: matrix and description do not agree.
    """
    encoder = storage.read_json(folder / "encoder.json")
    matrix_TD = np.load(folder / "matrix.npy", mmap_mode="r", allow_pickle=False)
    if matrix_TD.ndim != 2 or matrix_TD.shape[1] != encoder["dim"]:
        raise ArtifactError(
            f"the matrix has the shape {matrix_TD.shape}, encoder.json says dim {encoder['dim']}",
            where=str(folder),
            remedy="Run the embedding step again.",
        )
    return matrix_TD, encoder


def splits(features: Path) -> list[str]:
    """The splits that a features folder holds, in this order: train, validation, test, candidates."""
    return [name for name in (*schema.SPLITS, "candidates") if (features / name).is_dir()]


def encoder_hash(encoder: dict[str, Any]) -> str:
    """The encoder's hash as text."""
    return str(encoder["hash"]) if "hash" in encoder else json.dumps(encoder, sort_keys=True)
