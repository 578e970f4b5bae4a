"""The index of a catalogue: what retrieval asks of every job, built once, kept as files that processes map and share.

    index = Index.build(jobs, documents, matrix, rows)              # or: inputs.index(dataset, embeddings)
    index.save(folder); index = Index.open(folder)
    index = index.updated(jobs, documents, vectors)                 # new and changed adverts: as if built with them

A job's number is its row in the table that the index was built from; jobs that are new to an update are numbered on. An advert
that has expired is one whose `expires_at` has changed.

index.json          {"version", "jobs", "dim", "longest"} and hashes of what it was made of
posted, expires     (J,) int64, microseconds since 1970; the smallest and the largest where unknown
city, region, country, company   (J,) int32 numbers of `names.arrow` (letter case and outer white space apart); -1 = unknown
order               (J,) int32, a job's place in the order of ids, which settles ties
job_ids.arrow       (J,)
vector_row          (J,) int64 row of each job in `vectors` (X, D) float16, the distinct documents' embeddings
codes_*             the same in bytes, a row for each job (scan.py)
heads_*             their heads (heads.py), where these leave few rows to look at; an index without them gives the same lists,
                    and those of an index whose heads stood row by row are not read
words_*             n-grams of the documents (words.py)

Legend: J jobs, N jobs of an update, X documents, T texts, D embedding size.
"""

import bisect
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tritower import storage
from tritower.errors import ArtifactError
from tritower.mapped import opened, put, read_strings, written
from tritower.recommend import heads, scan, words
from tritower.recommend.heads import Heads
from tritower.storage import manifest

VERSION = 1
NEVER, ALWAYS = np.iinfo(np.int64).max, np.iinfo(np.int64).min
NAMED = ("city", "region", "country", "company")
_FEW = 8  # where fewer than one job in so many is wanted, reading all of these costs less than heads of all
_COLUMNS = ("posted_J", "expires_J", "city_J", "region_J", "country_J", "company_J", "order_J")
Ints = NDArray[np.int64]
Numbers = NDArray[np.int32]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """Jobs as retrieval sees them; nothing of it is ever written to, so that any number of threads may read.

    Attributes:
        job_ids: the source's ids.
        posted_J, expires_J: microseconds since 1970; `ALWAYS` and `NEVER` where unknown.
        city_J, region_J, country_J, company_J: numbers of `names`, -1 where unknown.
        order_J: place in the order of ids.
        names: folded names of places and companies, each once.
        half_TD, text_J: bits of the embeddings, and each job's row there.
        codes: the embeddings in bytes.
        words: the documents' n-grams.
        heads: bounds for most rows at a third of the bytes.
    """

    job_ids: pa.Array
    posted_J: Ints
    expires_J: Ints
    city_J: Numbers
    region_J: Numbers
    country_J: Numbers
    company_J: Numbers
    order_J: Numbers
    names: dict[str, int]
    half_TD: NDArray[np.uint16]
    text_J: Ints
    codes: scan.Codes
    words: words.Words
    heads: Heads | None = None

    def __len__(self) -> int:
        return len(self.posted_J)

    @staticmethod
    def build(
        jobs: pa.Table, documents: Sequence[str], matrix_TD: NDArray[np.float16], text_J: NDArray[np.integer[Any]]
    ) -> "Index":
        """From a catalogue.

        Args:
            jobs: columns job_id, company, city, region, country, posted_at, expires_at.
            documents: each job's `schema.document_text`.
            matrix_TD: embeddings, in memory or mapped; unit vectors.
            text_J: row of each job's document there.
        """
        names: dict[str, int] = {}
        half_TD = scan.bits(matrix_TD)
        row_J: Ints = np.array(text_J, np.int64)
        ids = jobs.column("job_id").combine_chunks()
        return Index(
            job_ids=ids, order_J=_order(ids), **_columns(jobs, names), names=names, half_TD=half_TD, text_J=row_J,
            codes=scan.coded(half_TD, row_J), words=words.build(documents), heads=heads.made(half_TD, row_J),
        )._frozen()  # fmt: skip

    def updated(self, jobs: pa.Table, documents: Sequence[str], vector_ND: NDArray[np.floating[Any]]) -> "Index":
        """The index with new and changed adverts, equal in every answer to one built from the whole catalogue.

        Args:
            jobs: as for `build`, each job once.
            documents, vector_ND: their documents and the embeddings of those.
        """
        number_N = self.find(jobs.column("job_id").to_pylist())
        is_new_N = number_N < 0
        number_N[is_new_N] = len(self) + np.arange(is_new_N.sum())
        size, names = len(self) + int(is_new_N.sum()), dict(self.names)
        fresh = _columns(jobs, names)
        columns = {name: put(getattr(self, name), number_N, fresh[name], size) for name in fresh}
        ids = pa.concat_arrays([self.job_ids, jobs.column("job_id").combine_chunks().filter(pa.array(is_new_N))])
        fresh_ND = np.asarray(vector_ND, np.float16)
        text_N = len(self.half_TD) + np.arange(len(jobs))
        bits_ND = scan.bits(fresh_ND)
        codes = scan.coded(bits_ND, np.arange(len(jobs)))
        code = (put(old, number_N, new, size) for old, new in zip(self.codes.arrays, codes.arrays, strict=True))
        return Index(
            job_ids=ids, order_J=_order(ids) if is_new_N.any() else self.order_J, **columns, names=names,
            half_TD=np.concatenate([self.half_TD, fresh_ND.view(np.uint16)]),
            text_J=put(self.text_J, number_N, text_N, size),
            codes=scan.of_arrays(code, max(self.codes.longest, codes.longest)),
            words=words.updated(self.words, number_N, documents),
            heads=heads.updated(self.heads, number_N, bits_ND, size) if self.heads else None,
        )._frozen()  # fmt: skip

    def find(self, job_ids: Sequence[str]) -> Ints:
        """The numbers of jobs, -1 for those that are not in the index."""
        by_order = self.by_order
        found = np.full(len(job_ids), -1, np.int64)
        for n, job_id in enumerate(job_ids):
            at = bisect.bisect_left(by_order, job_id, key=lambda job: self.job_ids[job].as_py())
            if at < len(by_order) and self.job_ids[by_order[at]].as_py() == job_id:
                found[n] = by_order[at]
        return found

    def ids(self, jobs: Ints) -> list[str]:
        """The ids of jobs."""
        found: list[str] = self.job_ids.take(pa.array(jobs)).to_pylist()
        return found

    def number(self, name: str | None) -> int:
        """The number of a place or a company, -1 where no job has it."""
        return self.names.get(_folded(name) or "", -1)

    def save(self, folder: Path, made_of: Mapping[str, str] | None = None) -> None:
        """Write it as a folder of files that `open` maps.

        Args:
            made_of: hashes of what it was made of, such as `dataset`; kept in index.json.
        """
        with storage.atomic_directory(folder) as new:
            for name in _COLUMNS:
                written(new, name.removesuffix("_J"), getattr(self, name))
            written(new, "job_ids", self.job_ids)
            written(new, "names", pa.array(list(self.names), pa.string()))
            used, row_J = np.unique(self.text_J, return_inverse=True)
            written(new, "vectors", self.half_TD[used].view(np.float16))
            written(new, "vector_row", row_J.astype(np.int64))
            for kind, arrays in (("codes", self.codes.arrays), ("words", self.words)):
                for name, array in zip(type(getattr(self, kind))._fields, arrays, strict=False):
                    written(new, f"{kind}_{name}", array)
            facts: dict[str, Any] = {
                "jobs": len(self), "dim": self.half_TD.shape[1], "longest": float(self.codes.longest),
                "heads_abreast": heads.save(new, self.heads) if self.heads else None,
            }  # fmt: skip
            storage.write_json(new / "index.json", {"version": VERSION, **facts, **(made_of or {})})

    @staticmethod
    def open(folder: Path) -> "Index":
        """Map what `save` wrote.

        Raises:
            StorageError: a file is missing or may not be read.
            ArtifactError: the folder was changed, or is of another version.
        """
        return manifest.whole(folder, _open)

    def bounded(self, vectors: scan.Vectors, wanted_L: NDArray[np.bool_]) -> scan.Bounds:
        """Which numbers the products of wanted jobs with vectors are not above.

        Args:
            wanted_L: as `scan.wanted` gives it.
        """
        if self.heads and _FEW * np.count_nonzero(wanted_L) > len(wanted_L):
            return heads.bounded(self.heads, vectors, wanted_L)
        return scan.bounded(self.codes, vectors, wanted_L)

    @functools.cached_property
    def by_order(self) -> Ints:
        """The jobs in the order of their ids."""
        return np.argsort(self.order_J, kind="stable")

    def _frozen(self) -> "Index":
        for field in dataclasses.fields(self):
            if isinstance(array := getattr(self, field.name), np.ndarray):
                array.flags.writeable = False
        scan.frozen(self.codes)
        return self


def folded(names: Sequence[str | None] | pa.Array | pa.ChunkedArray) -> list[str | None]:
    """Names without letter case and outer white space; None for an empty one."""
    column = names if isinstance(names, pa.Array | pa.ChunkedArray) else pa.array(names, pa.string())
    plain = pc.utf8_lower(pc.utf8_trim_whitespace(column.cast(pa.string())))
    found: list[str | None] = pc.if_else(pc.equal(plain, ""), None, plain).to_pylist()
    return found


@functools.lru_cache(4096)
def _folded(name: str | None) -> str | None:
    return folded([name])[0]


def _columns(jobs: pa.Table, names: dict[str, int]) -> dict[str, NDArray[Any]]:
    """The columns of jobs in numbers; names that are new are numbered on."""
    out: dict[str, NDArray[Any]] = {}
    for what in NAMED:
        number = (-1 if name is None else names.setdefault(name, len(names)) for name in folded(jobs.column(what)))
        out[f"{what}_J"] = np.fromiter(number, np.int32, len(jobs))
    for what, unknown in (("posted", ALWAYS), ("expires", NEVER)):
        out[f"{what}_J"] = pc.fill_null(jobs.column(f"{what}_at").cast(pa.int64()), int(unknown)).to_numpy()
    return out


def _order(ids: pa.Array) -> Numbers:
    order_J = np.empty(len(ids), np.int32)
    order_J[pc.sort_indices(ids).to_numpy()] = np.arange(len(ids), dtype=np.int32)
    return order_J


def _open(folder: Path) -> Index:
    facts = storage.read_json(folder / "index.json")
    if facts.get("version") != VERSION:
        problem = f"the index has version {facts.get('version')}, this tritower reads version {VERSION}"
        raise ArtifactError(problem, where=str(folder), remedy="Build the index again from its dataset and embeddings.")
    code = (opened(folder, f"codes_{name}") for name in scan.Codes._fields[:3])
    index = Index(
        job_ids=read_strings(folder, "job_ids"), **{name: opened(folder, name.removesuffix("_J")) for name in _COLUMNS},
        names={name: number for number, name in enumerate(read_strings(folder, "names").to_pylist())},
        half_TD=scan.bits(opened(folder, "vectors")), text_J=opened(folder, "vector_row"),
        codes=scan.of_arrays(code, facts["longest"]),
        words=words.Words(*(opened(folder, f"words_{name}") for name in words.Words._fields)),
        heads=heads.read(folder, facts["heads_abreast"]) if facts.get("heads_abreast") is not None else None,
    )  # fmt: skip
    if not len(index) == len(index.job_ids) == facts["jobs"] or index.half_TD.shape[1] != facts["dim"]:
        problem = f"the parts of the index do not fit each other: {len(index)} jobs, {len(index.job_ids)} ids"
        raise ArtifactError(problem, where=str(folder), remedy="Build the index again from its dataset and embeddings.")
    return index
