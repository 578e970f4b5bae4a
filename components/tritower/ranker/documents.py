"""What the document towers make of each job, computed once and kept by job id: whatever numbers a dataset gives its jobs.

The folder, for a catalogue of J jobs:

documents.json   {"version", "model", "encoder", "jobs"}: hashes of the model and the encoder that it was made with
jobs.parquet     job_id, J rows
towers.npy       float32 (J, T), C order: rows of `OnlineRanker.documents`; mapped into memory, so that processes share it

A row takes 4 T bytes, for each member: width of the head + classes; 1.3 KB with 193 classes.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tritower import storage
from tritower.errors import ArtifactError, DataError
from tritower.lookup import Lookup
from tritower.ranker import rows
from tritower.ranker.joining import Floats
from tritower.ranker.online import OnlineRanker
from tritower.storage import manifest

VERSION = 2
_CHUNK = 8192
_REMEDY = "Compute the document towers again with this model (tritower.ranker.documents.write)."


@dataclass(frozen=True)
class Documents:
    """A table of document towers; `load` makes one.

    Attributes:
        table_JT: for `OnlineRanker.score`.
        job_ids: of its rows.
    """

    table_JT: Floats
    job_ids: pa.Array

    def rows(self, job_ids: Sequence[str]) -> NDArray[np.int64]:
        """The rows of jobs (N,).

        Raises:
            DataError: a job is not in the table.
        """
        found = self._lookup.find_all(job_ids)
        unknown = np.flatnonzero(found < 0)
        if len(unknown):
            problem = f"{len(unknown):,} of {len(job_ids):,} jobs are not in the table, first {job_ids[unknown[0]]!r}"
            raise DataError(problem, where="document towers", remedy="Ask for jobs of the catalogue, or compute theirs.")
        return found

    @functools.cached_property
    def _lookup(self) -> Lookup:
        return Lookup(self.job_ids)


def write(*, ranker: OnlineRanker, dataset: Path, embeddings: Path, out: Path) -> int:
    """Compute the document towers of a dataset's jobs.

    Args:
        ranker: whose towers.
        dataset: with `jobs.parquet`.
        embeddings: of the dataset's texts, by the ranker's encoder.
        out: folder to write.

    Returns:
        Jobs written.

    Raises:
        ArtifactError: the embeddings are of another encoder.
    """
    manifest.check(dataset, embeddings)
    matrix_TD, encoder = rows.load_embeddings(embeddings)
    rows.expect_encoder(encoder, ranker.encoder, str(embeddings))
    jobs = pq.read_table(dataset / "jobs.parquet", columns=["job_id", "document_text", "description_text"])
    text_J = jobs["document_text"].to_numpy()
    description_J = jobs["description_text"].fill_null(-1).to_numpy()
    with storage.atomic_directory(out) as folder:
        pq.write_table(jobs.select(["job_id"]), folder / "jobs.parquet")
        shape = (len(text_J), ranker.width)
        table_JT = np.lib.format.open_memmap(folder / "towers.npy", mode="w+", dtype=np.float32, shape=shape)
        for start in range(0, len(text_J), _CHUNK):
            part = slice(start, start + _CHUNK)
            vector_JD = vectors(matrix_TD, text_J[part], description_J[part] if ranker.described else None)
            table_JT[part] = ranker.documents(vector_JD)
        table_JT.flush()
        facts = {"version": VERSION, "model": ranker.model, "encoder": encoder["hash"], "jobs": len(text_J)}
        storage.write_json(folder / "documents.json", facts)
    return len(text_J)


def vectors(
    matrix_TD: NDArray[Any], text_J: NDArray[np.integer[Any]], description_J: NDArray[np.integer[Any]] | None
) -> Floats:
    """Embeddings of documents for `OnlineRanker.documents`; with descriptions those beside them, zeros for -1."""
    vector_JD: Floats = matrix_TD[text_J].astype(np.float32)
    if description_J is None:
        return vector_JD
    described_JD = matrix_TD[np.maximum(description_J, 0)].astype(np.float32)
    described_JD[description_J < 0] = 0
    return np.concatenate([vector_JD, described_JD], axis=1)


def load(folder: Path, ranker: OnlineRanker) -> Documents:
    """Map a table that `write` made.

    Args:
        folder: of the table.
        ranker: whose towers they are.

    Raises:
        StorageError: a file is missing or may not be read.
        ArtifactError: the folder was changed, or was made with another model, encoder or version.
    """
    return manifest.whole(folder, lambda here: _load(here, ranker))


def _load(folder: Path, ranker: OnlineRanker) -> Documents:
    facts, where = storage.read_json(folder / "documents.json"), str(folder)
    if facts.get("version") != VERSION:
        problem = f"the document towers have version {facts.get('version')}, this tritower reads version {VERSION}"
        raise ArtifactError(problem, where=where, remedy=_REMEDY)
    for what, theirs, ours in (
        ("encoder", facts["encoder"], ranker.encoder["hash"]),
        ("model", facts["model"], ranker.model),
    ):
        if theirs != ours:
            problem = f"the document towers were computed with {what} {theirs}, asked for is {ours}"
            raise ArtifactError(problem, where=where, remedy=_REMEDY)
    job_ids = pq.read_table(folder / "jobs.parquet")["job_id"].combine_chunks()
    table_JT = np.load(folder / "towers.npy", mmap_mode="r" if len(job_ids) else None, allow_pickle=False)
    if table_JT.shape != (len(job_ids), ranker.width) or facts["jobs"] != len(job_ids):
        problem = f"the table has the shape {table_JT.shape} for {len(job_ids)} jobs and {ranker.width} columns"
        raise ArtifactError(problem, where=where, remedy=_REMEDY)
    return Documents(table_JT, job_ids)
