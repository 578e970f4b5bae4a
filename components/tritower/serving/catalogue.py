"""The jobs that can be ranked: by id, with what an answer shows of each, the document tower's output, and retrieval's index.

A catalogue is never written to: `updated` gives a new one. The bundle's table of towers stays mapped; what updates bring lies
behind it.

Legend: J jobs, N jobs asked for, U jobs of updates, T width of a document's row.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tritower.errors import ArtifactError
from tritower.lookup import Lookup
from tritower.ranker.documents import Documents
from tritower.recommend.index import Index
from tritower.serving import resident
from tritower.serving.resident import SHOWN

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Jobs by row: the numbers of the index.

    Attributes:
        rows: the rows of job ids. It may hold jobs of later updates, too.
        index: for retrieval and filters.
        table_JT: towers of the bundle's jobs.
        extra_UT: towers of the jobs of updates.
        shown: what answers show: of the bundle's jobs, then of the updates'.
        at_J: where a row's tower and what is shown of it stand; from the length of `table_JT` on in what updates brought.
    """

    rows: Lookup
    index: Index
    table_JT: Floats
    extra_UT: Floats
    shown: pa.Table
    at_J: Ints

    def __len__(self) -> int:
        return len(self.at_J)

    @staticmethod
    def read(dataset: Path, documents: Documents, index: Index, kept: Path | None = None) -> "Catalogue":
        """Of a bundle's part `dataset`.

        Args:
            dataset: the part.
            documents, index: of the same bundle.
            kept: the part `resident`, where there is one: what is shown is then mapped.

        Raises:
            ArtifactError: the towers or the index are of other jobs.
        """
        columns = ["job_id"] if kept else ["job_id", *SHOWN]
        jobs = pq.read_table(dataset / "jobs.parquet", columns=columns).combine_chunks()
        for what, ids in (("document towers", documents.job_ids), ("index", index.job_ids)):
            if not jobs["job_id"].combine_chunks().equals(ids):
                raise ArtifactError(f"the {what} are of other jobs", where=str(dataset), remedy="Make the bundle again.")
        table_JT = documents.table_JT
        shown, slots = resident.shown(kept) if kept else (jobs.select(SHOWN), None)
        return Catalogue(
            rows=Lookup(index.job_ids, slots), index=index, table_JT=table_JT,
            extra_UT=np.empty((0, table_JT.shape[1]), np.float32), shown=shown, at_J=np.arange(len(jobs)),
        )  # fmt: skip

    def find(self, job_ids: Sequence[str]) -> Ints:
        """The row of each job, -1 where the catalogue lacks it."""
        found = self.rows.find_all(job_ids)
        found[found >= len(self)] = -1
        return found

    def towers(self, row_N: Ints) -> tuple[Floats, Ints]:
        """A table of towers, and the row in it of each job asked for."""
        at_N, known = self.at_J[row_N], len(self.table_JT)
        is_new_N = at_N >= known
        if not is_new_N.any():
            return self.table_JT, at_N
        table_NT: Floats = np.empty((len(at_N), self.table_JT.shape[1]), np.float32)
        table_NT[is_new_N] = self.extra_UT[at_N[is_new_N] - known]
        table_NT[~is_new_N] = self.table_JT[at_N[~is_new_N]]
        return table_NT, np.arange(len(at_N))

    def job(self, row: int) -> dict[str, pa.Scalar]:
        """What an answer shows of a job."""
        return {name: self.shown[name][int(self.at_J[row])] for name in SHOWN}

    def named(self, row: int) -> tuple[str, str]:
        """Title and company of a job."""
        at = int(self.at_J[row])
        return self.shown["title"][at].as_py(), self.shown["company"][at].as_py()

    def by_row(self) -> pa.Table:
        """What is shown of all jobs, by row."""
        if not len(self.extra_UT):
            return self.shown
        return self.shown.take(pa.array(self.at_J))

    def updated(self, jobs: pa.Table, index: Index, tower_UT: Floats) -> "Catalogue":
        """With new and changed adverts.

        Args:
            jobs: rows of `schema.RAW_JOBS`, each job once.
            index: updated with the same jobs.
            tower_UT: their towers.
        """
        at_J = np.full(len(index), -1, np.int64)
        at_J[: len(self)] = self.at_J
        row_N = self.rows.add_all(jobs["job_id"].to_pylist())
        at_J[row_N] = len(self.table_JT) + len(self.extra_UT) + np.arange(len(jobs))
        assert (at_J >= 0).all(), "the index numbers new jobs in another order"
        shown = pa.concat_tables([self.shown, jobs.select(SHOWN).cast(self.shown.schema)]).combine_chunks()
        extra_UT = np.concatenate([self.extra_UT, tower_UT])
        return dataclasses.replace(self, index=index, extra_UT=extra_UT, shown=shown, at_J=at_J)


def same_advert(title: str, company: str) -> tuple[str, str]:
    """A key that adverts share which a reader takes for one: white space and letter case apart."""
    return re.sub(r"[\t\n\f\r ]+", " ", title.strip(" ").lower()), company.lower()
