"""Reading impressions and candidates through an engine, in time order, as the arrays of the timeline."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tritower import schema, storage
from tritower.engines.batches import BatchKernel
from tritower.engines.protocol import Engine
from tritower.features.timeline import NO_TIME, Rows

KEYS = schema.FEATURE_KEYS.names()
COLUMNS = [*KEYS, "clicked_at"]
BATCH_ROWS = 131_072  # the smallest size at which the cost per batch no longer shows; memory grows by about 0.5 KiB a row
_TYPES = {field.name: field.type for field in schema.DATASET_IMPRESSIONS.arrow()}
# As an engine hands rows out: a time is an integer of microseconds.
SCHEMA = pa.schema([(name, pa.int64() if pa.types.is_timestamp(_TYPES[name]) else _TYPES[name]) for name in COLUMNS])


class Table:
    """A table of impressions or candidates in an engine, sorted by `row`, which is their order in time.

    Args:
        engine: where it is read.
        name: what it is called there.
        folder: its Parquet parts, written in that order.
        since: rows before this time are left out, in microseconds; None for all rows.
    """

    def __init__(self, engine: Engine, name: str, folder: str, since: int | None = None) -> None:
        self._engine, self._name = engine, name
        engine.register(name, folder)
        late = "" if since is None else f" WHERE i.ts >= {since}"
        self._query = f"SELECT {', '.join(f'i.{column}' for column in COLUMNS)} FROM {name} i{late}"

    def searches(self, condition: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The searches of the rows that an SQL condition on `i` picks, by number, and how many such rows each of them has."""
        query = f"SELECT i.request, count(*) AS n FROM {self._name} i WHERE {condition} GROUP BY i.request"
        batches = list(self._engine.stream(query, order_by="request"))
        columns = [[batch.column(at).to_numpy() for batch in batches] for at in (0, 1)]
        request, rows = (np.concatenate([np.empty(0, np.int64), *column]) for column in columns)
        return request, rows

    def count(self) -> int:
        """All its rows, the early ones too."""
        return int(self._engine.rows(f"SELECT count(*) AS n FROM {self._name}")[0]["n"])

    def last_ts(self) -> int | None:
        """The time of its last row in microseconds; None without rows."""
        last: int | None = self._engine.rows(f"SELECT max(i.ts) AS ts FROM {self._name} i")[0]["ts"]
        return last

    def batches(self, kernel: BatchKernel | None = None, schema: pa.Schema = SCHEMA) -> Iterator[pa.RecordBatch]:
        """The rows in order as `SCHEMA`, or as `schema` where a kernel adds to them."""
        return self._engine.stream(
            self._query, order_by="row", presorted=True, kernel=kernel, schema=schema, batch_rows=BATCH_ROWS
        )


def batches(folder: Path) -> Iterator[pa.RecordBatch]:
    """The Parquet parts of a folder in order, without an engine."""
    for part in storage.parquet_parts(folder):
        with pq.ParquetFile(part) as file:
            yield from file.iter_batches(batch_size=BATCH_ROWS, columns=COLUMNS)


def shows_views_only(dataset: Path) -> bool:
    """Whether the source logged views only, so that the rows without a click were drawn by ingest and never shown."""
    counts = storage.read_json(dataset / "dataset.json").get("counts", {})
    return bool(counts.get("impressions", {}).get("drawn", 0))


def keys(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The columns of FEATURE_KEYS in the types of the files."""
    wanted = schema.FEATURE_KEYS.arrow()
    return pa.RecordBatch.from_arrays([batch.column(field.name).cast(field.type) for field in wanted], schema=wanted)


def rows(batch: pa.RecordBatch, *, counts: bool, wanted: bool, views_only: bool = False) -> Rows:
    """A batch as arrays.

    Args:
        batch: columns `COLUMNS` of DATASET_IMPRESSIONS.
        counts: the rows are events; false for candidates.
        wanted: features are wanted for them.
        views_only: rows without a click are no events: they were drawn from the jobs viewed in the days that followed, and
            counting them would tell that a view is coming.
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
        counts=np.full(len(ts), counts) & (clicked | (not views_only)),
        out=np.arange(len(ts)) if wanted else np.full(len(ts), -1),
    )


def times(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.int64]:
    """A timestamp column as microseconds, `NO_TIME` for null."""
    values: npt.NDArray[np.int64] = batch.column(name).cast(pa.int64()).fill_null(int(NO_TIME)).to_numpy()
    return values


def _column(batch: pa.RecordBatch, name: str) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = batch.column(name).to_numpy()
    return values


class Queue:
    """Batches in time order, taken out up to a time."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._next: pa.RecordBatch | None = None

    def until(self, ts: int | None) -> pa.RecordBatch | None:
        """The next rows that are not later than `ts` (None: of any time), of one batch at most; None if there are none."""
        if self._next is None or not self._next.num_rows:
            self._next = next(self._batches, None)
        if self._next is None:
            return None
        ready = self._next.num_rows if ts is None else int(np.searchsorted(times(self._next, "ts"), ts, side="right"))
        now, self._next = self._next.slice(0, ready), self._next.slice(ready)
        return now if ready else None
