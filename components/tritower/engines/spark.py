"""The Spark engine: the protocol of `protocol.py` on a Spark session (extra `spark`, Java 17).

Where the session comes from, in this order: what spark-submit or the Spark Operator set up, a Spark Connect endpoint in
SPARK_REMOTE, executors as pods of this cluster (`config.SparkConfig`), a master in TRITOWER_SPARK_MASTER (such as
spark://host:7077), otherwise this machine.

A kept table is a set of Parquet files that the workers write into a scratch place with pyarrow, so that neither Hadoop
connectors nor Spark's own committer are needed. Each task writes one file under a name of its own and reports it when it ends;
only reported files count, so a task that ran twice, or a worker that died half-way, leaves nothing in the result. The order of
a sorted table is the order of its partitions, which gives dense numbers without a single-partition window.
"""

import contextlib
import functools
import re
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritower import storage
from tritower.engines.batches import BATCH_ROWS, BatchKernel, GroupKernel, WritesStreams, ordered, rebatch
from tritower.engines.config import SparkConfig
from tritower.engines.session import broadcast_by_real_sizes, find_session, marked, open_executors, spark_errors
from tritower.errors import ConfigError, StorageError, TritowerError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

_BUCKETS = 64  # of a key space: a kernel of map_groups holds about one bucket at a time
_FEW_ROWS = 10_000  # a table up to this size travels in the query plan
_PIECE_ROWS = 1_000_000


class SparkEngine(WritesStreams):
    """Spark behind the engine protocol; `session` is an open session to use instead of finding one as `config` says."""

    def __init__(
        self,
        *,
        memory_limit: str = "1GiB",
        threads: int = 0,
        scratch: str | Path | None = None,
        session: "SparkSession | None" = None,
        config: SparkConfig | None = None,
    ) -> None:
        self._scratch = f"{scratch or tempfile.gettempdir()}/spark-{uuid.uuid4().hex[:8]}"
        config = config or SparkConfig()
        if config.master == "kubernetes" and storage.is_local(self._scratch):
            remedy = "Give a location that all pods reach, such as s3://bucket/scratch."
            raise ConfigError("executors in other pods do not reach a folder of this one", where="scratch", remedy=remedy)
        self._executors = None if session else open_executors(config)
        if storage.is_local(self._scratch):
            storage.local_path(self._scratch).mkdir(parents=True)
        self._owns_session = session is None
        self._session = session or find_session(memory_limit, threads, self._executors)
        self._session.conf.set("spark.sql.session.timeZone", "UTC")
        self._session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(BATCH_ROWS))
        if not storage.is_local(self._scratch):
            broadcast_by_real_sizes(self._session)

    def register(self, name: str, source: Any) -> None:
        """See Engine."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if isinstance(source, pa.Table) and source.num_rows <= _FEW_ROWS:
            self._frame(source).createOrReplaceTempView(name)
            return
        if isinstance(source, pa.Table):
            store, path = storage.filesystem(f"{self._scratch}/{uuid.uuid4().hex[:12]}")
            store.create_dir(path, recursive=True)
            pq.write_table(source, f"{path}/table.parquet", filesystem=store, compression="snappy")
            source = f"{_prefix(self._scratch)}{path}"
        found = [str(path) for path in source] if isinstance(source, list) else storage.list_files(self.shared(source))
        pieces, schema = _pieces([file for file in found if file.endswith(".parquet")])
        self._view(name, pieces, schema)

    def shared(self, source: str | Path) -> str:
        """See Engine. What is local is copied to the scratch place if that is not: workers then need no disk in common."""
        if storage.is_local(self._scratch) or not storage.is_local(source):
            return str(source)
        place = f"{self._scratch}/{uuid.uuid4().hex[:12]}"
        storage.upload_tree(storage.local_path(source), place)
        return place

    def sql(self, name: str, query: str) -> None:
        """See Engine."""
        with spark_errors():
            self._session.sql(query).createOrReplaceTempView(name)

    def keep(self, name: str, query: str, *, order_by: str = "", number: str = "") -> int:
        """See Engine."""
        with spark_errors():
            frame = self._session.sql(ordered(query, order_by))
        return self._keep(name, frame, _arrow_schema(frame), number=number)

    def map_batches(self, name: str, query: str, kernel: BatchKernel, schema: "pa.Schema") -> int:
        """See Engine."""
        with spark_errors():
            frame = self._session.sql(query)
        return self._keep(name, frame, schema, kernel=kernel)

    def map_groups(self, name: str, query: str, key: str, kernel: GroupKernel, schema: "pa.Schema") -> int:
        """See Engine."""
        schema = _nullable(schema)
        with spark_errors():
            bucketed = self._session.sql(f"SELECT g.*, pmod(hash(g.{key}), {_BUCKETS}) AS bucket_ FROM ({query}) AS g")
        apply = functools.partial(_apply_bucket, kernel=kernel, schema=schema)
        # A named function: Spark counts the parameters of what it is given.
        frame = bucketed.groupBy("bucket_").applyInArrow(lambda table: apply(table), _spark_schema(schema))
        return self._keep(name, frame, schema)

    def stream(
        self,
        query: str,
        *,
        order_by: str = "",
        presorted: bool = False,
        kernel: BatchKernel | None = None,
        schema: "pa.Schema | None" = None,
        batch_rows: int = 0,
    ) -> "Iterator[pa.RecordBatch]":
        """See Engine."""
        with spark_errors():
            frame = self._session.sql(ordered(query, order_by))
        files = self._materialise(frame, _nullable(schema) if schema else _arrow_schema(frame), kernel)
        batches = (batch for file, _ in files for batch in _read_piece({"file": file, "first": 0, "count": -1}))
        return rebatch(batches, batch_rows) if batch_rows else batches

    def rows(self, query: str) -> list[dict[str, Any]]:
        """See Engine."""
        with spark_errors():
            found: list[dict[str, Any]] = self._session.sql(query).toArrow().to_pylist()
        return found

    def close(self) -> None:
        """See Engine."""
        store, path = storage.filesystem(self._scratch)
        with contextlib.suppress(FileNotFoundError):
            store.delete_dir(path)
        if self._owns_session:
            with contextlib.suppress(TritowerError), spark_errors():  # what ended the Java process is known already
                self._session.stop()
        if self._executors:
            self._executors.close()

    def _keep(
        self,
        name: str,
        frame: "DataFrame",
        schema: "pa.Schema",
        *,
        kernel: BatchKernel | None = None,
        number: str = "",
    ) -> int:
        import pyarrow as pa

        schema = _nullable(schema)
        files = self._materialise(frame, schema, kernel)
        pieces, start = [], 0
        for file, rows in files:
            pieces.append({"file": file, "first": 0, "count": -1, "start": start})
            start += rows
        self._view(name, pieces, schema.append(pa.field(number, pa.int64())) if number else schema, number)
        return start

    def _materialise(self, frame: "DataFrame", schema: "pa.Schema", kernel: BatchKernel | None) -> list[tuple[str, int]]:
        """Write a frame's partitions in order; return the files that hold rows, with their row counts."""
        folder = f"{self._scratch}/{uuid.uuid4().hex[:12]}"
        task = functools.partial(_write_partition, folder=folder, schema=schema, kernel=kernel)
        with spark_errors():
            done = frame.mapInArrow(task, "partition int, file string, rows long").toArrow().to_pylist()
        return [(row["file"], row["rows"]) for row in sorted(done, key=lambda row: row["partition"])]

    def _view(self, name: str, pieces: list[dict[str, Any]], schema: "pa.Schema", number: str = "") -> None:
        """Name the rows of some pieces of Parquet files."""
        import pyarrow as pa

        if pieces and all(storage.is_local(piece["file"]) for piece in pieces):
            self._local_view(name, pieces, schema, number)
            return
        columns = {"file": pa.string(), "first": pa.int32(), "count": pa.int32(), "start": pa.int64()}
        task = functools.partial(_read_pieces, schema=schema, number=number)
        frame = self._frame(pa.Table.from_pylist(pieces, schema=pa.schema(columns)))
        frame.mapInArrow(task, _spark_schema(schema)).createOrReplaceTempView(name)

    def _local_view(self, name: str, pieces: list[dict[str, Any]], schema: "pa.Schema", number: str) -> None:
        """The same by Spark's own reader, which needs no Python process: for files on a disk that all workers share."""
        from pyspark.sql import functions as F

        starts = {storage.local_path(piece["file"]): piece["start"] for piece in pieces}
        # Without the option, folders such as clicked=true would become columns; and Spark takes paths for patterns.
        reader = self._session.read.option("recursiveFileLookup", "true")
        frame = reader.parquet(*(f"file://{_no_pattern(path.absolute())}" for path in starts))
        if number:
            by_name = F.create_map(*(F.lit(value) for path, start in starts.items() for value in (path.name, start)))
            place = F.element_at(by_name, F.col("_metadata.file_name")) + F.col("_metadata.row_index")
            frame = frame.withColumn(number, place.cast("long"))
        for field in frame.schema.fields:
            if field.dataType.typeName().startswith("timestamp"):
                frame = frame.withColumn(field.name, F.unix_micros(F.col(field.name).cast("timestamp")))
        frame.select(*schema.names).createOrReplaceTempView(name)

    def _frame(self, table: "pa.Table") -> "DataFrame":
        """A small table, one row a partition as far as there are as many: such tables are lists of work."""
        frame = self._session.createDataFrame(table, _spark_schema(table.schema))
        return frame.repartition(max(1, min(table.num_rows, 1_000)))


# ------------------------------------------------------------------------------------------------- what runs in the workers


def _write_partition(
    batches: "Iterator[pa.RecordBatch]", *, folder: str, schema: "pa.Schema", kernel: BatchKernel | None
) -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyspark import TaskContext

    context = TaskContext.get()
    partition = context.partitionId() if context else 0
    store, path = storage.filesystem(f"{folder}/{partition:06d}-{uuid.uuid4().hex[:8]}.parquet")
    rows, writer = 0, None
    with marked(), contextlib.ExitStack() as stack:
        for batch in kernel(batches) if kernel else batches:
            if not batch.num_rows:
                continue
            if writer is None:
                store.create_dir(path.rpartition("/")[0], recursive=True)
                writer = stack.enter_context(pq.ParquetWriter(path, schema, filesystem=store, compression="snappy"))
            columns = [batch.column(field.name).cast(field.type) for field in schema]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
            rows += batch.num_rows
    if rows:
        yield pa.RecordBatch.from_pylist(
            [{"partition": partition, "file": _prefix(folder) + path, "rows": rows}],
            schema=pa.schema({"partition": pa.int32(), "file": pa.string(), "rows": pa.int64()}),
        )


def _read_pieces(batches: "Iterator[pa.RecordBatch]", *, schema: "pa.Schema", number: str) -> "Iterator[pa.RecordBatch]":
    import numpy as np
    import pyarrow as pa

    with marked():
        for batch in batches:
            for piece in batch.to_pylist():
                start = piece["start"]
                for found in _read_piece(piece):
                    columns = [
                        pa.array(np.arange(start, start + found.num_rows))
                        if field.name == number
                        else _engine_column(found.column(field.name)).cast(field.type)
                        for field in schema
                    ]
                    yield pa.RecordBatch.from_arrays(columns, schema=schema)
                    start += found.num_rows


def _read_piece(piece: dict[str, Any]) -> "Iterator[pa.RecordBatch]":
    """A run of row groups of a Parquet file; all of them when `count` is negative."""
    import pyarrow.parquet as pq

    store, path = storage.filesystem(piece["file"])
    with store.open_input_file(path) as stream:
        groups = None if piece["count"] < 0 else list(range(piece["first"], piece["first"] + piece["count"]))
        yield from pq.ParquetFile(stream, pre_buffer=False).iter_batches(BATCH_ROWS, row_groups=groups)


def _apply_bucket(table: "pa.Table", *, kernel: GroupKernel, schema: "pa.Schema") -> "pa.Table":
    with marked():
        return kernel(table.drop_columns(["bucket_"])).select(schema.names).cast(schema)


# ------------------------------------------------------------------------------------------------------------- helpers here


def _no_pattern(path: Path) -> str:
    return re.sub(r"[{}\[\]*?\\]", r"\\\g<0>", str(path))


def _prefix(location: str) -> str:
    """What stands before a path inside its file system to make it a location again."""
    return "" if storage.is_local(location) else location.partition("://")[0] + "://"


def _pieces(files: list[str]) -> "tuple[list[dict[str, Any]], pa.Schema]":
    """Runs of row groups of about a million rows, and the schema in engine types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not files:
        raise StorageError("no Parquet files", where="register", remedy="Was the step before it run to its end?")
    pieces: list[dict[str, Any]] = []
    schema: pa.Schema | None = None
    for file in files:
        store, path = storage.filesystem(file)
        with store.open_input_file(path) as stream:
            opened = pq.ParquetFile(stream)
            schema = schema or opened.schema_arrow
            first = rows = 0
            for group in range(opened.num_row_groups):
                rows += opened.metadata.row_group(group).num_rows
                if rows >= _PIECE_ROWS or group == opened.num_row_groups - 1:
                    pieces.append({"file": file, "first": first, "count": group + 1 - first, "start": 0})
                    first, rows = group + 1, 0
    assert schema is not None
    fields = [(field.name, pa.int64() if pa.types.is_timestamp(field.type) else field.type) for field in schema]
    return pieces, pa.schema(fields)


def _engine_column(column: "pa.Array") -> "pa.Array":
    import pyarrow as pa

    if not pa.types.is_timestamp(column.type):
        return column
    return column.cast(pa.timestamp("us", tz=column.type.tz)).cast(pa.int64())


def _nullable(schema: "pa.Schema") -> "pa.Schema":
    import pyarrow as pa

    return pa.schema([pa.field(field.name, field.type) for field in schema])


def _spark_schema(schema: "pa.Schema") -> Any:
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(_nullable(schema))


def _arrow_schema(frame: "DataFrame") -> "pa.Schema":
    from pyspark.sql.pandas.types import to_arrow_schema

    return _nullable(to_arrow_schema(frame.schema))
