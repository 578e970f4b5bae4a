"""Parquet files as raw batches."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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


def read(piece: dict[str, Any]) -> Iterator[raw.RawBatch]:
    """The rows of a piece, in batches that are bounded by rows and by bytes.

    A text that a dictionary holds once may stand in every row: texts come as dictionaries and are written out a few rows at a
    time.
    """
    groups = list(range(piece["first"], piece["first"] + piece["count"]))
    row = start = piece["first_row"]
    with _opened(piece["file"], dictionaries=True) as parquet:
        expected = sum(parquet.metadata.row_group(group).num_rows for group in groups)
        for batch in parquet.iter_batches(raw.BATCH_ROWS, row_groups=groups):
            for part in _bounded(batch):
                yield raw.RawBatch(table=pa.Table.from_batches([part]), rows=raw.count_from(row, part.num_rows))
                row += part.num_rows
    if row - start != expected:
        raise DataError(f"{row - start} rows were read of {expected}", where=piece["file"], remedy="Copy the file again.")


def _bounded(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch without dictionaries, in parts whose texts have about `raw.BLOCK_BYTES` at most, one row at least."""
    kinds = [column.type for column in batch.columns]
    coded = [at for at, kind in enumerate(kinds) if pa.types.is_dictionary(kind) and _is_text(kind.value_type)]
    bytes_N = np.zeros(batch.num_rows, np.int64)
    for at in coded:
        column = batch.column(at)
        length_V = pc.fill_null(pc.binary_length(column.dictionary), 0).to_numpy().astype(np.int64)
        if len(length_V):
            bytes_N += np.where(column.is_valid(), length_V[pc.fill_null(column.indices, 0).to_numpy()], 0)
    part_N = np.cumsum(bytes_N) // raw.BLOCK_BYTES
    starts = np.append(np.flatnonzero(np.diff(part_N, prepend=-1)), batch.num_rows)
    for start, stop in itertools.pairwise(starts.tolist()):
        part = batch.slice(start, stop - start)
        for at in coded:
            part = part.set_column(at, batch.schema.field(at).name, part.column(at).dictionary_decode())
        yield part


@contextlib.contextmanager
def _opened(file: str, *, dictionaries: bool = False) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; name it when it is not whole. What a store says about itself is another matter.

    Args:
        file: its location.
        dictionaries: hand texts out as dictionaries.
    """
    store, path = storage.filesystem(file)
    with streams.readable(file):
        try:
            with store.open_input_file(path) as stream:
                # Old writers' times (INT96) have nanoseconds: as such they wrap round after 2262.
                options: dict[str, Any] = {"pre_buffer": False, "coerce_int96_timestamp_unit": "us"}
                parquet = pq.ParquetFile(stream, **options)
                if dictionaries and (names := _texts(parquet)):
                    parquet = pq.ParquetFile(stream, **options, metadata=parquet.metadata, read_dictionary=names)
                yield parquet
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, TritowerError) or (isinstance(error, OSError) and (error.errno or not storage.is_local(file))):
                raise
            raise DataError(
                f"not a whole Parquet file: {str(error).splitlines()[0]}",
                where=file,
                remedy="It was cut short or damaged, or is of another format: copy it again, or give it its own ending.",
            ) from None


def _texts(parquet: pq.ParquetFile) -> list[str]:
    """The names of the columns of text or bytes."""
    return [field.name for field in parquet.schema_arrow if _is_text(field.type)]


def _is_text(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_string, pa.types.is_binary, pa.types.is_large_string, pa.types.is_large_binary)
    return any(is_kind(kind) for is_kind in kinds)
