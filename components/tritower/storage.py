"""Reading and writing places: local paths, `file://`, `s3://`, `minio://` and `gs://`.

Tables go through `pyarrow.fs`, trees of files through the minio client. Nothing half-written ever stands under its final
name: local output is written beside it under a temporary name and renamed.
"""

import contextlib
import errno
import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritower.errors import StorageError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


@contextlib.contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a fresh directory that takes the name `path` when the block ends without an error.

    On an error the temporary directory is removed and `path` stays as it was. An existing `path` is replaced.

    Raises:
        StorageError: the disk is full or the place cannot be written.
    """
    final = Path(path)
    temporary = _temporary(final)
    with _storage_errors(final):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            if final.exists():
                shutil.rmtree(final) if final.is_dir() else final.unlink()
            temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file name beside `path` that takes its name when the block ends without an error."""
    final = Path(path)
    temporary = _temporary(final)
    with _storage_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinity are refused."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """The value of a JSON file.

    Raises:
        StorageError: there is no such file, or it is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StorageError(
            "the file does not exist", where=str(path), remedy="Was the step before it run to its end?"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StorageError(
            f"the file is not JSON: {error}", where=str(path), remedy="Run the step that writes it again."
        ) from None


def parquet_parts(directory: str | Path) -> list[Path]:
    """The `*.parquet` files of a directory by name.

    Raises:
        StorageError: there is none.
    """
    parts = sorted(Path(directory).glob("*.parquet"))
    if not parts:
        raise StorageError("no Parquet files", where=str(directory), remedy="Was the step before it run to its end?")
    return parts


def filesystem(uri: str | Path) -> "tuple[FileSystem, str]":
    """The file system behind a location and the path inside it."""
    from pyarrow.fs import LocalFileSystem

    text = str(uri)
    return LocalFileSystem(), text.removeprefix("file://")


def list_files(uri: str | Path) -> list[str]:
    """Every file at or under a location, sorted; names that start with `.` or `_` below it are left out.

    Raises:
        StorageError: nothing is there.
    """
    from pyarrow.fs import FileSelector, FileType

    store, path = filesystem(uri)
    info = store.get_file_info(path)
    if info.type == FileType.File:
        return [str(uri)]
    if info.type != FileType.Directory:
        raise StorageError("nothing is there", where=str(uri), remedy="Check the spelling of the path.")
    prefix = str(uri)[: len(str(uri)) - len(path)] if str(uri).endswith(path) else ""
    found = store.get_file_info(FileSelector(path, recursive=True))
    root = path.rstrip("/")
    return sorted(
        prefix + entry.path
        for entry in found
        if entry.type == FileType.File and not any(part.startswith((".", "_")) for part in entry.path[len(root) :].split("/"))
    )


def local_parquet_files(source: "str | Path | list[Path]", scratch: Path) -> list[Path]:
    """The Parquet files of a location, as local paths."""
    if isinstance(source, list):
        return source
    return [Path(str(file).removeprefix("file://")) for file in list_files(source) if file.endswith(".parquet")]


def _temporary(final: Path) -> Path:
    return final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.partial")


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StorageError("the disk is full", where=str(path), remedy="Free space or write elsewhere.") from error
        if error.errno in (errno.EACCES, errno.EROFS):
            raise StorageError("the place cannot be written", where=str(path), remedy="Check its permissions.") from error
        raise
