"""CSV files as raw batches: any of `,` `;` tab `|`, quotes where a value needs them, line ends of any kind."""

import csv
import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from tritower.errors import DataError, SchemaError
from tritower.ingest import csv_records, streams
from tritower.ingest.csv_records import Layout, Records
from tritower.ingest.raw import BLOCK_BYTES, LONGEST_RECORD, RawBatch, Refused

_SAMPLE_LINES = 200


def columns(file: str) -> list[str]:
    """The column names of a file.

    Raises:
        DataError: the file is empty or has no header in UTF-8.
        SchemaError: a name occurs twice.
    """
    return layout(file).names


def layout(file: str) -> Layout:
    """The column names, the delimiter, and what values look like, from the first lines."""
    head = streams.head(file)
    first, *lines = _line_ends(head if head.endswith(b"\n") else head + b"\n").split(b"\n")[:-1]
    try:
        line = first.decode().rstrip("\r")
    except UnicodeDecodeError:
        raise DataError("the header is not UTF-8", where=file, remedy="Export the file as UTF-8.") from None
    _check_header(line, file)
    delimiter = max(",;\t|", key=line.count)
    header = [name.strip() for name in next(csv.reader([line], delimiter=delimiter))]
    named = [name for name in header if name]
    if len(set(named)) < len(named):
        twice = next(name for name in named if named.count(name) > 1)
        raise SchemaError(f"column {twice!r} occurs twice", where=file, remedy="Rename one of them.")
    names = [name or f"column {number}" for number, name in enumerate(header, 1)]
    if lines and lines[0].rstrip(b"\r").endswith(delimiter.encode()):
        fields = csv_records.split(lines[0], delimiter.encode())
        if len(fields) == len(names) + 1:  # every row ends in a delimiter, the header does not
            names.append(f"column {len(fields)}")
    sample = [text.rstrip(b"\r") for text in lines[: _SAMPLE_LINES + 1][:-1]]
    shapes = csv_records.telling_shapes(sample, delimiter.encode(), len(names))
    return Layout(file=file, names=names, header=header, delimiter=delimiter.encode(), shapes=shapes)


def _check_header(line: str, file: str) -> None:
    if not line.strip(" \t,;|"):
        raise DataError("the file has no header", where=file, remedy="Put the column names into the first line.")
    if line.lstrip()[:2] in ('{"', "{", "[", "[{"):
        raise DataError("the file holds JSON, not CSV", where=file, remedy="Give it the ending .jsonl.")
    if line.count('"') % 2:
        raise DataError("a quote in the header is never closed", where=file, remedy="Mend the first line.")


def read(file: str) -> Iterator[RawBatch]:
    """The rows of a file in order, about BLOCK_BYTES of text in each batch; a row's number counts records, not lines.

    Raises:
        DataError: the file is damaged, or rows went missing between the lines and the parser.
    """
    head = layout(file)
    row, line, waiting, is_last = 0, 2, b"", False
    with streams.opened(file) as source:
        blocks = _blocks(source)
        while not is_last:
            block = next(blocks, b"")
            is_last = not block
            waiting += block
            source.reached = f"after line {line - 1}"
            if not waiting:
                break
            records, table = _records(waiting, head, line, is_last)
            refused = [
                Refused(row=row + bad.row, reason=bad.reason, detail=bad.detail, record=bad.record) for bad in records.refused
            ]
            if table.num_rows or refused:
                yield RawBatch(table=table, rows=pa.array(records.numbers + row), refused=refused)
            row += records.total
            line += waiting.count(b"\n", 0, records.used)
            waiting = waiting[records.used :]


def _records(text: bytes, head: Layout, line: int, is_last: bool) -> tuple[Records, pa.Table]:
    """The records of whole lines of text, and what they parse to: as many rows as there are records."""
    records = csv_records.scan(text, head)
    table = _parse(records, head) if records and not (is_last and records.used < len(text)) else None
    if records is None or table is None or table.num_rows != len(records.numbers):
        records = csv_records.mend(text, head, line=line, is_last=is_last)
        table = _parse(records, head)
    if table is None or table.num_rows != len(records.numbers):
        found = "none" if table is None else str(table.num_rows)
        raise DataError(
            f"{len(records.numbers)} records gave {found} rows",
            where=f"{head.file}, from line {line}",
            remedy="The lines cannot be told apart: export the file again, with every value in quotes.",
        )
    return records, table


def _parse(records: Records, head: Layout) -> pa.Table | None:
    """Records as columns of bytes; None where one has not the header's number of fields."""
    clean, types = records.clean, dict.fromkeys(head.names, pa.binary())
    if not len(records.numbers):
        return pa.table({name: pa.array([], pa.binary()) for name in head.names})
    quotes = b'"' in clean
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(clean),
            read_options=pa_csv.ReadOptions(column_names=head.names, use_threads=False, block_size=len(clean) + 1),
            parse_options=pa_csv.ParseOptions(
                delimiter=head.delimiter.decode(), quote_char='"' if quotes else False, newlines_in_values=quotes
            ),
            convert_options=pa_csv.ConvertOptions(column_types=types, strings_can_be_null=False, check_utf8=False),
        )
    except pa.ArrowInvalid:
        return None
    return table.combine_chunks()


def _blocks(source: streams.Source) -> Iterator[bytes]:
    """The text below the header in blocks of whole lines, each line ended by \\n or \\r\\n."""
    rest, is_first = b"", True
    while block := source.read(BLOCK_BYTES):
        block = rest + block
        cut = max(block.rfind(b"\n"), block.rfind(b"\r", 0, len(block) - 1)) + 1
        if not cut and len(block) > LONGEST_RECORD:
            raise DataError(
                f"a line is longer than {LONGEST_RECORD >> 20} MiB",
                where=f"{source.file}, {source.reached}",
                remedy="Is it a CSV file? Export it again.",
            )
        whole, rest = _line_ends(block[:cut]), block[cut:]
        if is_first and whole:
            whole, is_first = whole[whole.index(b"\n") + 1 :], False
        if whole:
            yield whole
    if rest and not is_first:
        yield _line_ends(rest.removesuffix(b"\r") + b"\n")


def _line_ends(text: bytes) -> bytes:
    """The text with \n in place of every \r that stands alone."""
    if b"\r" not in text:
        return text
    bytes_B = np.frombuffer(text, np.uint8)
    returns = np.flatnonzero(bytes_B == ord("\r"))
    if text.endswith(b"\r") or (bytes_B[returns + 1] != ord("\n")).any():
        return re.sub(rb"\r(?!\n)", b"\n", text)
    return text
