"""Reading impressions and candidates, batch by batch, as the arrays of the timeline."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tritower import schema, storage
from tritower.features.timeline import NO_TIME, Rows

KEYS = schema.FEATURE_KEYS.names()
COLUMNS = [*KEYS, "clicked_at"]


def batches(folder: Path, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """The Parquet parts of a folder in order, `batch_rows` rows at a time."""
    for part in storage.parquet_parts(folder):
        with pq.ParquetFile(part) as file:
            yield from file.iter_batches(batch_size=batch_rows, columns=COLUMNS)


def rows(batch: pa.RecordBatch, *, counts: bool, wanted: bool) -> Rows:
    """A batch as arrays.

    Args:
        batch: columns `COLUMNS` of DATASET_IMPRESSIONS.
        counts: the rows are events; false for candidates.
        wanted: features are wanted for them.
    """
    ts = times(batch, "ts")
    clicked = batch.column("clicked").to_numpy(zero_copy_only=False)
    clicked_at = times(batch, "clicked_at")
    return Rows(
        row=_column(batch, "row"),
        request=_column(batch, "request"),
        ts=ts,
        user=_column(batch, "user"),
        job=_column(batch, "job"),
        query=_column(batch, "query_text"),
        position=batch.column("position").fill_null(0).to_numpy().astype(np.int32),
        randomised=batch.column("randomised").to_numpy(zero_copy_only=False),
        clicked_at=np.where(clicked, np.where(clicked_at == NO_TIME, ts, clicked_at), NO_TIME),
        counts=np.full(len(ts), counts),
        out=np.arange(len(ts)) if wanted else np.full(len(ts), -1),
    )


def times(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.int64]:
    """A timestamp column as microseconds, `NO_TIME` for null."""
    values: npt.NDArray[np.int64] = batch.column(name).cast(pa.int64()).fill_null(int(NO_TIME)).to_numpy()
    return values


def _column(batch: pa.RecordBatch, name: str) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = batch.column(name).to_numpy()
    return values
