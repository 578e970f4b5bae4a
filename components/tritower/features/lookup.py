"""The tables that do not change during a pass, as arrays: jobs, users, requests, texts and the embedding matrix.

Legend: J jobs, U users, R requests, T texts, D dimensions.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tritower.errors import ArtifactError, StorageError
from tritower.features.places import PlaceCodes, mentions_remote
from tritower.features.similarity import Lists
from tritower.features.strings import normalise

Int32 = npt.NDArray[np.int32]
NO_DATE = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """Everything a batch gathers from; numbers are those of the dataset."""

    title_J: Int32
    document_J: Int32
    company_J: Int32
    occupation_J: Int32
    place_3J: Int32
    posted_J: npt.NDArray[np.int64]
    remote_J: npt.NDArray[np.bool_]
    home_3U: Int32
    wanted: Lists
    past: Lists
    place_3R: Int32
    remote_R: npt.NDArray[np.bool_]
    texts: pa.Array
    blank_T: npt.NDArray[np.bool_]
    companies: pa.Array
    matrix_TD: npt.NDArray[np.uint16]


def read(dataset: Path, embeddings: Path, requests: Path | None = None) -> Lookup:
    """Read what the pass needs, and no other column.

    Args:
        dataset: the dataset folder.
        embeddings: the embeddings folder.
        requests: another requests table, for candidates.

    Raises:
        StorageError: a file is missing.
        ArtifactError: the embeddings belong to another dataset.
    """
    jobs = _table(dataset / "jobs.parquet", ["title_text", "document_text", "company_key", "occupation_key", "company",
                  "city", "region", "country", "posted_at"])  # fmt: skip
    users = _table(dataset / "users.parquet", ["interest_texts", "past_title_texts", "city", "region", "country"])
    searches = _table(requests or dataset / "requests.parquet", ["request", "query_text", "city", "region", "country"])
    texts = normalise(_table(dataset / "texts.parquet", ["value"]).column("value").combine_chunks())
    blank_T = np.asarray(pc.equal(texts, "").to_numpy(zero_copy_only=False), np.bool_)
    remote_T = mentions_remote(texts)
    matrix = _matrix(embeddings / "matrix.npy", len(texts))
    codes = PlaceCodes()
    title_J = _numbers(jobs.column("title_text"))
    company_J = _numbers(jobs.column("company_key"))
    size = int(searches.column("request").to_numpy().max()) + 1 if searches.num_rows else 0
    request = searches.column("request").to_numpy()
    place_3R = np.full((3, size), -1, np.int32)
    remote_R = np.zeros(size, np.bool_)
    place_3R[:, request] = codes.encode(searches)
    remote_R[request] = remote_T[_numbers(searches.column("query_text"))] | _remote_place(searches)
    return Lookup(
        title_J=title_J,
        document_J=_numbers(jobs.column("document_text")),
        company_J=company_J,
        occupation_J=_numbers(jobs.column("occupation_key")),
        place_3J=codes.encode(jobs),
        posted_J=_times(jobs.column("posted_at")),
        remote_J=remote_T[title_J] | _remote_place(jobs),
        home_3U=codes.encode(users),
        wanted=Lists.of(users.column("interest_texts"), blank_T),
        past=Lists.of(users.column("past_title_texts"), blank_T),
        place_3R=place_3R,
        remote_R=remote_R,
        texts=texts,
        blank_T=blank_T,
        companies=_companies(company_J, jobs.column("company").combine_chunks()),
        matrix_TD=matrix,
    )


def _table(path: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except FileNotFoundError:
        raise StorageError("the table is missing", where=str(path), remedy="Was ingest run to its end?") from None


def _numbers(column: pa.ChunkedArray) -> Int32:
    """An int32 column as numpy; -1 for null."""
    return np.asarray(pc.fill_null(column, -1).to_numpy(), np.int32)


def _times(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A timestamp column as microseconds; `NO_DATE` for null."""
    return np.asarray(pc.fill_null(column.cast(pa.int64()), int(NO_DATE)).to_numpy(), np.int64)


def _remote_place(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Whether a row names remote work in place of a city or region."""
    words = [mentions_remote(chunk) for name in ("city", "region") for chunk in [table.column(name).combine_chunks()]]
    return words[0] | words[1]


def _companies(company_J: Int32, names: pa.Array) -> pa.Array:
    """The name of each company by its number: that of its first job."""
    keys, first = np.unique(company_J, return_index=True)
    full = np.zeros(int(keys.max()) + 1 if len(keys) else 0, np.int64)
    full[keys] = first
    return normalise(names.take(pa.array(full)))


def _matrix(path: Path, texts: int) -> npt.NDArray[np.uint16]:
    if not path.exists():
        raise StorageError("the embeddings are missing", where=str(path), remedy="Was the encoder's step run to its end?")
    matrix = np.load(path, mmap_mode="r")
    if matrix.dtype != np.float16 or len(matrix) != texts:
        raise ArtifactError(
            f"the matrix holds {len(matrix)} rows of {matrix.dtype}, the dataset {texts} texts",
            where=str(path),
            remedy="Embed this dataset again.",
        )
    return np.asarray(matrix).view(np.uint16)
