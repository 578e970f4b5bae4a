"""What is at a location, and the file system through which tables are read and written."""

from typing import TYPE_CHECKING

from tritower.errors import StorageError
from tritower.storage import local, remote
from tritower.storage.location import Location, LocationLike

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem


def filesystem(location: LocationLike) -> "tuple[FileSystem, str]":
    """The file system behind a location and the path inside it.

    Raises:
        CredentialsError: there are no credentials for it.
        StorageError: the scheme is unknown.
    """
    place = Location.parse(location)
    if place.is_local:
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem(), str(place.local)
    return remote.filesystem(place), place.path


def list_files(location: LocationLike) -> list[str]:
    """Every file at or under a location, sorted; names that start with `.` or `_` below it are left out.

    Raises:
        StorageError: nothing is there, or the store cannot be reached.
        CredentialsError: the store refuses the credentials, or there are none.
    """
    return [name for name, _ in listing(location)]


def listing(location: LocationLike) -> "list[tuple[str, FileInfo]]":
    """What `list_files` finds, each with its size and time of modification; the reader of raw data and the version of data see
    the same files. Below a local folder, a file that several symbolic links lead to is listed once (see `local.below`).

    Raises:
        StorageError: nothing is there, or the store cannot be reached.
        CredentialsError: the store refuses the credentials, or there are none.
    """
    from pyarrow.fs import FileSelector, FileType

    place = Location.parse(location)
    store, path = filesystem(place)
    with remote.reading(place):
        info = store.get_file_info(path)
        if info.type == FileType.File:
            return [(str(place), info)]
        if info.type != FileType.Directory:
            found = []
        elif place.is_local:
            found = store.get_file_info([str(file) for file in local.below(place.local).files])
        else:
            found = store.get_file_info(FileSelector(path, recursive=True))
    files = sorted(
        (
            (place.sibling(entry.path), entry)
            for entry in found
            if entry.type == FileType.File and not any(map(is_hidden, entry.path[len(path.rstrip("/")) :].split("/")))
        ),
        key=lambda one: one[0],
    )
    if files:
        return files
    if not place.is_local:
        with remote.reading(place):
            bucket = store.get_file_info(place.bucket)
        if bucket.type == FileType.NotFound:
            raise remote.no_bucket(place)
    raise StorageError("nothing is there", where=str(place), remedy="Check the spelling of the location.")


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no data: `.name`, `_SUCCESS`; but `_day=3` is a partition."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)
