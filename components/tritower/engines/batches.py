"""Record batches, as both engines take and write them: kernels, sizes, whole groups, Parquet files in parts."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    import pyarrow as pa

BatchKernel = Callable[[Iterator["pa.RecordBatch"]], Iterable["pa.RecordBatch"]]
GroupKernel = Callable[["pa.Table"], "pa.Table"]
BATCH_ROWS = 32_768


def ordered(query: str, order_by: str) -> str:
    """The query with an ORDER BY, if one is asked for."""
    return f"SELECT * FROM ({query}) AS t ORDER BY {order_by}" if order_by else query


def rebatch(batches: "Iterable[pa.RecordBatch]", rows: int) -> "Iterator[pa.RecordBatch]":
    """The same rows in batches of `rows` rows each, the last one maybe fewer; a batch of that size passes as it is."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        while count + batch.num_rows >= rows:
            room = rows - count
            yield pa.concat_batches([*held, batch.slice(0, room)]) if held else batch.slice(0, room)
            held, count, batch = [], 0, batch.slice(room)
        if batch.num_rows:
            held.append(batch)
            count += batch.num_rows
    if held:
        yield pa.concat_batches(held)


def whole_groups(stream: "Iterable[pa.RecordBatch]", key: str, *, rows: int = 4 * BATCH_ROWS) -> "Iterator[pa.Table]":
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


class _Streams(Protocol):
    def stream(self, query: str, *, order_by: str = "") -> "Iterator[pa.RecordBatch]": ...

    def close(self) -> None: ...


class WritesStreams:
    """What every engine does in the same way: it writes what it streams, in this process, and closes after a with block."""

    def write(
        self: _Streams,
        query: str,
        path: str | Path,
        schema: "pa.Schema",
        *,
        order_by: str = "",
        number: str = "",
        number_from: int = 0,
        part_rows: int = 0,
    ) -> int:
        """See Engine. Workers' parts come through this process, so that all engines write the same files."""
        batches = self.stream(query, order_by=order_by)
        return write_parquet(batches, path, schema, number=number, number_from=number_from, part_rows=part_rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self: _Streams, *_: object) -> None:
        self.close()


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
