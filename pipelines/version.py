"""Versions of data and code, so that the cache never gives what would come out differently today.

KFP's cache key holds a step's parameters and input locations, not the content behind them. The first step therefore takes
`data_version` as a parameter, and every later step depends on an output of it. Nor does the key hold a component's code,
which is in the image and not in the compiled YAML: on a cluster the immutable image tag stands for it, and locally
`step_versions` tells which steps have to run again.
"""

import functools
import hashlib
import os
import re
from pathlib import Path

import tritower
from tritower.errors import StorageError
from tritower.storage import manifest

from pipelines import graph

_PACKAGE = Path(tritower.__file__).parent
_ROOM = re.compile(r"from tritower\.(\w+)(?:\.component)? import")


def data_version(*locations: str) -> str:
    """16 hex digits over the content of every location.

    Args:
        locations: files or folders, local or remote; an empty text stands for an input that is not given. Local files are
            read and hashed; a remote one is known by path, size and time of modification.

    Raises:
        StorageError: a location does not exist.
    """
    digest = hashlib.sha256()
    for location in locations:
        digest.update((of_location(location) if location else "none").encode() + b"\0")
    return digest.hexdigest()[:16]


def of_location(location: str) -> str:
    """SHA-256 (hex) over the files that a reader finds at a location: `storage.listing` tells them, links and all.

    Local files are read and hashed, remote ones are known by size and time of modification.

    Raises:
        StorageError: nothing is there.
    """
    from tritower import storage

    if storage.is_local(location) and not storage.local_path(location).exists():
        raise StorageError("there is no such file or folder", where=str(location), remedy="Check the path.")
    digest = hashlib.sha256()
    for name, info in storage.listing(location):
        local = storage.is_local(location)
        what = _content(storage.local_path(name)) if local else f"{info.size} {info.mtime_ns}"
        # The names below the location count, not where it is; a file's own name does by its ending, which tells the format.
        below = name.removeprefix(str(location)).lstrip("/") or "".join(Path(name).suffixes)
        digest.update(f"{below}\0{what}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def step_versions(pipeline: Path) -> dict[str, str]:
    """Component name -> SHA-256 of the source and data files that its body runs: its room and what all rooms share.

    Rooms never import each other, so a change in one leaves the other steps' results valid.

    Args:
        pipeline: a compiled pipeline.
    """
    spec = graph.document(pipeline)
    executors = spec["deploymentSpec"]["executors"]
    versions = {}
    for name, component in spec["components"].items():
        container = executors.get(component.get("executorLabel", ""), {}).get("container")
        if container:  # neither an importer nor a nested pipeline
            body = "\n".join(container.get("command", []))
            versions[name.removeprefix("comp-")] = code_version(*sorted(set(_ROOM.findall(body))))
    return versions


@functools.cache
def code_version(*rooms: str) -> str:
    """The SHA-256 of some folders of the installed tritower package and of everything that is in no step's room."""
    folders = {path.parent.name for path in _PACKAGE.glob("*/step.py")} - set(rooms)
    digest = hashlib.sha256()
    for path in _files(_PACKAGE):
        if path.relative_to(_PACKAGE).parts[0] not in folders:
            digest.update(f"{path.relative_to(_PACKAGE)}\0{_content(path)}\0".encode())
    return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    """Every file under a folder, sorted; caches, hidden files and read-me files apart."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix != ".md"
        and not any(part == "__pycache__" or part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _content(path: Path) -> str:
    """SHA-256 of a file; read once in a process as long as it stays as it is."""
    found = path.stat()
    return _hash(os.fspath(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@functools.cache
def _hash(path: str, *stamp: int) -> str:
    try:
        return manifest.digest(Path(path))
    except PermissionError:
        raise StorageError("this user may not read it", where=path, remedy="Ask its owner for the right to read it.") from None
