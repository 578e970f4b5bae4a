"""The jobs that can be ranked: by id, with what an answer shows of each and the document tower's output.

Legend: J jobs, N jobs asked for.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tritower.errors import ArtifactError
from tritower.ranker.documents import Documents

_SHOWN = ["title", "company", "city", "region", "country", "posted_at", "expires_at"]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Jobs by row.

    Attributes:
        documents: their towers.
        shown: title, company, city, region, country, posted_at, expires_at.
    """

    documents: Documents
    shown: pa.Table

    @staticmethod
    def read(dataset: Path, documents: Documents) -> "Catalogue":
        """Of a bundle's part `dataset`.

        Raises:
            ArtifactError: the towers are of other jobs.
        """
        jobs = pq.read_table(dataset / "jobs.parquet", columns=["job_id", *_SHOWN]).combine_chunks()
        if jobs["job_id"].to_pylist() != list(documents.row_by_job):
            raise ArtifactError(
                "the document towers are of another dataset", where=str(dataset), remedy="Make the bundle again."
            )
        return Catalogue(documents=documents, shown=jobs.select(_SHOWN))

    def find(self, job_ids: Sequence[str]) -> Ints:
        """The row of each job, -1 where the catalogue lacks it."""
        return np.fromiter((self.documents.row_by_job.get(job_id, -1) for job_id in job_ids), np.int64, len(job_ids))


def same_advert(title: str, company: str) -> tuple[str, str]:
    """A key that adverts share which a reader takes for one: white space and letter case apart."""
    return re.sub(r"[\t\n\f\r ]+", " ", title.strip(" ").lower()), company.lower()
