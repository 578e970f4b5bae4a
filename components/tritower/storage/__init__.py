"""Reading and writing places: local paths, `file://`, `s3://`, `minio://` and `gs://`.

Tables go through `pyarrow.fs`, trees of files through the minio client (Google storage: pyarrow). Nothing half-written ever
stands under its final name: local output is written beside it under a temporary name and renamed (`atomic.py`); an upload that
fails takes back what it had sent. A folder's manifest travels with it and is checked where it arrives (`manifest.py`). Where a
store is and who may use it comes from the environment: see `remote.py`.
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
from tritower.storage import manifest, remote, transfer, walk
from tritower.storage.atomic import directory as atomic_directory
from tritower.storage.atomic import exclusive
from tritower.storage.atomic import file as atomic_file
from tritower.storage.manifest import MARK

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

__all__ = [
    "MARK", "atomic_directory", "atomic_file", "exclusive", "fetch", "fetch_tree", "filesystem", "is_local", "list_files",
    "listing", "local_parquet_files", "local_path", "parquet_parts", "read_json", "reading", "upload", "upload_tree",
    "write_json",
]  # fmt: skip

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


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
    except PermissionError:
        raise StorageError(
            "this user may not read it",
            where=str(path),
            remedy="Ask its owner for the right to read it (chmod a+r, or a group).",
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


def is_local(uri: str | Path) -> bool:
    """Whether a location is a path on this machine."""
    return remote.scheme(uri) == "file"


def local_path(uri: str | Path) -> Path:
    """The path of a local location."""
    return Path(str(uri).removeprefix("file://"))


def filesystem(uri: str | Path) -> "tuple[FileSystem, str]":
    """The file system behind a location and the path inside it.

    Raises:
        CredentialsError: there are no credentials for it.
        StorageError: the scheme is unknown.
    """
    if is_local(uri):
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem(), str(local_path(uri))
    return remote.filesystem(uri), str(uri).partition("://")[2].rstrip("/")


@contextlib.contextmanager
def reading(uri: str | Path) -> Iterator[None]:
    """Turn what a store says when it cannot be read or written into an error of ours that names the location."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno in _FULL or is_local(uri):
            raise
        raise remote.explained(error, uri) from error


def list_files(uri: str | Path) -> list[str]:
    """Every file at or under a location, sorted; names that start with `.` or `_` below it are left out.

    Raises:
        StorageError: nothing is there, or the store cannot be reached.
        CredentialsError: the store refuses the credentials, or there are none.
    """
    return [name for name, _ in listing(uri)]


def listing(uri: str | Path) -> "list[tuple[str, FileInfo]]":
    """What `list_files` finds, each with its size and time of modification; the reader of raw data and the version of data see
    the same files. Below a local folder, a file that several symbolic links lead to is listed once (see `walk`).

    Raises:
        StorageError: nothing is there, or the store cannot be reached.
        CredentialsError: the store refuses the credentials, or there are none.
    """
    from pyarrow.fs import FileSelector, FileType

    store, path = filesystem(uri)
    prefix = "" if "://" not in str(uri) else str(uri).partition("://")[0] + "://"
    with reading(uri):
        info = store.get_file_info(path)
        if info.type == FileType.File:
            return [(str(uri), info)]
        if info.type != FileType.Directory:
            found = []
        elif is_local(uri):
            found = store.get_file_info([str(file) for file in walk.below(Path(path)).files])
        else:
            found = store.get_file_info(FileSelector(path, recursive=True))
    files = sorted(
        (
            (prefix + entry.path, entry)
            for entry in found
            if entry.type == FileType.File and not any(map(is_hidden, entry.path[len(path.rstrip("/")) :].split("/")))
        ),
        key=lambda one: one[0],
    )
    if files:
        return files
    if not is_local(uri):
        with reading(uri):
            bucket = store.get_file_info(remote.split(uri)[0])
        if bucket.type == FileType.NotFound:
            raise remote.no_bucket(uri)
    raise StorageError("nothing is there", where=str(uri), remedy="Check the spelling of the location.")


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no data: `.name`, `_SUCCESS`; but `_day=3` is a partition."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def local_parquet_files(source: "str | Path | list[Path]", scratch: str | Path) -> list[Path]:
    """The Parquet files of a location as local paths; what is remote is copied to a fresh folder under `scratch`.

    Raises:
        StorageError: there is none.
    """
    if isinstance(source, list):
        return source
    if not is_local(source):
        source = fetch_tree(source, Path(scratch) / f"fetched-{uuid.uuid4().hex[:8]}")
    files = [local_path(file) for file in list_files(source) if file.endswith(".parquet")]
    if not files:
        raise StorageError("no Parquet files", where=str(source), remedy="Was the step before it run to its end?")
    return files


def fetch_tree(uri: str | Path, path: str | Path) -> Path:
    """Copy every object under a location into the local folder `path`, all or nothing; a single object keeps its name.

    Raises:
        StorageError: nothing is there, the store cannot be reached, or the disk is full.
        CredentialsError: the store refuses the credentials, or there are none.
    """
    if is_local(uri):
        with atomic_directory(path) as folder:
            source = local_path(uri)
            if not source.exists():
                raise StorageError("nothing is there", where=str(uri), remedy="Check the spelling of the path.")
            _copy(source, folder)
            _check_copy(folder, uri)
        return Path(path)
    key = remote.split(uri)[1]
    with atomic_directory(path) as folder, reading(uri):
        count = 0
        for name, download in transfer.objects(uri):
            relative = name[len(key) :].lstrip("/") or name.rpartition("/")[2]
            target = (folder / relative).resolve()
            if not target.is_relative_to(folder.resolve()):
                raise StorageError(f"the object {name!r} points outside its folder", where=str(uri), remedy="Rename it.")
            target.parent.mkdir(parents=True, exist_ok=True)
            download(str(target))
            count += 1
        if not count:
            raise StorageError("nothing is there", where=str(uri), remedy="Check the spelling of the location.")
        _check_copy(folder, uri)
    return Path(path)


def _copy(source: Path, folder: Path) -> None:
    """Copy a file into a folder, or everything below a folder; links are followed."""
    if not source.is_dir():
        shutil.copy2(source, folder)
        return
    for entry in sorted(source.iterdir()):
        if entry.is_dir():
            (folder / entry.name).mkdir()
            _copy(entry, folder / entry.name)
        else:
            shutil.copy2(entry, folder)


def _check_copy(folder: Path, uri: str | Path) -> None:
    """Compare what was copied with the manifest that came with it, if one did."""
    if (folder / MARK).exists() and (folder / MARK).stat().st_size:
        manifest.check(folder, shown=str(uri))


def fetch(uri: str | Path, path: str | Path) -> Path:
    """Copy what is at a location to `path`: a file or object to a file, a folder to a folder; whole or not at all.

    Raises:
        StorageError: nothing is there, the store cannot be reached, or the disk is full.
        CredentialsError: the store refuses the credentials, or there are none.
    """
    if is_local(uri):
        source = local_path(uri)
        if not source.is_file():
            return fetch_tree(uri, path)
        with atomic_file(path) as temporary:
            shutil.copyfile(source, temporary)
        return Path(path)
    key = remote.split(uri)[1]
    with reading(uri):
        one = next((download for name, download in transfer.objects(uri) if name == key), None)
    if one is None:
        return fetch_tree(uri, path)
    with atomic_file(path) as temporary, reading(uri):
        one(str(temporary))
    return Path(path)


def upload_tree(path: str | Path, uri: str | Path) -> int:
    """Copy a local file or every file under a local folder to below a location; return how many there were.

    On an error the objects already sent are removed. A local location is replaced atomically.
    """
    source = Path(path)
    if is_local(uri):
        fetch_tree(source, local_path(uri))
        return sum(file.is_file() and file.name != MARK for file in local_path(uri).rglob("*"))
    files = sorted(file for file in source.rglob("*") if file.is_file()) if source.is_dir() else [source]
    root = source if source.is_dir() else source.parent
    sent = _send([(file, file.relative_to(root).as_posix()) for file in files], uri)
    return sent - sum(file.name == MARK for file in files)


def upload(path: str | Path, uri: str | Path) -> int:
    """Copy a local file to exactly this remote location, or a folder to below it; return the number of files.

    On an error the objects already sent are removed.
    """
    return upload_tree(path, uri) if Path(path).is_dir() else _send([(Path(path), "")], uri)


def _send(files: list[tuple[Path, str]], uri: str | Path) -> int:
    """Send files to names below a remote location."""
    key = remote.split(uri)[1]
    sent: list[str] = []
    put, remove = transfer.writers(uri)
    with reading(uri):
        try:
            for file, relative in files:
                name = "/".join(part for part in (key, relative) if part)
                put(name, file)
                sent.append(name)
        except BaseException:
            for name in sent:
                with contextlib.suppress(OSError):
                    remove(name)
            raise
    return len(sent)
