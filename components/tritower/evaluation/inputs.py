"""Reading what other steps wrote into `Rows`; called by the step only."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from tritower import schema, storage
from tritower.drawable import printable
from tritower.errors import ArtifactError, DataError
from tritower.evaluation.rows import Rows
from tritower.evaluation.slices import Context

_Numbers = npt.NDArray[np.int64]
_KEYS = ["row", "request", "user", "job", "query_text", "position", "clicked", "randomised"]


def rows(features: Path, split: str, scores: dict[str, Path]) -> Rows:
    """The rows of a split with each ranker's scores.

    Raises:
        ArtifactError: a ranker scored other rows.
    """
    table = pq.read_table(storage.parquet_parts(features / split), columns=_KEYS, partitioning=None)
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
    for folder in _split_folders(features):
        scanner = ds.dataset(storage.parquet_parts(folder), partitioning=None).scanner(
            columns=["position", "clicked"], filter=ds.field("randomised") & ds.field("position").is_valid()
        )
        for batch in scanner.to_batches():
            positions.append(batch["position"].to_numpy(zero_copy_only=False))
            clicks.append(batch["clicked"].to_numpy(zero_copy_only=False))
    if not positions:
        return np.empty(0, np.int16), np.empty(0, np.bool_)
    return np.concatenate(positions), np.concatenate(clicks)


def context(dataset: Path, features: Path, before: int) -> Context:
    """What the slices ask of searches and jobs.

    Args:
        before: first request of the judged split; earlier ones are history.
    """
    requests = pq.read_table(dataset / "requests.parquet", columns=["user", "query_text", "city", "region"])
    user_R = requests["user"].to_numpy()
    _, first = np.unique(user_R, return_index=True)
    known_R = np.ones(len(user_R), np.bool_)
    known_R[first] = False
    texts = pq.read_metadata(dataset / "texts.parquet").num_rows
    jobs = pq.read_table(dataset / "jobs.parquet", columns=["city", "region"])
    shown_J = np.zeros(len(jobs), np.int64)
    for folder in _split_folders(features):
        for batch in ds.dataset(storage.parquet_parts(folder), partitioning=None).to_batches(columns=["job", "request"]):
            job_N = batch["job"].to_numpy()[batch["request"].to_numpy() < before]
            shown_J += np.bincount(job_N, minlength=len(jobs))
    city_R, city_J, _ = _places(requests, jobs, "city", "region")
    region_R, _, names = _places(requests, jobs, "region")
    return Context(
        known_R=known_R,
        shown_J=shown_J,
        searched_T=np.bincount(requests["query_text"].to_numpy()[:before], minlength=texts),
        city_R=city_R,
        region_R=region_R,
        city_J=city_J,
        regions=tuple(printable(name.title() if len(name) > 3 else name.upper(), 60) for name in names),
    )


def _places(requests: pa.Table, jobs: pa.Table, *columns: str) -> tuple[_Numbers, _Numbers, list[str]]:
    """Dense numbers of the places of requests and of jobs, -1 unknown, and the places' names; case does not count."""
    both = [pa.concat_arrays([*requests[name].chunks, *jobs[name].chunks]) for name in columns]
    plain = [pc.utf8_lower(pc.utf8_trim_whitespace(column)) for column in both]
    text = pc.binary_join_element_wise(plain[0], *[column.fill_null("") for column in plain[1:]], "|")
    coded = text.dictionary_encode() if len(text) else pa.array([""]).dictionary_encode()
    number = coded.indices.fill_null(-1).to_numpy().astype(np.int64)
    return number[: len(requests)], number[len(requests) :], coded.dictionary.to_pylist()


def user_ids(dataset: Path, users: _Numbers | npt.NDArray[np.int32]) -> dict[int, str]:
    """The log's ids of some users."""
    ids = pq.read_table(dataset / "users.parquet", columns=["user_id"])["user_id"].take(pa.array(users, pa.int64()))
    return dict(zip(users.tolist(), ids.to_pylist(), strict=True))


def feature_names(features: Path) -> list[str]:
    """The features of a folder."""
    return [feature["name"] for feature in storage.read_json(features / "features.json")["features"]]


def titles(dataset: Path, requests: list[int], jobs: list[int]) -> tuple[dict[int, str], dict[int, str]]:
    """What a reader sees of some searches ("query, place") and some jobs ("title, company, place")."""
    table = pq.read_table(dataset / "requests.parquet", columns=["query_text", "city", "region"])
    table = table.take(pa.array(requests, pa.int64()))
    texts = pq.read_table(dataset / "texts.parquet", columns=["value"]).take(table["query_text"])["value"].to_pylist()
    place = zip(table["city"].to_pylist(), table["region"].to_pylist(), strict=True)
    searched = [
        printable(", ".join(part for part in (text or "(empty)", *where) if part))
        for text, where in zip(texts, place, strict=True)
    ]
    table = pq.read_table(dataset / "jobs.parquet", columns=["title", "company", "city", "region"])
    table = table.take(pa.array(jobs, pa.int64()))
    shown = [printable(", ".join(part for part in row.values() if part)) for row in table.to_pylist()]
    return dict(zip(requests, searched, strict=True)), dict(zip(jobs, shown, strict=True))


def examination(scores: Path) -> npt.NDArray[np.float64] | None:
    """The examination curve that a ranker learned, (P + 1,) with 1 for an unknown position; None where it tells of none."""
    file = scores / "scores.json"
    told = storage.read_json(file).get("examination") if file.exists() else None
    return np.array([1.0, *told], dtype=np.float64) if told else None


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
    for batch in _batches(truth, ["request_id", "job_id", "relevance"]):
        request = pc.index_in(batch["request_id"], value_set=request_id)
        here = request.is_valid()
        request = request.filter(here).to_numpy().astype(np.int64)
        job = pc.index_in(batch["job_id"].filter(here), value_set=job_id)
        key = request * wide + job.fill_null(-1).to_numpy().astype(np.int64)
        at = np.minimum(np.searchsorted(sorted_N, key), len(sorted_N) - 1)
        found = (sorted_N[at] == key) & job.is_valid().to_numpy(zero_copy_only=False)
        value_N[order[at[found]]] = batch["relevance"].filter(here).to_numpy(zero_copy_only=False)[found]
    return value_N


def _split_folders(features: Path) -> list[Path]:
    return [features / name for name in schema.SPLITS if (features / name).is_dir()]


def _batches(uri: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    store, _ = storage.filesystem(uri)
    for file in storage.list_files(uri):
        if file.endswith(".parquet"):
            _, path = storage.filesystem(file)
            with storage.reading(file), store.open_input_file(path) as opened, pq.ParquetFile(opened) as table:
                yield from table.iter_batches(columns=columns)


def _score(folder: Path, split: str, row_N: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    file = folder / f"{split}.parquet"
    if not file.exists():
        raise ArtifactError("no scores for this split", where=str(file), remedy="Score the same features folder.")
    table = pq.read_table(file, columns=["row", "score"])
    if not np.array_equal(table["row"].to_numpy(), row_N):
        raise ArtifactError(
            "the scores are of other rows than the features", where=str(file), remedy="Run the scoring step on these features."
        )
    score: npt.NDArray[np.float32] = table["score"].combine_chunks().to_numpy(zero_copy_only=False).astype(np.float32)
    wrong_N = ~((score >= 0) & (score <= 1))  # NaN, too
    if wrong_N.any():
        raise ArtifactError(
            f"{wrong_N.sum():,} of {len(score):,} scores are no probability from 0 to 1", where=str(file), remedy="Score again."
        )
    return score
