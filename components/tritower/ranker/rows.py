"""Training rows as memory-mapped arrays: a few integers and normalised float16 features per row, no text and no vector.

Legend: N rows, F features. A folder holds query.npy, document.npy, request.npy (int32), position.npy (int16,
0 = unknown), description.npy (int32 N x 1: text, -1 = none; N x 0 where not asked for), clicked.npy, randomised.npy (bool),
feature.npy (float16 N x F, NaN = missing) and occupation.npy (int16: class, -1 = unknown).
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
    "occupation": np.int16,
}
_NAMES = (*_COLUMNS, "description", "feature", "occupation")
_BATCH = 65_536
_SMALL = 4096  # bytes; an empty array cannot be mapped
OCCUPATION = "occupation_key"
DESCRIPTION = "description_text"
_NO_CLASSES = np.empty(0, np.int16)


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


def description_texts(batch: pa.RecordBatch, *, wanted: bool) -> NDArray[np.int32]:
    """The description's text (N, 1) of a record batch, -1 = none; (N, 0) where not wanted."""
    out_N1 = np.full((batch.num_rows, int(wanted)), -1, dtype=np.int32)
    if wanted:
        out_N1[:, 0] = batch.column(DESCRIPTION).fill_null(-1).to_numpy(zero_copy_only=False)
    return out_N1


def described(split: Path) -> bool:
    """Whether any job of a split has a description."""
    parts = (part for part in storage.parquet_parts(split) if DESCRIPTION in pq.read_schema(part).names)
    columns = (pq.read_table(part, columns=[DESCRIPTION])[DESCRIPTION] for part in parts)
    return any(column.null_count < len(column) for column in columns)


def _class_numbers(batch: pa.RecordBatch, class_K: NDArray[np.int16]) -> NDArray[np.int16]:
    if not len(class_K):
        return np.full(batch.num_rows, -1, np.int16)
    code_N = batch.column(OCCUPATION).fill_null(-1).to_numpy(zero_copy_only=False)
    known_N = (code_N >= 0) & (code_N < len(class_K))
    return np.where(known_N, class_K[np.where(known_N, code_N, 0)], -1).astype(np.int16)


def sample(split: Path, names: list[str], *, limit: int) -> NDArray[np.float32]:
    """About `limit` evenly spaced rows of raw features (all of them when there are fewer)."""
    stride = max(1, -(-count(split) // limit))
    kept, seen = [], 0
    for _, feature_NF in stream(split, [], names):
        kept.append(feature_NF[(-seen) % stride :: stride].copy())
        seen += len(feature_NF)
    return np.concatenate(kept)


def classes(split: Path, most: int) -> NDArray[np.int16]:
    """Class by occupation number: 0, 1, ... for the `most` most frequent among the distinct documents, -1 for the others.

    Empty where the split has no occupations.
    """
    if not most or OCCUPATION not in pq.read_schema(storage.parquet_parts(split)[0]).names:
        return np.empty(0, np.int16)
    # Part by part: a split holds far more rows than jobs.
    parts = (pq.read_table(part, columns=["job", OCCUPATION]) for part in storage.parquet_parts(split))
    code_J = _code_by_job(pa.concat_tables(map(_code_by_job, parts)))[OCCUPATION].drop_null().to_numpy()
    count_K = np.bincount(code_J)
    kept = np.argsort(-count_K, kind="stable")[: min(most, np.count_nonzero(count_K))]
    class_K = np.full(len(count_K), -1, np.int16)
    class_K[kept] = np.arange(len(kept))
    return class_K


def _code_by_job(table: pa.Table) -> pa.Table:
    return table.group_by("job").aggregate([(OCCUPATION, "min")]).rename_columns(["job", OCCUPATION])


def write(
    split: Path,
    folder: Path,
    *,
    names: list[str],
    normaliser: Normaliser,
    descriptions: bool = False,
    class_K: NDArray[np.int16] = _NO_CLASSES,
) -> Rows:
    """Turn a split's Parquet files into a folder of arrays, in one pass with memory for one batch."""
    total = count(split)
    folder.mkdir(parents=True)
    arrays: dict[str, Array] = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=kind, shape=(total,))
        for name, kind in _TYPES.items()
    }
    for name, kind, width in (
        ("feature", np.float16, len(names)),
        ("description", np.int32, int(descriptions)),
    ):
        shape = (total, width)
        # a mapping cannot be empty
        file = folder / f"{name}.npy"
        arrays[name] = np.lib.format.open_memmap(file, mode="w+", dtype=kind, shape=shape) if width else np.empty(shape, kind)
        if not width:
            np.save(file, arrays[name])
    optional = [*([DESCRIPTION] if descriptions else []), *([OCCUPATION] if len(class_K) else [])]
    start = 0
    for batch, feature_NF in stream(split, [*_COLUMNS.values(), *optional], names):
        stop = start + batch.num_rows
        for name, column in _COLUMNS.items():
            values = batch.column(column)
            arrays[name][start:stop] = (values.fill_null(0) if values.null_count else values).to_numpy(zero_copy_only=False)
        arrays["feature"][start:stop] = normaliser.apply(feature_NF)
        arrays["description"][start:stop] = description_texts(batch, wanted=descriptions)
        arrays["occupation"][start:stop] = _class_numbers(batch, class_K)
        start = stop
    for array in arrays.values():
        if isinstance(array, np.memmap):
            array.flush()
    return read(folder)


def read(folder: Path) -> Rows:
    """Map the arrays of a folder that `write` made."""
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


def splits(features: Path) -> list[str]:
    """The splits that a features folder holds, in this order: train, validation, test, candidates."""
    return [name for name in (*schema.SPLITS, "candidates") if (features / name).is_dir()]


def encoder_hash(encoder: dict[str, Any]) -> str:
    """The encoder's hash as text."""
    return str(encoder["hash"]) if "hash" in encoder else json.dumps(encoder, sort_keys=True)
