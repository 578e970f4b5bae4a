"""The tables that do not change during a pass, as arrays: jobs, users, requests, texts and the embedding matrix.

Legend: J jobs, U users, T texts, D dimensions.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tritower import storage
from tritower.errors import ArtifactError, StorageError
from tritower.features import occupations
from tritower.features.places import PlaceCodes, mentions_remote, names_remote
from tritower.features.requests import OneSearch, Requests, opened
from tritower.features.similarity import Lists
from tritower.features.strings import normalise

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
USER_COLUMNS = ["user_id", "interest_texts", "past_title_texts", "city", "region", "country"]
NO_DATE = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """Columns of the job table; -1 = unknown. `companies` and `occupations` are the names that the keys stand for."""

    ids: pa.Array
    title_J: Int32
    document_J: Int32
    description_J: Int32
    company_J: Int32
    occupation_J: Int32
    place_3J: Int32
    posted_J: npt.NDArray[np.int64]
    remote_J: Bool
    companies: pa.Array
    occupations: pa.Array

    def __len__(self) -> int:
        return len(self.title_J)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The texts' plain forms (`strings.normalise`): `plain_T` numbers them, -1 = blank; `plain` holds them once each."""

    values: pa.Array
    plain_T: Int32
    plain: pa.Array
    remote_T: Bool

    def __len__(self) -> int:
        return len(self.plain_T)


@dataclass(frozen=True, kw_only=True)
class FeatureTables:
    """Everything a batch gathers from; numbers are those of the dataset.

    `requests` are those of the log, `searches` those that features are wanted for: the same, or those of candidates.
    `matrix_TD` holds the bits of float16. Texts that only a continued state knows are numbered from T on and have their
    vectors in `extra_XD`; the state's own requests are numbered from -1 down and named in `past_requests`.
    """

    jobs: Jobs
    texts: Texts
    user_ids: pa.Array
    places: PlaceCodes
    encoder: str
    requests: Requests
    searches: Requests | OneSearch
    past_requests: list[str]
    extra_XD: npt.NDArray[np.uint16]
    home_3U: Int32
    wanted: Lists
    past: Lists
    matrix_TD: npt.NDArray[np.uint16]

    def vectors(self, texts: npt.NDArray[Any], out: npt.NDArray[np.uint16] | None = None) -> npt.NDArray[np.uint16]:
        """The vectors of texts, as bits of float16; written into `out` if that is given."""
        own = texts < len(self.matrix_TD)
        out = np.empty((len(texts), self.matrix_TD.shape[1]), np.uint16) if out is None else out
        if own.all():
            np.take(self.matrix_TD, texts, axis=0, out=out, mode="wrap")
            return out
        out[own] = self.matrix_TD[texts[own]]
        out[~own] = self.extra_XD[texts[~own] - len(self.matrix_TD)]
        return out

    def request_ids(self, requests: npt.NDArray[np.int64]) -> list[str]:
        """The source's ids of requests."""
        known: list[str] = self.requests.ids(requests[requests >= 0]).to_pylist()
        return [self.past_requests[-1 - r] for r in requests[requests < 0].tolist()] + known

    @staticmethod
    def read(dataset: Path, embeddings: Path, requests: Path | None = None) -> "FeatureTables":
        """Read what the pass needs, and no other column.

        Args:
            dataset: the dataset folder.
            embeddings: the embeddings folder.
            requests: another requests table, for candidates.

        Raises:
            StorageError: a file is missing.
            ArtifactError: the embeddings belong to another dataset.
        """
        texts = _texts(dataset / "texts.parquet")
        codes = PlaceCodes()
        jobs = _jobs(dataset / "jobs.parquet", texts, codes)
        users = _table(
            dataset / "users.parquet", ["user_id", "interest_texts", "past_title_texts", "city", "region", "country"]
        )
        log = Requests(dataset / "requests.parquet", texts.remote_T, codes)
        matrix_TD = matrix(embeddings / "matrix.npy", len(texts))
        return FeatureTables(
            jobs=jobs,
            texts=texts,
            home_3U=codes.encode(users),
            wanted=Lists.of(users.column("interest_texts"), texts.plain_T < 0),
            past=Lists.of(users.column("past_title_texts"), texts.plain_T < 0),
            user_ids=users.column("user_id").combine_chunks(),
            places=codes,
            encoder=str(storage.read_json(embeddings / "encoder.json").get("hash", "")),
            requests=log,
            searches=Requests(requests, texts.remote_T, codes) if requests else log,
            past_requests=[],
            extra_XD=np.empty((0, matrix_TD.shape[1]), np.uint16),
            matrix_TD=matrix_TD,
        )


def _texts(path: Path) -> Texts:
    table = _table(path, ["value", "is_query", "is_title", "is_document", "is_profile"]).combine_chunks()
    values = table.column("value").combine_chunks()
    # Descriptions are embedded, not compared: they are the longest texts, and only some of them are something else as well.
    compared = functools.reduce(pc.or_, table.columns[1:]).combine_chunks()
    texts = normalise(pc.if_else(compared, values, ""))
    plain_T, plain = keys(texts)
    return Texts(values=values, plain_T=plain_T, plain=plain, remote_T=mentions_remote(texts))


def _jobs(path: Path, texts: Texts, codes: PlaceCodes) -> Jobs:
    columns = [
        "job_id",
        "title",
        "company",
        "occupation",
        "title_text",
        "document_text",
        "description_text",
        "city",
        "region",
        "country",
        "posted_at",
    ]
    table = _table(path, columns)
    title_J = _numbers(table.column("title_text"))
    company_J, companies = keys(normalise(table.column("company").combine_chunks()))
    known = [_occupations(batch) for batch in table.to_batches(max_chunksize=65_536)]
    occupation_J, names = keys(pa.concat_arrays(known) if known else pa.array([], pa.string()))
    return Jobs(
        ids=table.column("job_id").combine_chunks(),
        title_J=title_J,
        document_J=_numbers(table.column("document_text")),
        description_J=_numbers(pc.fill_null(table.column("description_text"), -1)),
        company_J=company_J,
        occupation_J=occupation_J,
        place_3J=codes.encode(table),
        posted_J=np.asarray(pc.fill_null(table.column("posted_at").cast(pa.int64()), int(NO_DATE)).to_numpy(), np.int64),
        remote_J=texts.remote_T[title_J] | names_remote(table),
        companies=companies,
        occupations=names,
    )


def _occupations(batch: pa.RecordBatch) -> pa.Array:
    return pa.array(occupations.of_jobs(batch["occupation"].to_pylist(), batch["title"].to_pylist()), pa.string())


def keys(words: pa.Array) -> tuple[Int32, pa.Array]:
    """A dense number for each distinct word in the order of first appearance, -1 for null and the empty word."""
    encoded = pc.dictionary_encode(pc.if_else(pc.equal(words, ""), pa.scalar(None, words.type), words))
    return np.asarray(encoded.indices.fill_null(-1).to_numpy(), np.int32), encoded.dictionary


def _table(path: Path, columns: list[str]) -> pa.Table:
    with opened(path) as file:
        return file.read(columns=columns)


def _numbers(column: pa.ChunkedArray) -> Int32:
    return np.asarray(column.to_numpy(), np.int32)


def matrix(path: Path, texts: int) -> npt.NDArray[np.uint16]:
    """The embeddings of a dataset's texts, mapped, as bits of float16.

    Raises:
        StorageError: they are missing.
        ArtifactError: they are of another dataset.
    """
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
