"""Of a dataset, what a server needs: jobs, users and texts, without the log and without the jobs' descriptions.

Descriptions are the longest texts, and the document towers have read them already. The texts that stay are numbered anew, in
their old order; embeddings and entities follow.

Legend: T texts of the dataset.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tritower import storage
from tritower.encoder.cache import keys_of
from tritower.errors import ArtifactError
from tritower.schema import DATASET_JOBS, DATASET_REQUESTS

_CHUNK = 65_536
_KINDS = ("is_query", "is_title", "is_document", "is_profile")


def write(dataset: Path, embeddings: Path, entities: Path | None, out: Path, facts: Mapping[str, Any]) -> dict[str, int]:
    """Write the parts dataset, embeddings and entities of a bundle.

    Args:
        dataset: written by ingest.
        embeddings: written by the encoder for it.
        entities: written by the entities step for it, if there is any.
        out: folder in which the parts are written.
        facts: for the embeddings' encoder.json.

    Returns:
        Counts: jobs, users, texts.

    Raises:
        ArtifactError: embeddings or entities are of another dataset.
    """
    about = storage.read_json(dataset / "dataset.json")
    identity, words = str(about["fingerprint"]), int(about.get("config", {}).get("description_words", 64))
    flags = pq.read_table(dataset / "texts.parquet", columns=list(_KINDS))
    kept_T = np.logical_or.reduce([flags[name].to_numpy() for name in _KINDS])
    number_T = np.where(kept_T, np.cumsum(kept_T) - 1, -1).astype(np.int32)
    counts = _tables(dataset, out / "dataset", kept_T, number_T)
    storage.write_json(
        out / "dataset" / "dataset.json", {"fingerprint": identity, "counts": counts, "description_words": words}
    )
    _embeddings(dataset, embeddings, out / "embeddings", kept_T, {**facts, "dataset": identity})
    if entities:
        _entities(entities, out / "entities", kept_T, number_T, identity)
    return counts


def _tables(dataset: Path, out: Path, kept_T: npt.NDArray[np.bool_], number_T: npt.NDArray[np.int32]) -> dict[str, int]:
    out.mkdir()
    texts = pq.read_table(dataset / "texts.parquet").filter(pa.array(kept_T))
    texts = _with(texts, "text", pa.array(np.arange(len(texts), dtype=np.int32)))
    _write(_with(texts, "is_description", pa.array(np.zeros(len(texts), np.bool_))), out / "texts.parquet")
    there = pq.read_schema(dataset / "jobs.parquet").names  # an older dataset has no coordinates
    kept = [name for name in DATASET_JOBS.names() if name != "description" and name in there]
    jobs = pq.read_table(dataset / "jobs.parquet", columns=kept)
    for name in ("title_text", "document_text"):
        jobs = _with(jobs, name, pa.array(number_T[jobs[name].to_numpy()]))
    _write(_with(jobs, "description_text", pa.nulls(len(jobs), pa.int32())), out / "jobs.parquet")
    users = pq.read_table(dataset / "users.parquet")
    for name in ("interest_texts", "past_title_texts"):
        users = _with(users, name, _renumbered(users[name], number_T))
    _write(users, out / "users.parquet")
    _write(DATASET_REQUESTS.arrow().empty_table(), out / "requests.parquet")
    return {"jobs": len(jobs), "users": len(users), "texts": len(texts)}


def _renumbered(lists: pa.ChunkedArray, number_T: npt.NDArray[np.int32]) -> pa.Array:
    column = pc.fill_null(lists, []).combine_chunks()
    length = pc.list_value_length(column).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(number_T[pc.list_flatten(column).to_numpy()]))


def _embeddings(dataset: Path, embeddings: Path, out: Path, kept_T: npt.NDArray[np.bool_], facts: Mapping[str, Any]) -> None:
    matrix_TD = np.load(embeddings / "matrix.npy", mmap_mode="r", allow_pickle=False)
    index = embeddings / "index.arrow"
    if len(matrix_TD) != len(kept_T) or (index.exists() and not _is_of(index, dataset)):
        raise ArtifactError(
            "the embeddings are of another dataset", where=str(embeddings), remedy="Give the outputs of one training run."
        )
    out.mkdir()
    row = np.flatnonzero(kept_T)
    kept_KD = np.lib.format.open_memmap(out / "matrix.npy", mode="w+", dtype=np.float16, shape=(len(row), matrix_TD.shape[1]))
    for start in range(0, len(row), _CHUNK):
        kept_KD[start : start + _CHUNK] = matrix_TD[row[start : start + _CHUNK]]
    kept_KD.flush()
    storage.write_json(out / "encoder.json", {**facts, "texts": len(row)})


def _is_of(index: Path, dataset: Path) -> bool:
    """Whether the keys of the embeddings' rows are those of the dataset's texts."""
    with pa.memory_map(str(index)) as source:
        keys = pa.ipc.open_file(source).read_all()["key"].combine_chunks()
    values = pq.read_table(dataset / "texts.parquet", columns=["value"])["value"].to_pylist()
    return bool(keys.equals(keys_of(values)))


def _entities(entities: Path, out: Path, kept_T: npt.NDArray[np.bool_], number_T: npt.NDArray[np.int32], identity: str) -> None:
    facts, rows = storage.read_json(entities / "entities.json"), pq.read_table(entities / "entities.parquet")
    text = rows["text"].to_numpy()
    read = facts.get("counts", {}).get("texts", int(kept_T.sum()))
    if read != int(kept_T.sum()) or (len(text) and (text.max() >= len(number_T) or (number_T[text] < 0).any())):
        raise ArtifactError(
            "the entities are of another dataset", where=str(entities), remedy="Give the outputs of one training run."
        )
    out.mkdir()
    _write(_with(rows, "text", pa.array(number_T[text])), out / "entities.parquet")
    storage.write_json(out / "entities.json", {**facts, "dataset": identity})


def _with(table: pa.Table, name: str, column: Any) -> pa.Table:
    """The table with another column of this name, in its place or behind."""
    at = table.schema.get_field_index(name)
    return table.append_column(name, column) if at < 0 else table.set_column(at, name, column)


def _write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")
