"""Raw files into Arrow batches, whatever their format: CSV, JSON or Parquet, plain or compressed, one file or a folder.

Nothing is converted here: CSV gives bytes, JSON and Parquet give what they hold. A row that cannot even be taken apart (a
CSV row with too many fields, a line that is not JSON) is handed on as refused, with its number. Every file that is pointed at
is read or named as left out, and every line of it ends up in a row or among the refused.
"""

import json
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tritower import storage
from tritower.errors import DataError, SchemaError
from tritower.ingest import csv_files, json_files, listing, parquet_files
from tritower.ingest.listing import LeftOut
from tritower.ingest.raw import RawBatch, Refused

__all__ = ["SPLIT_SCHEMA", "RawBatch", "Refused", "Source", "columns", "partition", "plan", "read"]

_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"

SPLIT_SCHEMA = pa.schema(
    {
        "number": pa.int32(),
        "file": pa.string(),
        "format": pa.string(),
        "partition": pa.string(),
        "wanted": pa.string(),
        "first": pa.int32(),
        "count": pa.int32(),
        "first_row": pa.int64(),
    }
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """The pieces of a source that can be read on their own, in order, and the files that are not read.

    A piece (SPLIT_SCHEMA) is a file, or for Parquet a run of row groups of about a million rows. `number` counts the files;
    `partition` holds the `key=value` folders between the source and the file, `wanted` the columns that matter, both as JSON.
    """

    pieces: list[dict[str, Any]]
    left_out: list[LeftOut]

    def as_table(self) -> pa.Table:
        """The pieces as SPLIT_SCHEMA."""
        return pa.Table.from_pylist(self.pieces, schema=SPLIT_SCHEMA)


def plan(uri: str, wanted: frozenset[str] = frozenset()) -> Source:
    """What there is to read at a location.

    Args:
        uri: a file or a folder.
        wanted: the source's names of the columns that matter.

    Raises:
        StorageError: nothing is there.
        DataError: no file of a known format, an empty file, or a Parquet file that is not whole.
    """
    files, left_out = listing.list_source(uri)
    if not files:
        first = f": {left_out[0].file} ({left_out[0].reason})" if left_out else ""
        raise DataError(
            f"no CSV, JSON Lines or Parquet file{first}",
            where=uri,
            remedy=f"Known endings: {', '.join(listing.SUFFIXES)}, also with .gz, .bz2, .zst or .lz4.",
        )
    pieces: list[dict[str, Any]] = []
    for number, (file, kind) in enumerate(files):
        store, path = storage.filesystem(file)
        if store.get_file_info(path).size == 0:
            raise DataError("the file is empty", where=file, remedy="Export it again, or remove it from the folder.")
        whole = {
            "number": number,
            "file": file,
            "format": kind,
            "partition": json.dumps(_partition(uri, file)),
            "wanted": json.dumps(sorted(wanted)),
            "first": 0,
            "count": 0,
            "first_row": 0,
        }
        parts = parquet_files.pieces(file) if kind == "parquet" else [{}]
        pieces += [whole | part for part in parts]
    return Source(pieces=pieces, left_out=left_out)


def columns(piece: dict[str, Any]) -> list[str]:
    """The column names of a piece's file, without those that its folders give.

    Raises:
        DataError: the file is empty, its header is not UTF-8 text, or it holds no JSON object.
        SchemaError: a name occurs twice.
    """
    file = piece["file"]
    if piece["format"] == "csv":
        return csv_files.columns(file)
    if piece["format"] == "jsonl":
        return json_files.columns(file, frozenset(json.loads(piece["wanted"])))
    names = parquet_files.columns(file)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SchemaError(f"column {twice!r} occurs twice", where=file, remedy="Rename one of them, or drop it.")
    return names


def partition(piece: dict[str, Any]) -> dict[str, str | None]:
    """The columns that a piece's folders give, and their values."""
    found: dict[str, str | None] = json.loads(piece["partition"])
    return found


def read(piece: dict[str, Any]) -> Iterator[RawBatch]:
    """The rows of a piece in file order, in batches of bounded size. A file's own column goes before that of its folder."""
    batches: Iterator[RawBatch]
    if piece["format"] == "csv":
        batches = csv_files.read(piece["file"])
    elif piece["format"] == "jsonl":
        batches = json_files.read(piece["file"])
    else:
        batches = parquet_files.read(piece)
    for batch in batches:
        for name, value in partition(piece).items():
            if name not in batch.table.column_names:
                batch.table = batch.table.append_column(name, pa.array([value] * batch.table.num_rows, pa.string()))
        yield batch


def _partition(root: str, file: str) -> dict[str, str | None]:
    """The `key=value` folders between a source and a file, written as Hive does: percent signs decoded, a name for null."""
    found: dict[str, str | None] = {}
    for part in file[len(root.rstrip("/")) :].strip("/").split("/")[:-1]:
        key, sign, value = (urllib.parse.unquote(text) for text in part.partition("="))
        if not key or not sign:
            continue
        if key in found:
            raise DataError(f"two folders give {key!r}", where=file, remedy="Keep one of them.")
        found[key] = None if value == _NULL_PARTITION else value
    return found
