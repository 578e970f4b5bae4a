"""Raw files into Arrow batches, whatever their format: CSV, JSON Lines or Parquet, plain or gzip, one file or a folder.

Nothing is converted here: CSV gives bytes, JSON and Parquet give what they hold. A row that cannot even be taken apart (a
CSV row with too many fields, a line that is not JSON) is handed on as refused, with its number.
"""

import contextlib
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from tritower import storage
from tritower.errors import DataError, SchemaError

Format = Literal["csv", "jsonl", "parquet"]
_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_SPLIT_ROWS = 1_000_000
_BATCH_ROWS = 32_768
_BLOCK_BYTES = 8 << 20

SPLIT_SCHEMA = pa.schema(
    {
        "number": pa.int32(),
        "file": pa.string(),
        "format": pa.string(),
        "partition": pa.string(),
        "first": pa.int32(),
        "count": pa.int32(),
        "first_row": pa.int64(),
    }
)


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A row that could not be taken apart."""

    row: int
    reason: str
    detail: str
    record: str


@dataclass(kw_only=True)
class RawBatch:
    """Columns as the source holds them, with each row's 0-based number in its file."""

    table: pa.Table
    rows: pa.Array
    refused: list[Refused] = field(default_factory=list)


def plan(uri: str) -> pa.Table:
    """The pieces of a source that can be read on their own, in order: SPLIT_SCHEMA.

    A piece is a file, or for Parquet a run of row groups of about a million rows. `partition` holds the `key=value` folders
    between the source and the file as JSON; `number` counts the files.

    Raises:
        StorageError: nothing is there.
        DataError: no file of a known format, an empty file, or a Parquet file that is not whole.
    """
    files = storage.list_files(uri)
    known = [(file, _format(file)) for file in files]
    if not any(kind for _, kind in known):
        raise DataError(
            "no CSV, JSON Lines or Parquet file", where=uri, remedy=f"Known endings: {', '.join(_SUFFIXES)}, also with .gz."
        )
    pieces = [
        {"number": number} | piece
        for number, (file, kind) in enumerate(known)
        if kind
        for piece in _pieces(file, kind, _partition(uri, file))
    ]
    return pa.Table.from_pylist(pieces, schema=SPLIT_SCHEMA)


def columns(piece: dict[str, Any]) -> list[str]:
    """The column names of a piece, folder names included.

    Raises:
        DataError: the file is empty or its header is not UTF-8 text.
    """
    store, path = storage.filesystem(piece["file"])
    extra = list(json.loads(piece["partition"]))
    if piece["format"] == "parquet":
        with store.open_input_file(path) as stream:
            names = list(pq.ParquetFile(stream).schema_arrow.names)
    elif piece["format"] == "csv":
        names = _csv_header(piece["file"])[0]
    else:
        names = _json_columns(piece["file"])
    return names + [name for name in extra if name not in names]


def read(piece: dict[str, Any]) -> Iterator[RawBatch]:
    """The rows of a piece in file order, in batches of bounded size."""
    readers = {"csv": _read_csv, "jsonl": _read_json, "parquet": _read_parquet}
    constants = json.loads(piece["partition"])
    for batch in readers[piece["format"]](piece):
        for name, value in constants.items():
            if name not in batch.table.column_names:
                batch.table = batch.table.append_column(name, pa.array([value] * batch.table.num_rows, pa.string()))
        yield batch


def _format(file: str) -> Format | None:
    path = PurePosixPath(file)
    suffix = PurePosixPath(path.stem).suffix if path.suffix in (".gz", ".bz2", ".zst") else path.suffix
    return _SUFFIXES.get(suffix.lower())


def _partition(root: str, file: str) -> str:
    folders = file[len(root) :].strip("/").split("/")[:-1]
    return json.dumps(dict(part.split("=", 1) for part in folders if "=" in part))


def _pieces(file: str, kind: Format, partition: str) -> Iterator[dict[str, Any]]:
    store, path = storage.filesystem(file)
    whole = {"file": file, "format": kind, "partition": partition, "first": 0, "count": 0, "first_row": 0}
    if store.get_file_info(path).size == 0:
        raise DataError("the file is empty", where=file, remedy="Export it again, or remove it from the folder.")
    if kind != "parquet":
        yield whole
        return
    with _whole_parquet(file), store.open_input_file(path) as stream:
        metadata = pq.ParquetFile(stream).metadata
    first = rows = start = 0
    for group in range(metadata.num_row_groups):
        rows += metadata.row_group(group).num_rows
        if rows >= _SPLIT_ROWS or group == metadata.num_row_groups - 1:
            yield whole | {"first": first, "count": group + 1 - first, "first_row": start}
            first, start, rows = group + 1, start + rows, 0


@contextlib.contextmanager
def _whole_parquet(file: str) -> Iterator[None]:
    """Name the file that is not whole; what a store says about itself is another matter."""
    with storage.reading(file):
        try:
            yield
        except (pa.ArrowInvalid, OSError) as error:
            if not isinstance(error, pa.ArrowInvalid) and not storage.is_local(file):
                raise
            raise DataError(
                f"not a whole Parquet file: {str(error).splitlines()[0]}",
                where=file,
                remedy="It was cut short or damaged: copy it again.",
            ) from None


def _read_parquet(piece: dict[str, Any]) -> Iterator[RawBatch]:
    store, path = storage.filesystem(piece["file"])
    groups = list(range(piece["first"], piece["first"] + piece["count"]))
    row = piece["first_row"]
    with _whole_parquet(piece["file"]), store.open_input_file(path) as stream:
        for batch in pq.ParquetFile(stream, pre_buffer=False).iter_batches(_BATCH_ROWS, row_groups=groups):
            yield RawBatch(table=pa.Table.from_batches([batch]), rows=_count(row, batch.num_rows))
            row += batch.num_rows


def _count(start: int, length: int) -> pa.Array:
    return pa.array(range(start, start + length), pa.int64())


@contextlib.contextmanager
def _open(file: str) -> Iterator[Any]:
    store, path = storage.filesystem(file)
    with storage.reading(file), store.open_input_stream(path, compression="detect") as stream:
        yield stream


def _csv_header(file: str) -> tuple[list[str], str]:
    """The column names and the delimiter of a CSV file."""
    with _open(file) as stream:
        head = stream.read(1 << 16)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError("the file is UTF-16", where=file, remedy="Export it as UTF-8.")
    try:
        line = io.StringIO(head.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode()).readline().rstrip("\r\n")
    except UnicodeDecodeError:
        raise DataError("the header is not UTF-8", where=file, remedy="Export the file as UTF-8.") from None
    if not line.strip():
        raise DataError("the file has no header", where=file, remedy="Put the column names into the first line.")
    delimiter = max(",;\t|", key=line.count)
    names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter))]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SchemaError(f"column {twice!r} occurs twice", where=file, remedy="Rename one of them.")
    return names, delimiter


def _read_csv(piece: dict[str, Any]) -> Iterator[RawBatch]:
    names, delimiter = _csv_header(piece["file"])
    bad_rows: list[Refused] = []

    def refuse(row: Any) -> str:
        detail = f"{row.actual_columns} fields, expected {row.expected_columns}"
        # The header is row 1.
        bad_rows.append(Refused(row=row.number - 2, reason="wrong_field_count", detail=detail, record=json.dumps(row.text)))
        return "skip"

    with _open(piece["file"]) as stream:
        reader = pa_csv.open_csv(
            stream,
            read_options=pa_csv.ReadOptions(column_names=names, skip_rows=1, use_threads=False, block_size=_BLOCK_BYTES),
            parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=refuse),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.binary()), strings_can_be_null=False, check_utf8=False
            ),
        )
        row, handed = 0, 0
        for batch in reader:
            numbers: list[int] = []
            skipped = {refused.row for refused in bad_rows}
            while len(numbers) < batch.num_rows:
                if row not in skipped:
                    numbers.append(row)
                row += 1
            yield RawBatch(table=pa.Table.from_batches([batch]), rows=pa.array(numbers, pa.int64()), refused=bad_rows[handed:])
            handed = len(bad_rows)
        if handed < len(bad_rows):
            nothing = pa.table({name: pa.array([], pa.binary()) for name in names})
            yield RawBatch(table=nothing, rows=pa.array([], pa.int64()), refused=bad_rows[handed:])


def _json_lines(file: str) -> Iterator[bytes]:
    with _open(file) as stream:
        rest = b""
        while block := stream.read(_BLOCK_BYTES):
            *whole, rest = (rest + block).split(b"\n")
            yield from whole
        if rest:
            yield rest


def _json_columns(file: str) -> list[str]:
    names: dict[str, None] = {}
    for number, line in enumerate(_json_lines(file)):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            names |= dict.fromkeys(value)
        if number >= 1_000:
            break
    return list(names)


def _read_json(piece: dict[str, Any]) -> Iterator[RawBatch]:
    names = _json_columns(piece["file"])
    records: list[dict[str, Any]] = []
    numbers: list[int] = []
    refused: list[Refused] = []
    for row, line in enumerate(_json_lines(piece["file"])):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            if not isinstance(value, dict):
                raise ValueError("not an object")
            records.append(value)
            numbers.append(row)
        except ValueError as error:
            text = line.decode(errors="backslashreplace")[:2_000]
            refused.append(Refused(row=row, reason="not_json", detail=str(error), record=json.dumps(text)))
        if len(records) + len(refused) >= _BATCH_ROWS:
            yield _json_batch(names, records, numbers, refused)
            records, numbers, refused = [], [], []
    if records or refused:
        yield _json_batch(names, records, numbers, refused)


def _json_batch(names: list[str], records: list[dict[str, Any]], numbers: list[int], refused: list[Refused]) -> RawBatch:
    arrays = [_json_array([record.get(name) for record in records]) for name in names]
    return RawBatch(table=pa.Table.from_arrays(arrays, names), rows=pa.array(numbers, pa.int64()), refused=refused)


def _json_array(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        # Values of several types: as text, so that each is converted on its own.
        texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
        return pa.array(texts, pa.string())
