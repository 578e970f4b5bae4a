"""The files of a source: which are read, in which format, and which are left out and why."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pyarrow.fs import FileSelector, FileType

from tritower import storage
from tritower.errors import DataError, StorageError
from tritower.ingest import streams
from tritower.storage import local

Format = Literal["csv", "jsonl", "parquet"]
SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
# What other tools leave beside data and what holds none.
_MARKER = re.compile(r"_SUCCESS|_metadata|_common_metadata|_committed_.*|_started_.*|\..*\.crc|\.DS_Store|\.tritower")
# Names that tools give to the parts of a table: part-00000, part-00000-<uuid>, 000000_0.
_PART = re.compile(r"part-\d+\S*|\d+_\d+")


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A file that is not read, and why; `is_marker` where it holds no rows."""

    file: str
    reason: str
    is_marker: bool = False


def list_source(uri: str) -> tuple[list[tuple[str, Format]], list[LeftOut]]:
    """The files at or under a location with their formats, in order of their names, and those that are left out.

    Raises:
        StorageError: nothing is there, it cannot be read, or a symbolic link leads nowhere.
        DataError: a file's name is not UTF-8.
    """
    found, left_out = _local(uri) if storage.is_local(uri) else (_remote(uri), [])
    is_one = found == [uri]
    files: list[tuple[str, Format]] = []
    for file in sorted(found):
        parts = file[len(uri.rstrip("/")) :].strip("/").split("/")
        hidden = next(filter(storage.is_hidden, parts), "") if not is_one else ""
        kind, reason = (None, f"{hidden!r} is a hidden name") if hidden else _format(file, is_one)
        if kind:
            files.append((file, kind))
        elif hidden == "_delta_log":
            reason = "the log of a Delta table; files that it took out of the table are read as well"
            left_out.append(LeftOut(file=file, reason=reason))
        else:
            left_out.append(LeftOut(file=file, reason=reason, is_marker=bool(_MARKER.fullmatch(parts[-1]))))
    return files, left_out


def _format(file: str, is_one: bool) -> tuple[Format | None, str]:
    """The format by the name's ending; a file that was named itself, or has no ending, is told by its content."""
    path = PurePosixPath(file)
    name = path.stem if path.suffix.lower() in streams.COMPRESSIONS else path.name
    kind = SUFFIXES.get(PurePosixPath(name).suffix.lower())
    if kind:
        return kind, ""
    is_part = bool(_PART.fullmatch(name))
    if not is_one and not is_part and "." in name:
        return None, f"{PurePosixPath(name).suffix!r} is no known ending"
    store, key = storage.filesystem(file)
    with streams.readable(file), store.open_input_stream(key, compression=None) as stream:
        if stream.read(4) == b"PAR1":
            return "parquet", ""
    try:
        head = streams.head(file).lstrip()
    except DataError as error:
        if is_one:
            raise
        return None, error.problem
    if head[:1] in (b"{", b"["):
        return "jsonl", ""
    if is_one or is_part:
        return "csv", ""
    return None, "it has no ending and is neither Parquet nor JSON; name it .csv to have it read"


def _remote(uri: str) -> list[str]:
    store, path = storage.filesystem(uri)
    with storage.reading(uri):
        kind = store.get_file_info(path).type
        if kind == FileType.File:
            return [uri]
        entries = store.get_file_info(FileSelector(path, recursive=True)) if kind == FileType.Directory else []
    found = [f"{uri.partition('://')[0]}://{entry.path}" for entry in entries if entry.type == FileType.File]
    return found or storage.list_files(uri)  # which says why there is nothing


def _local(uri: str) -> tuple[list[str], list[LeftOut]]:
    """Every plain file at or under a path, each once, whatever links lead to it."""
    top = storage.local_path(uri)
    if top.is_file():
        return [uri], []
    found = local.below(top) if top.is_dir() else local.Found()
    for path in (*found.files, *(path for path, _ in found.left_out)):
        _check_name(path)
    for path, reason in found.left_out:
        if reason == local.NOWHERE:
            raise StorageError(reason, where=str(path), remedy="Mend it or remove it.")
    names = [f"{uri.rstrip('/')}/{path.relative_to(top).as_posix()}" for path in found.files]
    if not names:
        raise StorageError("nothing is there", where=uri, remedy="Check the spelling of the location.")
    return names, [LeftOut(file=str(path), reason=reason) for path, reason in found.left_out]


def _check_name(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise DataError("the file's name is not UTF-8", where=ascii(str(path)), remedy="Rename it.") from None
