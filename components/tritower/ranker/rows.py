"""Training rows as memory-mapped arrays: a few integers and normalised float16 features per row, no text and no vector.

Legend: N rows, F features. A folder holds query.npy, document.npy, request.npy (int32), position.npy (int16,
0 = unknown), description.npy (int32 N x 1: text, -1 = none; N x 0 where not asked for), clicked.npy, randomised.npy (bool),
feature.npy (float16 N x F, NaN = missing) and occupation.npy (int16: class, -1 = unknown).
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tritower import schema, storage
from tritower.errors import ArtifactError, SchemaError

Array = NDArray[Any]
COLUMNS = {
    "query": "query_text",
    "document": "document_text",
    "request": "request",
    "position": "position",
    "randomised": "randomised",
    "clicked": "clicked",
}
_NAMES = (*COLUMNS, "description", "feature", "occupation")
_BATCH = 65_536
_SMALL = 4096  # bytes; an empty array cannot be mapped
OCCUPATION = "occupation_key"
DESCRIPTION = "description_text"


@dataclass(frozen=True)
class Rows:
    """The arrays of one split; gather from them by row index."""

    query: Array
    document: Array
    description: Array
    request: Array
    position: Array
    clicked: Array
    randomised: Array
    feature: Array
    occupation: Array

    def __len__(self) -> int:
        return len(self.query)

    def take(self, index_B: Array) -> "Rows":
        """The rows at `index_B`, in memory."""
        return Rows(**{name: np.asarray(getattr(self, name)[index_B]) for name in _NAMES})


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


def stream(split: Path, columns: list[str], names: list[str]) -> Iterator[tuple[pa.RecordBatch, NDArray[np.float32]]]:
    """Record batches of the key columns, each with its raw features (N, F) float32, NaN = missing.

    Raises:
        SchemaError: a column is missing.
    """
    for part in storage.parquet_parts(split):
        file = pq.ParquetFile(part)
        check_columns(part, file.schema_arrow.names, [*columns, *names])
        for batch in file.iter_batches(batch_size=_BATCH, columns=[*columns, *names]):
            yield batch.select(columns), raw_features(batch, names)


def raw_features(batch: pa.RecordBatch, names: list[str]) -> NDArray[np.float32]:
    """The features (N, F) of a record batch, NaN = missing."""
    out_NF = np.empty((batch.num_rows, len(names)), dtype=np.float32)
    for f, name in enumerate(names):
        out_NF[:, f] = batch.column(name).cast(pa.float32()).to_numpy(zero_copy_only=False)
    return out_NF


def check_columns(part: Path, present: Collection[str], wanted: list[str]) -> None:
    """Raise unless a Parquet file has the columns.

    Raises:
        SchemaError: a column is missing.
    """
    if missing := [name for name in wanted if name not in present]:
        raise SchemaError(f"missing columns {missing}", where=str(part), remedy="Run the features step again.")


def description_texts(batch: pa.RecordBatch, *, wanted: bool) -> NDArray[np.int32]:
    """The description's text (N, 1) of a record batch, -1 = none; (N, 0) where not wanted."""
    out_N1 = np.full((batch.num_rows, int(wanted)), -1, dtype=np.int32)
    if wanted:
        out_N1[:, 0] = batch.column(DESCRIPTION).fill_null(-1).to_numpy(zero_copy_only=False)
    return out_N1


def read(folder: Path) -> Rows:
    """Map the arrays of a folder that `preparation` made."""
    return Rows(**{name: _map(folder / f"{name}.npy") for name in _NAMES})


def _map(file: Path) -> Array:
    array: Array = np.load(file) if file.stat().st_size < _SMALL else np.load(file, mmap_mode="r")
    return array


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


def expect_encoder(encoder: dict[str, Any], trained_with: dict[str, Any], where: str) -> None:
    """Check that embeddings are of the encoder that a model was trained with; both as encoder.json describes them.

    Raises:
        ArtifactError: they are of another.
    """
    if encoder["hash"] != trained_with["hash"]:
        raise ArtifactError(
            f"the embeddings are of encoder {encoder['hash']}, the model was trained with {trained_with['hash']}",
            where=where,
            remedy="Embed with the model's encoder, or train again.",
        )


def splits(features: Path) -> list[str]:
    """The splits that a features folder holds, in this order: train, validation, test, candidates."""
    return [name for name in (*schema.SPLITS, "candidates") if (features / name).is_dir()]


def encoder_hash(encoder: dict[str, Any]) -> str:
    """The encoder's hash as text."""
    return str(encoder["hash"]) if "hash" in encoder else json.dumps(encoder, sort_keys=True)
