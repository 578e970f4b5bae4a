"""The records of a block of CSV text: which lines belong together, and which cannot be taken apart.

A quote that nobody closes makes one field of everything up to the next quote, so a parser alone loses lines in silence. Here a
field may hold line ends only if

* its closing quote is followed by a delimiter or the end of a line,
* the record then has as many fields as the header,
* it is at most LONGEST_RECORD bytes long, and
* the lines it is made of are not records themselves (`_swallows`).

Otherwise its first line alone is refused, and reading goes on with the next one. Inside quotes a quote is written twice or
behind a backslash; whichever of the two gives the header's number of fields is taken, twice first.

`scan` is for blocks where every quote stands where it should: all numpy. `mend` goes through the lines with quotes one by one.

Legend: L lines, Q quotes, D delimiters of a block.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tritower.errors import DataError
from tritower.ingest.raw import LONGEST_RECORD, Refused, shown

_NEWLINE, _RETURN, _QUOTE = 10, 13, 34
_DOUBLED = re.compile(rb'"((?:[^"]|"")*+)"')
_ESCAPED = re.compile(rb'"((?:[^"\\]|\\[\s\S])*+)"')
_HINT = 'inside quotes, a quote is written "" or \\"'


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What the head of a file says: `header` as it stands there, `names` with a name for every column, `shapes` what the
    values of some columns look like, by column."""

    file: str
    names: list[str]
    header: list[str]
    delimiter: bytes
    shapes: dict[int, frozenset[bytes]] = field(default_factory=dict)


@dataclass(kw_only=True)
class Records:
    """A block's records: `clean` parses into one row for each of `numbers`, their positions among all `total` records.

    `used` is how much of the block that was; what is left waits for the next block.
    """

    clean: bytes
    numbers: npt.NDArray[np.int64]
    total: int
    used: int
    refused: list[Refused] = field(default_factory=list)


def shape(value: bytes) -> bytes:
    """Runs of letters as `a`, runs of digits as `9`: `2026-01-05T00:00` is `9-9-9a9:9`."""
    return re.sub(rb"[0-9]+", b"9", re.sub(rb"[A-Za-z\x80-\xff]+", b"a", value))


def telling_shapes(lines: list[bytes], delimiter: bytes, width: int) -> dict[int, frozenset[bytes]]:
    """The columns whose values look alike in a sample of lines, and how they look."""
    rows = [line.split(delimiter) for line in lines if b'"' not in line]
    rows = [row for row in rows if len(row) == width]
    if len(rows) < 3:
        return {}
    seen = {column: frozenset(shape(row[column]) for row in rows) for column in range(width)}
    return {column: found for column, found in seen.items() if len(found) <= min(4, max(1, len(rows) // 20))}


def repeated_headers(data: bytes, layout: Layout) -> list[int]:
    """Where lines begin that hold the names of the columns again, in any order."""
    probe = max(layout.header, key=len).encode()
    found, at = [], data.find(probe)
    while at >= 0:
        start, end = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at)
        if is_header(data[start:end], layout):
            found.append(start)
        at = data.find(probe, end)
    return found


def is_header(line: bytes, layout: Layout) -> bool:
    """Whether a line holds exactly the names of the header."""
    return sorted(split(line, layout.delimiter)) == sorted(layout.header)


def split(line: bytes, delimiter: bytes) -> list[str]:
    """A header's names."""
    text = line.decode(errors="backslashreplace").rstrip("\r\n")
    return [name.strip() for name in next(csv.reader([text], delimiter=delimiter.decode()), [])]


def scan(data: bytes, layout: Layout) -> Records | None:
    """The records of a block that ends in a line end; None where a quote or a repeated header asks for `mend`."""
    bytes_B = np.frombuffer(data, np.uint8)
    ends_L = np.flatnonzero(bytes_B == _NEWLINE)
    inside_L = np.zeros(len(ends_L), bool)
    if b'"' in data:
        quotes_Q = np.flatnonzero(bytes_B == _QUOTE)
        if (b"\\" in data and b'\\"' in data) or not _stand_well(bytes_B, quotes_Q, layout.delimiter[0]):
            return None
        inside_L = np.searchsorted(quotes_Q, ends_L) % 2 == 1
    whole = np.flatnonzero(~inside_L)
    used = int(ends_L[whole[-1]]) + 1 if len(whole) else 0
    if len(data) - used > LONGEST_RECORD or repeated_headers(data[:used], layout):
        return None
    count = int(whole[-1]) + 1 if len(whole) else 0
    ends_L, inside_L = ends_L[:count], inside_L[:count]
    if inside_L.any() and _may_swallow(bytes_B, ends_L, inside_L, layout):
        return None
    total = len(whole) - _blank_records(bytes_B, ends_L, inside_L)
    return Records(clean=data[:used], numbers=np.arange(total), total=total, used=used)


def _stand_well(bytes_B: npt.NDArray[np.uint8], quotes_Q: npt.NDArray[np.int64], delimiter: int) -> bool:
    """Whether the quotes open and close in turn, each beside a delimiter, a line end or another quote."""
    opening, closing = quotes_Q[::2], quotes_Q[1::2]
    fits = np.zeros(256, bool)
    fits[[delimiter, _NEWLINE, _QUOTE]] = True
    before_fit = fits[bytes_B[opening - 1]]
    before_fit[0] |= opening[0] == 0
    fits[_RETURN] = True
    return bool(before_fit.all() and fits[bytes_B[closing + 1]].all())


def _may_swallow(
    bytes_B: npt.NDArray[np.uint8], ends_L: npt.NDArray[np.int64], inside_L: npt.NDArray[np.bool_], layout: Layout
) -> bool:
    """Whether a record of several lines begins and ends with a line that has the header's number of fields itself."""
    starts_L = _starts(ends_L)
    is_full_L = _delimiters(bytes_B, layout, starts_L, ends_L) == len(layout.names) - 1
    last = np.flatnonzero(~inside_L)
    first = np.concatenate([[0], last[:-1] + 1])
    return bool((is_full_L[first] & is_full_L[last] & (first != last)).any())


def _blank_records(bytes_B: npt.NDArray[np.uint8], ends_L: npt.NDArray[np.int64], inside_L: npt.NDArray[np.bool_]) -> int:
    starts_L = _starts(ends_L)
    short = np.flatnonzero(ends_L - starts_L <= 1)
    if not len(short):
        return 0
    outside = ~inside_L[short] & ~inside_L[short - 1] if inside_L.any() else np.ones(len(short), bool)
    return int((_is_blank(bytes_B, starts_L[short], ends_L[short]) & outside).sum())


def _starts(ends_L: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], ends_L[:-1] + 1])


def _delimiters(
    bytes_B: npt.NDArray[np.uint8], layout: Layout, starts_L: npt.NDArray[np.int64], ends_L: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    delimiters_D = np.flatnonzero(bytes_B == layout.delimiter[0])
    found: npt.NDArray[np.int64] = np.searchsorted(delimiters_D, ends_L) - np.searchsorted(delimiters_D, starts_L)
    return found


def _is_blank(
    bytes_B: npt.NDArray[np.uint8], starts_L: npt.NDArray[np.int64], ends_L: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    length_L = ends_L - starts_L
    blank: npt.NDArray[np.bool_] = (length_L == 0) | ((length_L == 1) & (bytes_B[starts_L] == _RETURN))
    return blank


def mend(data: bytes, layout: Layout, *, line: int, is_last: bool) -> Records:
    """The records of a block, line by line where there are quotes.

    Args:
        data: whole lines.
        layout: of the file.
        line: number of the block's first line in the file, from 1.
        is_last: nothing follows the block.
    """
    return _Mender(data, layout, line, is_last).run()


class _Mender:
    def __init__(self, data: bytes, layout: Layout, line: int, is_last: bool) -> None:
        self.data, self.layout, self.line, self.is_last = data, layout, line, is_last
        self.width = len(layout.names)
        self.unquoted = re.compile(rb"[^\n" + re.escape(layout.delimiter) + rb"]*")
        bytes_B = np.frombuffer(data, np.uint8)
        self.ends_L = np.flatnonzero(bytes_B == _NEWLINE)
        self.starts_L = _starts(self.ends_L)
        self.is_blank_L = _is_blank(bytes_B, self.starts_L, self.ends_L)
        self.fields_L = _delimiters(bytes_B, layout, self.starts_L, self.ends_L) + 1
        self.headers = set(np.searchsorted(self.ends_L, repeated_headers(data, layout)).tolist())
        quoted_L = np.unique(np.searchsorted(self.ends_L, np.flatnonzero(bytes_B == _QUOTE)))
        self.special = sorted(self.headers | set(quoted_L.tolist()))
        self.clean: list[bytes] = []
        self.numbers: list[npt.NDArray[np.int64]] = []
        self.refused: list[Refused] = []
        self.total = 0

    def run(self) -> Records:
        at = 0
        for special in self.special:
            if special < at:
                continue
            self._plain(at, special)
            after = self._header(special) if special in self.headers else self._quoted(special)
            if after is None:
                return self._records(int(self.starts_L[special]))
            at = after
        self._plain(at, len(self.ends_L))
        return self._records(len(self.data))

    def _records(self, used: int) -> Records:
        numbers = np.concatenate(self.numbers) if self.numbers else np.empty(0, np.int64)
        return Records(clean=b"".join(self.clean), numbers=numbers, total=self.total, used=used, refused=self.refused)

    def _keep(self, text: bytes, count: int) -> None:
        self.clean.append(text)
        self.numbers.append(np.arange(self.total, self.total + count))
        self.total += count

    def _refuse(self, at: int, reason: str, detail: str) -> None:
        text = self.data[self.starts_L[at] : self.ends_L[at]].rstrip(b"\r")
        where = f"line {self.line + at}: "
        self.refused.append(Refused(row=self.total, reason=reason, detail=where + detail, record=shown(text)))
        self.total += 1

    def _plain(self, start: int, stop: int) -> None:
        """Lines without quotes: good ones are kept as they are."""
        wrong = start + np.flatnonzero((self.fields_L[start:stop] != self.width) & ~self.is_blank_L[start:stop])
        for at in [*wrong.tolist(), stop]:
            if at > start:
                count = at - start - int(self.is_blank_L[start:at].sum())
                self._keep(self.data[self.starts_L[start] : self.ends_L[at - 1] + 1], count)
            if at < stop:
                self._refuse(at, "wrong_field_count", f"{self.fields_L[at]} fields, expected {self.width}")
            start = at + 1

    def _header(self, at: int) -> int:
        line = self.data[self.starts_L[at] : self.ends_L[at]]
        if split(line, self.layout.delimiter) != self.layout.header:
            raise DataError(
                f"line {self.line + at} names the columns again, in another order",
                where=self.layout.file,
                remedy="Two files were joined: give each its own.",
            )
        self._refuse(at, "repeated_header", "the names of the columns again")
        return at + 1

    def _quoted(self, at: int) -> int | None:
        """Take the record apart that begins with line `at`; return the line after it, None where more text is needed."""
        start, end = int(self.starts_L[at]), int(self.ends_L[at]) + 1
        limit = min(len(self.data), start + LONGEST_RECORD)
        counts: list[int] = []
        problem = ""
        for stop in (end, limit):
            for quoted in (_DOUBLED, _ESCAPED):
                fields, after, told = self._fields(start, stop, quoted)
                if told == "open" and stop == limit == len(self.data) and not self.is_last:
                    return None
                if told:
                    problem = told
                    continue
                if len(fields) != self.width:
                    counts += [len(fields)] if stop == end and quoted is _DOUBLED else []
                    continue
                last = int(np.searchsorted(self.ends_L, after - 1))
                if last > at and self._swallows(at, last):
                    problem = f"a field is closed on line {self.line + last} only, over lines that are rows themselves"
                    continue
                self._keep(_rewritten(fields, self.layout.delimiter), 1)
                return last + 1
            if counts:  # every quote is closed on this line
                break
        if counts:
            self._refuse(at, "wrong_field_count", f"{counts[0]} fields, expected {self.width} ({_HINT})")
        else:
            problem = {"open": "a field's quote is never closed", "": "a field's quote is closed too late"}.get(
                problem, problem
            )
            self._refuse(at, "bad_quotes", f"{problem} ({_HINT})")
        return at + 1

    def _fields(self, at: int, stop: int, quoted: re.Pattern[bytes]) -> tuple[list[tuple[bytes, bool]], int, str]:
        """The fields from `at` to the end of a record and where that is; else what is wrong: "open" or a sentence."""
        fields: list[tuple[bytes, bool]] = []
        while True:
            if self.data[at] == _QUOTE:
                match = quoted.match(self.data, at, stop)
                if not match:
                    return fields, at, "open"
                fields.append((_unescaped(match[1], quoted), True))
            else:
                match = self.unquoted.match(self.data, at, stop)
                assert match, "an empty field matches"
                fields.append((match[0], False))
            after = match.end()
            if self.data[after : after + 2] == b"\r\n":
                after += 1
            if self.data[after] == _NEWLINE:
                return fields, after + 1, ""
            if self.data[after : after + 1] != self.layout.delimiter:
                return fields, after, f"text follows the closing quote of field {len(fields)}"
            at = after + 1

    def _swallows(self, first: int, last: int) -> bool:
        """Whether the lines `first` to `last` of one record look like records of their own, all but for a stray quote.

        Both ends must have the header's number of fields, and half of the lines at least; and their values must look like
        those of the file. A list in an advert's text may have the number of commas, but not the shape.
        """
        is_full_L = self.fields_L[first : last + 1] == self.width
        if self.width < 2 or not (is_full_L[0] and is_full_L[-1]) or 2 * is_full_L.sum() < len(is_full_L):
            return False
        if not self.layout.shapes:
            return self.width > 3 or last > first + 1
        full = first + np.flatnonzero(is_full_L)
        return 2 * sum(self._looks_alike(int(at)) for at in full) >= len(is_full_L) and self._looks_alike(last)

    def _looks_alike(self, at: int) -> bool:
        text = self.data[self.starts_L[at] : self.ends_L[at]].rstrip(b"\r").replace(b'"', b"")
        values = text.split(self.layout.delimiter)
        good = sum(shape(values[column]) in known for column, known in self.layout.shapes.items())
        return 5 * good >= 4 * len(self.layout.shapes)


def _unescaped(value: bytes, quoted: re.Pattern[bytes]) -> bytes:
    return value.replace(b'""', b'"') if quoted is _DOUBLED else re.sub(rb'\\(["\\])', rb"\1", value)


def _rewritten(fields: list[tuple[bytes, bool]], delimiter: bytes) -> bytes:
    """The record with quotes written twice."""
    texts: Iterator[bytes] = (b'"' + value.replace(b'"', b'""') + b'"' if quoted else value for value, quoted in fields)
    return delimiter.join(texts).rstrip(b"\r") + b"\n"
