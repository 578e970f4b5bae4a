"""The embedded engine: the protocol of `protocol.py` on DuckDB, in this process, out of core, without a server."""

import contextlib
import glob
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritower import storage
from tritower.engines.batches import (
    BATCH_ROWS,
    BatchKernel,
    GroupKernel,
    WritesStreams,
    ordered,
    rebatch,
    whole_groups,
    write_parquet,
)
from tritower.errors import ConfigError, StorageError
from tritower.threads import chosen

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


class DuckDBEngine(WritesStreams):
    """DuckDB in this process; kept tables are Parquet files in a scratch folder."""

    def __init__(self, *, memory_limit: str = "1GiB", threads: int = 0, scratch: str | Path | None = None) -> None:
        import duckdb

        parent = Path(scratch) if scratch else None
        if parent:
            parent.mkdir(parents=True, exist_ok=True)
        self._scratch = Path(tempfile.mkdtemp(prefix="tritower-engine-", dir=parent))
        settings: dict[str, Any] = {"temp_directory": str(self._scratch / "spill"), "memory_limit": memory_limit}
        settings["threads"] = chosen(threads)
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
        self._view(name, f"SELECT {picked} FROM {read_parquet(files)}")

    def shared(self, source: str | Path) -> str:
        """See Engine."""
        return str(source)

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
            for table in whole_groups(self._stream(ordered(query, key))[1], key)
            for batch in kernel(table).cast(schema).to_batches()
        )
        return self._materialise(name, batches, schema)

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
        """See Engine. A presorted query is not sorted: DuckDB keeps the order of the files it reads."""
        batches = self._stream(query if presorted else ordered(query, order_by), batch_rows or BATCH_ROWS)[1]
        batches = rebatch(batches, batch_rows) if batch_rows else batches
        return iter(kernel(batches)) if kernel else batches

    def rows(self, query: str) -> list[dict[str, Any]]:
        """See Engine."""
        with self._errors():
            found: list[dict[str, Any]] = self._connection.cursor().sql(query).to_arrow_table().to_pylist()
        return found

    def close(self) -> None:
        """See Engine."""
        self._connection.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _stream(self, query: str, rows: int = BATCH_ROWS) -> "tuple[pa.Schema, Iterator[pa.RecordBatch]]":
        # A cursor of its own: a second query on one connection would end the first one's stream.
        with self._errors():
            cursor: duckdb.DuckDBPyConnection = self._connection.cursor()
            reader = cursor.sql(query).to_arrow_reader(rows)
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
        self._view(name, f"SELECT * FROM {read_parquet([path])}")
        return count

    def _file(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._scratch)) / "part.parquet"

    def _view(self, name: str, query: str) -> None:
        self._connection.execute(f'CREATE OR REPLACE VIEW "{name}" AS {query}')


def read_parquet(files: Iterable[str | Path]) -> str:
    """DuckDB's table function over exactly these files: their paths are neither patterns nor `key=value` columns."""
    return f"read_parquet({listed(files)}, hive_partitioning = false)"


def listed(files: Iterable[str | Path]) -> str:
    """Exactly these files as a list of SQL."""
    quoted = ", ".join("'" + glob.escape(str(file)).replace("'", "''") + "'" for file in files)
    return f"[{quoted}]"
