"""Copies between this machine and a location: whole or not at all, whatever the location is.

What arrives here takes its name when it is whole (`atomic.py`), and a folder is compared with the manifest that came with it
(`manifest.py`). An upload that fails takes back what it had sent.
"""

import contextlib
import shutil
import uuid
from pathlib import Path

from tritower.errors import StorageError
from tritower.storage import atomic, local, manifest, objects, remote
from tritower.storage.listing import list_files
from tritower.storage.location import Location, LocationLike
from tritower.storage.manifest import MARK


def fetch(location: LocationLike, path: str | Path) -> Path:
    """Copy what is at a location to `path`: a file or object to a file, a folder to a folder; whole or not at all.

    Raises:
        StorageError: nothing is there, the store cannot be reached, or the disk is full.
        CredentialsError: the store refuses the credentials, or there are none.
    """
    source = Location.parse(location)
    if source.is_local:
        if not source.local.is_file():
            return fetch_tree(source, path)
        with atomic.file(path) as temporary:
            shutil.copyfile(source.local, temporary)
        return Path(path)
    with remote.reading(source):
        one = next((download for name, download in objects.found(source) if name == source.key), None)
    if one is None:
        return fetch_tree(source, path)
    with atomic.file(path) as temporary, remote.reading(source):
        one(str(temporary))
    return Path(path)


def fetch_tree(location: LocationLike, path: str | Path) -> Path:
    """Copy every object under a location into the local folder `path`, all or nothing; a single object keeps its name.

    Raises:
        StorageError: nothing is there, the store cannot be reached, or the disk is full.
        CredentialsError: the store refuses the credentials, or there are none.
    """
    source = Location.parse(location)
    with atomic.directory(path) as folder, remote.reading(source):
        if source.is_local:
            local.copy(source.local, folder)
        else:
            _download(source, folder)
        if (folder / MARK).exists() and (folder / MARK).stat().st_size:  # it came with the files
            manifest.check(folder, shown=str(source))
    return Path(path)


def _download(source: Location, folder: Path) -> None:
    count = 0
    for name, download in objects.found(source):
        relative = name[len(source.key) :].lstrip("/") or name.rpartition("/")[2]
        target = (folder / relative).resolve()
        if not target.is_relative_to(folder.resolve()):
            raise StorageError(f"the object {name!r} points outside its folder", where=str(source), remedy="Rename it.")
        target.parent.mkdir(parents=True, exist_ok=True)
        download(str(target))
        count += 1
    if not count:
        raise StorageError("nothing is there", where=str(source), remedy="Check the spelling of the location.")


def local_parquet_files(location: "LocationLike | list[Path]", scratch: str | Path) -> list[Path]:
    """The Parquet files of a location as local paths; what is remote is copied to a fresh folder under `scratch`.

    Raises:
        StorageError: there is none.
    """
    if isinstance(location, list):
        return location
    source = Location.parse(location)
    if not source.is_local:
        source = Location.parse(fetch_tree(source, Path(scratch) / f"fetched-{uuid.uuid4().hex[:8]}"))
    files = [Location.parse(file).local for file in list_files(source) if file.endswith(".parquet")]
    if not files:
        raise StorageError("no Parquet files", where=str(source), remedy="Was the step before it run to its end?")
    return files


def upload_tree(path: str | Path, location: LocationLike) -> int:
    """Copy a local file or every file under a local folder to below a location; return how many there were.

    On an error the objects already sent are removed. A local location is replaced atomically.
    """
    source, target = Path(path), Location.parse(location)
    if target.is_local:
        fetch_tree(source, target.local)
        return sum(file.is_file() and file.name != MARK for file in target.local.rglob("*"))
    files = sorted(file for file in source.rglob("*") if file.is_file()) if source.is_dir() else [source]
    root = source if source.is_dir() else source.parent
    sent = _send([(file, file.relative_to(root).as_posix()) for file in files], target)
    return sent - sum(file.name == MARK for file in files)


def upload(path: str | Path, location: LocationLike) -> int:
    """Copy a local file to exactly this remote location, or a folder to below it; return the number of files.

    On an error the objects already sent are removed.
    """
    return upload_tree(path, location) if Path(path).is_dir() else _send([(Path(path), "")], Location.parse(location))


def _send(files: list[tuple[Path, str]], target: Location) -> int:
    """Send files to names below a remote location."""
    sent: list[str] = []
    put, remove = objects.writers(target)
    with remote.reading(target):
        try:
            for file, relative in files:
                name = "/".join(part for part in (target.key, relative) if part)
                put(name, file)
                sent.append(name)
        except BaseException:
            for name in sent:
                with contextlib.suppress(OSError):
                    remove(name)
            raise
    return len(sent)


def names(location: LocationLike) -> list[str]:
    """Keys of all objects at or under the location of a store, hidden ones included; none where nothing is.

    Raises:
        StorageError: the store cannot be reached.
        CredentialsError: the store refuses the credentials, or there are none.
    """
    place = Location.parse(location)
    with remote.reading(place):
        return sorted(name for name, _ in objects.found(place))


def remove(location: LocationLike) -> None:
    """Remove the folder or the objects at a location; nothing need be there."""
    place = Location.parse(location)
    if place.is_local:
        shutil.rmtree(place.local, ignore_errors=True)
        return
    _, take = objects.writers(place)
    with remote.reading(place):
        for name in names(place):
            take(name)
