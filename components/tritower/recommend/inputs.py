"""What retrieval knows of a dataset: the index of its jobs, and its clicks."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tritower.recommend.clicks import Clicks
from tritower.recommend.index import Index
from tritower.schema import DATASET_IMPRESSIONS, SPLITS


def matrix(embeddings: Path) -> NDArray[np.float16]:
    """The embeddings of a dataset's texts, mapped."""
    found: NDArray[np.float16] = np.load(embeddings / "matrix.npy", mmap_mode="r", allow_pickle=False)
    return found


def index(dataset: Path, embeddings: Path) -> Index:
    """The index of a dataset's jobs; a job's number is its row in `jobs.parquet`."""
    columns = ["job_id", "company", "city", "region", "country", "posted_at", "expires_at", "document_text"]
    jobs, text_T = pq.read_table(dataset / "jobs.parquet", columns=columns), _texts(dataset)
    text_J = jobs.column("document_text")
    return Index.build(jobs, text_T.take(text_J).to_pylist(), matrix(embeddings), text_J.to_numpy())


def clicks(dataset: Path, embeddings: Path) -> Clicks:
    """Every click of a dataset, by its time."""
    parts = [str(part) for split in SPLITS for part in sorted((dataset / "impressions" / split).glob("*.parquet"))]
    found = ds.dataset(parts, schema=DATASET_IMPRESSIONS.arrow(), partitioning=None)
    columns = ["user", "job", "query_text", "ts", "clicked_at"]
    table = found.to_table(columns=columns, filter=pc.field("clicked"))
    user_id = pq.read_table(dataset / "users.parquet", columns=["user_id"])["user_id"].combine_chunks()
    made = pc.coalesce(table["clicked_at"], table["ts"])
    return Clicks.build(
        user_E=user_id.take(table["user"].combine_chunks()),
        job_E=table["job"].cast(pa.int64()).to_numpy(),
        query_text_E=table["query_text"].cast(pa.int64()).to_numpy(),
        clicked_us_E=made.cast(pa.int64()).to_numpy(),
        text_T=_texts(dataset),
        matrix_TD=matrix(embeddings),
    )


def _texts(dataset: Path) -> pa.Array:
    return pq.read_table(dataset / "texts.parquet", columns=["value"])["value"].combine_chunks()
