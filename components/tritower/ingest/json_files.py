"""JSON files as raw batches: an object a line, objects over several lines, or arrays of objects."""

import codecs
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import pyarrow as pa

from tritower.errors import DataError
from tritower.ingest import streams
from tritower.ingest.raw import BATCH_ROWS, BLOCK_BYTES, LONGEST_RECORD, SHOWN_CHARACTERS, RawBatch, Refused, shown

_SAMPLE = 1_000
_DECODER = json.JSONDecoder()
# Place, and the object or why there is none, with its text.
Found = tuple[int, dict[str, Any] | Refused]


def columns(file: str, wanted: frozenset[str]) -> list[str]:
    """The keys of a file's objects: of the first thousand, and those of `wanted` wherever they are first seen.

    Raises:
        DataError: the file holds no JSON object.
    """
    names: dict[str, None] = {}
    for count, record in enumerate(_objects(file)):
        if count < _SAMPLE:
            names |= dict.fromkeys(record)
        elif wanted <= names.keys():
            break
        else:
            names |= dict.fromkeys(record.keys() & wanted)
    if not names:
        raise DataError("the file holds no JSON object", where=file, remedy="Write one object a line; CSV ends in .csv.")
    return list(names)


def _objects(file: str) -> Iterator[dict[str, Any]]:
    return (found for _, found in _values(file) if isinstance(found, dict))


def read(file: str) -> Iterator[RawBatch]:
    """The rows of a file in order.

    A row's number is that of its line, or of its object in the file where objects and lines are not the same.

    Raises:
        DataError: an array is cut short, or the file is damaged.
    """
    records: list[dict[str, Any]] = []
    numbers: list[int] = []
    refused: list[Refused] = []
    for row, found in _values(file):
        if isinstance(found, Refused):
            refused.append(found)
        else:
            records.append(found)
            numbers.append(row)
        if len(records) + len(refused) >= BATCH_ROWS:
            yield _batch(records, numbers, refused)
            records, numbers, refused = [], [], []
    if records or refused:
        yield _batch(records, numbers, refused)


def _values(file: str) -> Iterator[Found]:
    head = streams.head(file)
    with streams.opened(file) as source:
        yield from _of_lines(source) if _layout(head) == "lines" else _of_stream(source)


def _layout(head: bytes) -> Literal["lines", "stream"]:
    """`lines` where a line of the head is an object on its own, or none begins with one."""
    text = head.lstrip()
    if text[:1] == b"[" and text[1:].lstrip()[:1] in (b"{", b"]"):
        return "stream"
    if text[:1] != b"{":
        return "lines"
    return "lines" if any(isinstance(_parsed(line), dict) for line in head.split(b"\n") if line[:1] == b"{") else "stream"


def _parsed(text: str | bytes) -> Any:
    try:
        return _DECODER.decode(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError):
        return None


# ---------------------------------------------------------------------------------------------------- an object a line


def _of_lines(source: streams.Source) -> Iterator[Found]:
    row = 0
    for lines, marks in _lines(source):
        for line in lines:
            value = _parsed(line)
            # Every key is followed by a mark: more marks than keys are in a nested value or a text, or a key comes twice.
            if type(value) is dict and value and line.count(marks) <= len(value):
                yield row, value
            elif line.strip():
                yield row, _object(row, line)
            row += 1


def _lines(source: streams.Source) -> Iterator[tuple[list[Any], Any]]:
    """The lines of a block, and what stands behind a key in it: as text, or as bytes where the block is not all UTF-8."""
    rest, count = b"", 0
    while block := source.read(BLOCK_BYTES):
        block = rest + block if count or rest else streams.without_mark(block)
        cut = block.rfind(b"\n") + 1
        whole, rest = block[:cut], block[cut:]
        if len(rest) > LONGEST_RECORD:
            raise DataError(
                f"a line is longer than {LONGEST_RECORD >> 20} MiB",
                where=f"{source.file}, {source.reached}",
                remedy="Write one object a line.",
            )
        if whole:
            yield _split(whole[:-1])
            count += whole.count(b"\n")
        source.reached = f"after line {count}"
    if rest:
        yield _split(rest)


def _split(block: bytes) -> tuple[list[Any], Any]:
    spaced = b'" :' in block or b'"\t:' in block
    try:
        return block.decode().split("\n"), '"' if spaced else '":'
    except UnicodeDecodeError:
        return block.split(b"\n"), b'"' if spaced else b'":'


def _object(row: int, line: str | bytes) -> dict[str, Any] | Refused:
    """The object of a line, or why it is none."""
    where = f"line {row + 1}: "
    text = line.encode(errors="surrogatepass") if isinstance(line, str) else line
    record = json.dumps(shown(text))
    try:
        value, twice = _checked(text.decode())
    except UnicodeDecodeError as error:
        return Refused(row=row, reason="not_utf8", detail=where + str(error), record=record)
    except (ValueError, RecursionError) as error:
        why = "nested too deep" if isinstance(error, RecursionError) else str(error)
        return Refused(row=row, reason="not_json", detail=where + why, record=record)
    if not isinstance(value, dict):
        return Refused(row=row, reason="not_json", detail=where + "not an object", record=record)
    if not value:
        return _empty(row)
    if twice:
        return Refused(row=row, reason="duplicate_key", detail=f"{where}{twice!a} occurs twice", record=record)
    return value


def _empty(row: int) -> Refused:
    return Refused(row=row, reason="missing_value", detail="the object is empty", record="{}")


def _checked(text: str) -> tuple[Any, str]:
    """The value of a text, and a key that the object has twice; empty when there is none."""
    twice = ""

    def see(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice  # the outermost object comes last
        found = dict(pairs)
        twice = (
            next((name for index, (name, _) in enumerate(pairs) if name in dict(pairs[:index])), "")
            if len(found) < len(pairs)
            else ""
        )
        return found

    return json.loads(text, object_pairs_hook=see), twice


def _dumped(value: Any) -> str:
    return json.dumps(value)[:SHOWN_CHARACTERS]


# ---------------------------------------------------------------------------------------- objects that do not keep to lines


def _of_stream(source: streams.Source) -> Iterator[Found]:
    """Objects one after another, in arrays or not, with or without commas between them."""
    text = _Text(source)
    row, is_open = 0, False
    while text.skip(is_open):
        sign = text.buffer[text.at]
        if sign == "[" or (sign == "]" and is_open):
            is_open = sign == "["
            text.at += 1
            continue
        found, problem = None, ""
        try:
            found, end = _DECODER.raw_decode(text.buffer, text.at)
        except (ValueError, RecursionError) as error:
            if isinstance(error, json.JSONDecodeError) and text.is_cut(error) and text.more():
                continue
            problem = "nested too deep" if isinstance(error, RecursionError) else str(error)
            if is_open and text.is_whole and not text.buffer.rstrip().endswith("]"):
                break
            end = text.next_object(is_open)
        told = text.buffer[text.at : end]
        if not isinstance(found, dict):
            detail = f"object {row + 1}: {problem or 'not an object'}"
            yield row, Refused(row=row, reason="not_json", detail=detail, record=_dumped(told[:SHOWN_CHARACTERS]))
        elif not found:
            yield row, _empty(row)
        elif told.count('":') + told.count('" :') > len(found) and (twice := _checked(told)[1]):
            detail = f"object {row + 1}: {twice!a} occurs twice"
            yield row, Refused(row=row, reason="duplicate_key", detail=detail, record=_dumped(found))
        else:
            yield row, found
        is_open = is_open and not text.closed
        text.at, row = end, row + 1
        source.reached = f"after object {row}"
    if is_open:
        raise DataError(
            "the JSON array does not end",
            where=f"{source.file}, after object {row}",
            remedy="The file was cut short: copy or export it again.",
        )


class _Text:
    """A file's text from `at` on, as far as it was read."""

    def __init__(self, source: streams.Source) -> None:
        self._source = source
        # What is not UTF-8 becomes half a surrogate pair, which `_batch` refuses.
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.buffer, self.at = "", 0
        self.is_whole = self.closed = False
        self.more()
        self.buffer = self.buffer.removeprefix("\ufeff")

    def more(self) -> bool:
        """Read on; whether there was more."""
        if self.is_whole or len(self.buffer) - self.at > LONGEST_RECORD:
            return False
        block = self._source.read(BLOCK_BYTES)
        self.is_whole = not block
        self.buffer, self.at = self.buffer[self.at :] + self._decoder.decode(block, final=self.is_whole), 0
        return True

    def skip(self, is_open: bool) -> bool:
        """Go to the next object or bracket; whether there is one."""
        blank = re.compile(r"[\s,]*" if is_open else r"\s*")
        while True:
            self.at = blank.match(self.buffer, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.buffer):
                return True
            if not self.more():
                return False

    def is_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether the text breaks off, rather than being wrong."""
        return error.msg.startswith("Unterminated string") or error.pos >= len(self.buffer) - 8

    def next_object(self, is_open: bool) -> int:
        """Where the object after a broken one begins: at the same indent, or after a closing brace; else the end."""
        indent = self.buffer[self.buffer.rfind("\n", 0, self.at) + 1 : self.at]
        same = re.compile(r"\n" + re.escape(indent) + r"(?=\{)" if not indent.strip() else r"\}\s*,?\s*(?=\{)")
        while not (match := same.search(self.buffer, self.at + 1)) and self.more():
            pass
        if match:
            return match.end()
        self.closed = is_open and self.buffer.rstrip().endswith("]")
        return len(self.buffer)


# ---------------------------------------------------------------------------------------------------- objects as columns


def _batch(records: list[dict[str, Any]], numbers: list[int], refused: list[Refused]) -> RawBatch:
    try:
        table = _table(records)
    except UnicodeEncodeError:
        broken = [_half_pair(record, row) for record, row in zip(records, numbers, strict=True)]
        kept = [index for index, found in enumerate(broken) if found is None]
        refused = refused + [found for found in broken if found is not None]
        numbers = [numbers[index] for index in kept]
        table = _table([records[index] for index in kept])
    return RawBatch(table=table, rows=pa.array(numbers, pa.int64()), refused=refused)


def _half_pair(record: dict[str, Any], row: int) -> Refused | None:
    """The refusal of a record that holds half of a surrogate pair, which no text of whole characters has."""
    for name, value in record.items():
        try:
            json.dumps([name, value], ensure_ascii=False).encode()
        except UnicodeEncodeError:
            detail = f"{name!a} = {value!a}"[:200]
            return Refused(row=row, reason="not_utf8", detail=f"row {row + 1}: {detail}", record=_dumped(record))
    return None


def _table(records: list[dict[str, Any]]) -> pa.Table:
    names = list(dict.fromkeys(itertools.chain.from_iterable(records)))
    return pa.Table.from_arrays([_array([record.get(name) for record in records]) for name in names], names)


def _array(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        # Values of several types: as text, so that each is converted on its own.
        texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
        return pa.array(texts, pa.string())
