"""The bytes of a raw file, unpacked where they are compressed; a file that is not what its name says gives one error.

Compression is told by content. A name that promises another one (`.gz` on plain text) is an error: such a file was renamed or
cut, and reading it as something else would hide that.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from tritower import storage
from tritower.errors import DataError, StorageError, TritowerError

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
_MAGIC = {"gzip": b"\x1f\x8b", "bz2": b"BZh", "zstd": b"\x28\xb5\x2f\xfd", "lz4": b"\x04\x22\x4d\x18"}
_FOREIGN = {
    b"PK\x03\x04": "a ZIP archive or a spreadsheet",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"\xfd7zXZ": "compressed with xz",
    b"7z\xbc\xaf": "a 7z archive",
    b"ORC": "an ORC file",
    b"Obj\x01": "an Avro file",
    b"PAR1": "a Parquet file",
    b"SQLite format": "an SQLite database",
}
HEAD_BYTES = 1 << 16


@contextlib.contextmanager
def readable(file: str) -> Iterator[None]:
    """Turn what the machine or a store says about a file that cannot be read into an error of ours."""
    with storage.reading(file):
        try:
            yield
        except OSError as error:
            if isinstance(error, TritowerError) or not storage.is_local(file):
                raise
            why = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
            raise StorageError(
                f"the file cannot be read: {why}", where=file, remedy="Check that it is there and that you may read it."
            ) from None


class Source:
    """A file's bytes in blocks; `reached` is how far its reader has come, for the message when the file breaks off."""

    def __init__(self, file: str, stream: Any, compression: str, raw: "_Raw") -> None:
        self.file, self.reached = file, ""
        self._stream, self._compression, self._raw = stream, compression, raw

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`; none at the end.

        Raises:
            DataError: the compressed data are damaged or break off.
        """
        try:
            block: bytes = self._stream.read(size)
        except OSError as error:
            if not self._compression or self._raw.has_failed:
                raise
            raise DataError(
                f"the {self._compression} data are cut short or damaged ({str(error).splitlines()[0]})",
                where=f"{self.file}, {self.reached}" if self.reached else self.file,
                remedy="Copy or export the file again.",
            ) from None
        return block


class _Raw(io.RawIOBase):
    """The file as it is stored, with its first bytes put back in front."""

    def __init__(self, stream: Any, head: bytes) -> None:
        super().__init__()
        self._stream, self._head = stream, head
        self.has_failed = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        assert size >= 0
        head, self._head = self._head[:size], self._head[size:]
        try:
            block: bytes = self._stream.read(size - len(head))
        except OSError:
            self.has_failed = True
            raise
        return head + block


@contextlib.contextmanager
def opened(file: str) -> Iterator[Source]:
    """Open a text file for reading, unpacked.

    Raises:
        DataError: the file is compressed in another way than its name says, or is no text at all.
        StorageError: it cannot be read.
    """
    store, path = storage.filesystem(file)
    with readable(file), store.open_input_stream(path, compression=None) as stream:
        head = stream.read(16)
        compression = _compression(file, head)
        raw = _Raw(stream, head)
        if compression:
            with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), compression) as unpacked:
                yield Source(file, unpacked, compression, raw)
        else:
            yield Source(file, raw, "", raw)


def head(file: str) -> bytes:
    """The first HEAD_BYTES of a text file, without a byte order mark.

    Raises:
        DataError: the file is empty, or is UTF-16 or UTF-32.
    """
    with opened(file) as source:
        found = source.read(HEAD_BYTES)
    if not found:
        raise DataError("the file is empty", where=file, remedy="Export it again, or remove it.")
    if found[:2] in (b"\xff\xfe", b"\xfe\xff") or found[:4] == b"\x00\x00\xfe\xff" or b"\x00" in found[:4]:
        raise DataError("the file is UTF-16 or UTF-32", where=file, remedy="Export it as UTF-8.")
    return without_mark(found)


def without_mark(text: bytes) -> bytes:
    """The text without a UTF-8 byte order mark."""
    return text.removeprefix(b"\xef\xbb\xbf")


def _compression(file: str, head: bytes) -> str:
    found = next((name for name, magic in _MAGIC.items() if head.startswith(magic)), "")
    said = COMPRESSIONS.get(PurePosixPath(file).suffix.lower(), "")
    if said and found != said:
        raise DataError(
            f"the name says {said}, but the content is {found or 'not compressed that way'}",
            where=file,
            remedy=f"Compress it, or rename it without {PurePosixPath(file).suffix}; if it was cut, copy it again.",
        )
    what = next((what for magic, what in _FOREIGN.items() if head.startswith(magic)), "")
    if what:
        raise DataError(f"the file is {what}", where=file, remedy="Export CSV, JSON Lines or Parquet, with that ending.")
    return found
