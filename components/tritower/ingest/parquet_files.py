"""Parquet files as raw batches."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tritower import storage
from tritower.errors import DataError, TritowerError
from tritower.ingest import raw, streams

_SPLIT_ROWS = 1_000_000


def pieces(file: str) -> Iterator[dict[str, int]]:
    """Runs of row groups of about a million rows: first group, number of groups, first row. None for a file without rows.

    Raises:
        DataError: the file is not whole.
    """
    with _opened(file) as parquet:
        metadata = parquet.metadata
    first = rows = start = 0
    for group in range(metadata.num_row_groups):
        rows += metadata.row_group(group).num_rows
        if rows >= _SPLIT_ROWS or group == metadata.num_row_groups - 1:
            yield {"first": first, "count": group + 1 - first, "first_row": start}
            first, start, rows = group + 1, start + rows, 0


def columns(file: str) -> list[str]:
    """The column names in order; one that occurs twice is listed twice."""
    with _opened(file) as parquet:
        names: list[str] = list(parquet.schema_arrow.names)
    return names


def read(piece: dict[str, Any], wanted: frozenset[str]) -> Iterator[raw.RawBatch]:
    """The rows of a piece. Of the `wanted` columns, what no column of ours can be (structs, maps) comes as JSON text."""
    groups = list(range(piece["first"], piece["first"] + piece["count"]))
    row = start = piece["first_row"]
    with _opened(piece["file"]) as parquet:
        expected = sum(parquet.metadata.row_group(group).num_rows for group in groups)
        for batch in parquet.iter_batches(raw.BATCH_ROWS, row_groups=groups):
            table = plain(pa.Table.from_batches([batch]), wanted)
            yield raw.RawBatch(table=table, rows=raw.count_from(row, batch.num_rows))
            row += batch.num_rows
    if row - start != expected:
        raise DataError(f"{row - start} rows were read of {expected}", where=piece["file"], remedy="Copy the file again.")


def plain(table: pa.Table, wanted: frozenset[str]) -> pa.Table:
    """The table with every `wanted` column of structs, maps or lists of these as JSON text."""
    for place, field in enumerate(table.schema):
        if field.name in wanted and _is_deep(field.type):
            texts = [None if value is None else _json(value) for value in table.column(place).to_pylist()]
            table = table.set_column(place, field.name, pa.array(texts, pa.string()))
    return table


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _is_deep(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return bool(pa.types.is_nested(kind.value_type))
    return bool(pa.types.is_nested(kind))


@contextlib.contextmanager
def _opened(file: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; name it when it is not whole. What a store says about itself is another matter."""
    store, path = storage.filesystem(file)
    with streams.readable(file):
        try:
            with store.open_input_file(path) as stream:
                yield pq.ParquetFile(stream, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, TritowerError) or (isinstance(error, OSError) and (error.errno or not storage.is_local(file))):
                raise
            raise DataError(
                f"not a whole Parquet file: {str(error).splitlines()[0]}",
                where=file,
                remedy="It was cut short or damaged, or is of another format: copy it again, or give it its own ending.",
            ) from None
