"""Relational work behind a small protocol, so that one SQL text and one set of Arrow kernels run on one machine or many.

DuckDB is the embedded default: in this process, out of core, no server. Spark (extra `spark`) is for more than one machine.

Rules for whoever writes for both:

* A table has a name; `sql` names a query, `keep` computes it once, `map_batches` and `map_groups` put a kernel behind it.
* SQL stays in the common subset: joins, GROUP BY, CASE, window functions with a PARTITION BY, ORDER BY with NULLS LAST.
  Lists are built and taken apart in kernels, texts are cleaned in kernels, never in SQL.
* A time is a BIGINT of microseconds since 1970 in UTC. `register` turns timestamps into that, `write` turns them back
  where its schema says timestamp.
* A kernel takes and yields Arrow record batches. It is a module-level function or a `functools.partial` of one, so that a
  worker process can import it.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tritower import storage
from tritower.errors import ConfigError, StorageError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

BatchKernel = Callable[[Iterator["pa.RecordBatch"]], Iterable["pa.RecordBatch"]]
GroupKernel = Callable[["pa.Table"], "pa.Table"]
EngineName = Literal["duckdb", "spark"]
BATCH_ROWS = 32_768


class Engine(Protocol):
    """What ingest, features and recommend ask of an engine. Both engines give equal rows for equal calls."""

    def register(self, name: str, source: Any) -> None:
        """Name a Parquet file, a folder of them, a list of files, or a small Arrow table."""

    def sql(self, name: str, query: str) -> None:
        """Name a query; it is computed wherever the name is used."""

    def keep(self, name: str, query: str, *, order_by: str = "", number: str = "") -> int:
        """Compute a query once, name the result and return its row count.

        Args:
            name: the table's name.
            query: a SELECT.
            order_by: columns of a total order, such as "ts, request_id"; needed with `number`.
            number: name of a BIGINT column to append, 0-based, counting rows in that order.
        """

    def map_batches(self, name: str, query: str, kernel: BatchKernel, schema: "pa.Schema") -> int:
        """Run `kernel` over the query's batches, in any order and any grouping; name the result, return its row count."""

    def map_groups(self, name: str, query: str, key: str, kernel: GroupKernel, schema: "pa.Schema") -> int:
        """Run `kernel` over tables that each hold whole groups of equal `key`, many groups per call, rows in any order."""

    def write(
        self,
        query: str,
        path: str | Path,
        schema: "pa.Schema",
        *,
        order_by: str = "",
        number: str = "",
        number_from: int = 0,
        part_rows: int = 0,
    ) -> int:
        """Write a query as Parquet and return its row count.

        Args:
            query: a SELECT; its columns are picked by the names of `schema` and cast to its types.
            path: one file, or with `part_rows` a folder of `part-00000.parquet` and so on.
            schema: columns of the file in order.
            order_by: as for `keep`.
            number: as for `keep`; the column must be in `schema`.
            number_from: its first value.
            part_rows: rows per file.
        """

    def stream(self, query: str, *, order_by: str = "") -> "Iterator[pa.RecordBatch]":
        """The batches of a result in this process, in order: for passes that cannot be cut into groups."""

    def rows(self, query: str) -> list[dict[str, Any]]:
        """A small result as Python values."""

    def close(self) -> None:
        """Let go of every table and of the scratch space."""

    def __enter__(self) -> "Engine":
        """Itself."""

    def __exit__(self, *_: object) -> None:
        """Close."""


def open_engine(
    name: EngineName = "duckdb", *, memory_limit: str = "1GiB", threads: int = 0, scratch: str | Path | None = None
) -> "Engine":
    """The engine called `name`.

    Args:
        name: duckdb or spark.
        memory_limit: what DuckDB may hold before it spills, such as "1GiB".
        threads: 0 for all cores.
        scratch: folder for kept tables and spills; a fresh one under the system's temporary folder when None. Spark
            workers on other machines need a location that all of them reach.
    """
    if name == "duckdb":
        return DuckDBEngine(memory_limit=memory_limit, threads=threads, scratch=scratch)
    if name == "spark":
        from tritower.spark import SparkEngine

        return SparkEngine(memory_limit=memory_limit, threads=threads, scratch=scratch)
    raise ConfigError(f"unknown engine {name!r}", where="engine", remedy="Use duckdb or spark.")


class DuckDBEngine:
    """DuckDB in this process; kept tables are Parquet files in a scratch folder."""

    def __init__(self, *, memory_limit: str = "1GiB", threads: int = 0, scratch: str | Path | None = None) -> None:
        import duckdb

        parent = Path(scratch) if scratch else None
        if parent:
            parent.mkdir(parents=True, exist_ok=True)
        self._scratch = Path(tempfile.mkdtemp(prefix="tritower-engine-", dir=parent))
        settings: dict[str, Any] = {"temp_directory": str(self._scratch / "spill"), "memory_limit": memory_limit}
        if threads:
            settings["threads"] = threads
        try:
            self._connection = duckdb.connect(config=settings)
        except (duckdb.Error, TypeError) as error:
            raise ConfigError(f"DuckDB refuses its settings: {error}", where="memory_limit", remedy="Try 1GiB.") from None
        self._connection.execute("SET TimeZone = 'UTC'")

    def register(self, name: str, source: Any) -> None:
        """See Engine."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if isinstance(source, pa.Table):
            path = self._file(name)
            pq.write_table(source, path)
            files = [path]
        else:
            files = storage.local_parquet_files(source, self._scratch)
        schema = pq.read_schema(files[0])
        picked = ", ".join(
            f'epoch_us("{field.name}") AS "{field.name}"' if pa.types.is_timestamp(field.type) else f'"{field.name}"'
            for field in schema
        )
        self._view(name, f"SELECT {picked} FROM {_read_parquet(files)}")

    def sql(self, name: str, query: str) -> None:
        """See Engine."""
        self._view(name, query)

    def keep(self, name: str, query: str, *, order_by: str = "", number: str = "") -> int:
        """See Engine."""
        schema, stream = self._stream(ordered(query, order_by))
        return self._materialise(name, stream, schema, number=number)

    def map_batches(self, name: str, query: str, kernel: BatchKernel, schema: "pa.Schema") -> int:
        """See Engine."""
        return self._materialise(name, kernel(self._stream(query)[1]), schema)

    def map_groups(self, name: str, query: str, key: str, kernel: GroupKernel, schema: "pa.Schema") -> int:
        """See Engine."""
        batches = (
            batch
            for table in _whole_groups(self._stream(ordered(query, key))[1], key)
            for batch in kernel(table).cast(schema).to_batches()
        )
        return self._materialise(name, batches, schema)

    def write(
        self,
        query: str,
        path: str | Path,
        schema: "pa.Schema",
        *,
        order_by: str = "",
        number: str = "",
        number_from: int = 0,
        part_rows: int = 0,
    ) -> int:
        """See Engine."""
        batches = self.stream(query, order_by=order_by)
        return write_parquet(batches, path, schema, number=number, number_from=number_from, part_rows=part_rows)

    def stream(self, query: str, *, order_by: str = "") -> "Iterator[pa.RecordBatch]":
        """See Engine."""
        return self._stream(ordered(query, order_by))[1]

    def rows(self, query: str) -> list[dict[str, Any]]:
        """See Engine."""
        with self._errors():
            found: list[dict[str, Any]] = self._connection.cursor().sql(query).to_arrow_table().to_pylist()
        return found

    def close(self) -> None:
        """See Engine."""
        self._connection.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stream(self, query: str) -> "tuple[pa.Schema, Iterator[pa.RecordBatch]]":
        # A cursor of its own: a second query on one connection would end the first one's stream.
        with self._errors():
            cursor: duckdb.DuckDBPyConnection = self._connection.cursor()
            reader = cursor.sql(query).to_arrow_reader(BATCH_ROWS)
        return reader.schema, self._batches(reader)

    def _batches(self, reader: "pa.RecordBatchReader") -> "Iterator[pa.RecordBatch]":
        with self._errors():
            yield from reader

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """DuckDB's complaints about room, with the remedy."""
        import duckdb

        try:
            yield
        except duckdb.OutOfMemoryException as error:
            text = str(error).splitlines()[0]
            raise ConfigError(
                f"the engine's memory is too small: {text}", where="memory_limit", remedy="Raise it, or lower threads."
            ) from error
        except duckdb.IOException as error:
            if not any(word in str(error) for word in ("No space left", "File too large", "quota")):
                raise
            raise StorageError("the disk is full", where=str(self._scratch), remedy="Free space or write elsewhere.") from error

    def _materialise(self, name: str, stream: "Iterable[pa.RecordBatch]", schema: "pa.Schema", *, number: str = "") -> int:
        import pyarrow as pa

        if number:
            schema = schema.append(pa.field(number, pa.int64()))
        path = self._file(name)
        count = write_parquet(stream, path, schema, number=number, compression="lz4")
        self._view(name, f"SELECT * FROM {_read_parquet([path])}")
        return count

    def _file(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._scratch)) / "part.parquet"

    def _view(self, name: str, query: str) -> None:
        self._connection.execute(f'CREATE OR REPLACE VIEW "{name}" AS {query}')


def write_parquet(
    batches: "Iterable[pa.RecordBatch]",
    path: str | Path,
    schema: "pa.Schema",
    *,
    number: str = "",
    number_from: int = 0,
    part_rows: int = 0,
    compression: str = "zstd",
) -> int:
    """Stream record batches into one Parquet file, or into parts of `part_rows` rows; return the row count.

    Columns are picked by name and cast to `schema`; an int64 becomes a timestamp where the schema says so. Memory is
    bounded by one row group (131,072 rows or 64 MiB, whichever comes first).
    """
    import pyarrow as pa

    path = Path(path)
    (path if part_rows else path.parent).mkdir(parents=True, exist_ok=True)
    written = 0
    writer: _Parts = _Parts(path, schema, part_rows, compression)
    try:
        for batch in batches:
            columns = [
                pa.array(range(number_from + written, number_from + written + batch.num_rows), pa.int64()).cast(field.type)
                if field.name == number
                else batch.column(field.name).cast(field.type)
                for field in schema
            ]
            writer.add(pa.Table.from_arrays(columns, schema=schema))
            written += batch.num_rows
    finally:
        writer.close()
    return written


class _Parts:
    """Row groups of a good size, cut into files of `part_rows` rows."""

    def __init__(self, path: Path, schema: "pa.Schema", part_rows: int, compression: str) -> None:
        self._path, self._schema, self._part_rows, self._compression = path, schema, part_rows, compression
        self._held: list[pa.Table] = []
        self._rows = self._bytes = self._in_part = self._parts = 0
        self._writer: Any = None

    def add(self, table: "pa.Table") -> None:
        while self._part_rows and self._in_part + self._rows + table.num_rows >= self._part_rows:
            room = self._part_rows - self._in_part - self._rows
            self._hold(table.slice(0, room))
            self._flush()
            self._end_part()
            table = table.slice(room)
        if table.num_rows:
            self._hold(table)
        if self._rows >= 131_072 or self._bytes >= 64 << 20:
            self._flush()

    def close(self) -> None:
        self._flush()
        if not self._parts and self._writer is None:
            self._open()  # an empty table is a file too
        self._end_part()

    def _hold(self, table: "pa.Table") -> None:
        self._held.append(table)
        self._rows += table.num_rows
        self._bytes += table.nbytes

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._rows:
            return
        if self._writer is None:
            self._open()
        self._writer.write_table(pa.concat_tables(self._held), row_group_size=self._rows)
        self._in_part += self._rows
        self._held, self._rows, self._bytes = [], 0, 0

    def _open(self) -> None:
        import pyarrow.parquet as pq

        path = self._path / f"part-{self._parts:05d}.parquet" if self._part_rows else self._path
        self._writer = pq.ParquetWriter(path, self._schema, compression=self._compression)

    def _end_part(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._parts += 1
            self._in_part = 0


def _whole_groups(stream: "Iterable[pa.RecordBatch]", key: str, *, rows: int = 4 * BATCH_ROWS) -> "Iterator[pa.Table]":
    """Cut a stream that is sorted by `key` into tables of about `rows` rows that never split a group."""
    import pyarrow as pa
    import pyarrow.compute as pc

    held: list[pa.RecordBatch] = []
    count = 0
    for batch in stream:
        held.append(batch)
        count += batch.num_rows
        if count < rows:
            continue
        table = pa.Table.from_batches(held).combine_chunks()
        same = pc.equal(table[key], table[key][-1])
        first = pc.index(same, True).as_py()
        if first > 0:
            yield table.slice(0, first)
            table = table.slice(first)
        held = table.to_batches()
        count = table.num_rows
    if count:
        yield pa.Table.from_batches(held)


def ordered(query: str, order_by: str) -> str:
    """The query with an ORDER BY, if one is asked for."""
    return f"SELECT * FROM ({query}) AS t ORDER BY {order_by}" if order_by else query


def _read_parquet(files: list[Path]) -> str:
    quoted = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
    return f"read_parquet([{quoted}])"
