"""Reading what other steps wrote into `Rows`; called by the step only."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from tritower import storage
from tritower.errors import ArtifactError, DataError
from tritower.evaluation.rows import Rows

_KEYS = ["row", "request", "user", "job", "query_text", "position", "clicked", "randomised"]


def rows(features: Path, split: str, scores: dict[str, Path]) -> Rows:
    """The rows of a split with each ranker's scores.

    Raises:
        ArtifactError: a ranker scored other rows.
    """
    table = pq.read_table(storage.parquet_parts(features / split), columns=_KEYS)
    if len(table) == 0:
        raise DataError("the split has no rows", where=str(features / split), remedy="Use a longer log or a later split.")
    arrays = {
        name: (table[name].fill_null(0) if name == "position" else table[name]).combine_chunks().to_numpy(zero_copy_only=False)
        for name in _KEYS
    }
    read = {name: _score(folder, split, arrays["row"]) for name, folder in scores.items()}
    return grouped(Rows(**arrays, score=read))


def grouped(rows: Rows) -> Rows:
    """The same rows with each request's rows together; as they come if they already are."""
    starts = np.flatnonzero(np.diff(rows.request)) + 1
    firsts = rows.request[np.concatenate([[0], starts])]
    if len(np.unique(firsts)) == len(firsts):
        return rows
    return rows.take(np.argsort(rows.request, kind="stable"))


def shown(features: Path) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.bool_]]:
    """Position and label of the randomised rows of every split: what the examination curve is measured on."""
    positions, clicks = [], []
    for folder in sorted(features.iterdir()):
        if not folder.is_dir() or folder.name == "candidates":
            continue
        scanner = ds.dataset(storage.parquet_parts(folder)).scanner(
            columns=["position", "clicked"], filter=ds.field("randomised") & ds.field("position").is_valid()
        )
        for batch in scanner.to_batches():
            positions.append(batch["position"].to_numpy(zero_copy_only=False))
            clicks.append(batch["clicked"].to_numpy(zero_copy_only=False))
    if not positions:
        return np.empty(0, np.int16), np.empty(0, np.bool_)
    return np.concatenate(positions), np.concatenate(clicks)


def relevance(truth: str, dataset: Path, rows: Rows) -> npt.NDArray[np.float32]:
    """The simulator's relevance of each row; NaN where the truth table has no such row.

    Args:
        truth: folder, file or URI of `schema.TRUTH`.
    """
    first, last = int(rows.request.min()), int(rows.request.max())
    request_id = pq.read_table(dataset / "requests.parquet", columns=["request_id"])["request_id"]
    request_id = request_id.combine_chunks()[first : last + 1]
    job_id = pq.read_table(dataset / "jobs.parquet", columns=["job_id"])["job_id"].combine_chunks()
    wide = np.int64(len(job_id))
    key_N = (rows.request - first) * wide + rows.job
    order = np.argsort(key_N)
    sorted_N = key_N[order]
    value_N = np.full(len(rows), np.nan, dtype=np.float32)
    for batch in _table(truth, ["request_id", "job_id", "relevance"]):
        request = pc.index_in(batch["request_id"], value_set=request_id)
        here = request.is_valid()
        request = request.filter(here).to_numpy().astype(np.int64)
        job = pc.index_in(batch["job_id"].filter(here), value_set=job_id)
        key = request * wide + job.fill_null(-1).to_numpy().astype(np.int64)
        at = np.minimum(np.searchsorted(sorted_N, key), len(sorted_N) - 1)
        found = (sorted_N[at] == key) & job.is_valid().to_numpy(zero_copy_only=False)
        value_N[order[at[found]]] = batch["relevance"].filter(here).to_numpy(zero_copy_only=False)[found]
    return value_N


def _table(uri: str, columns: list[str]) -> "list[pa.RecordBatch]":
    if "://" in uri:
        filesystem, path = pyarrow.fs.FileSystem.from_uri(uri)
        source = ds.dataset(path, filesystem=filesystem, format="parquet", exclude_invalid_files=True)
    else:
        source = ds.dataset(uri, format="parquet", exclude_invalid_files=True)
    batches: list[pa.RecordBatch] = source.to_batches(columns=columns)
    return batches


def _score(folder: Path, split: str, row_N: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    file = folder / f"{split}.parquet"
    if not file.exists():
        raise ArtifactError("no scores for this split", where=str(file), remedy="Score the same features folder.")
    table = pq.read_table(file, columns=["row", "score"])
    if not np.array_equal(table["row"].to_numpy(), row_N):
        raise ArtifactError(
            "the scores are of other rows than the features", where=str(file), remedy="Run the scoring step on these features."
        )
    score: npt.NDArray[np.float32] = table["score"].combine_chunks().to_numpy().astype(np.float32)
    return score
