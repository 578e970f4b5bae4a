"""Versions of data and code, so that the cache never gives what would come out differently today.

KFP's cache key holds a step's parameters and input locations, not the content behind them. The first step therefore takes
`data_version` as a parameter, and every later step depends on an output of it. Nor does the key hold a component's code,
which is in the image and not in the compiled YAML: on a cluster the immutable image tag stands for it, and locally
`step_versions` tells which steps have to run again.
"""

import functools
import hashlib
import re
from pathlib import Path

import tritower
import yaml
from tritower.errors import StorageError

_PACKAGE = Path(tritower.__file__).parent
_ROOM = re.compile(r"from tritower\.(\w+) import")
_BLOCK_BYTES = 1 << 20


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
        digest.update(_location(location).encode() + b"\0")
    return digest.hexdigest()[:16]


def step_versions(pipeline: Path) -> dict[str, str]:
    """Component name -> SHA-256 of the source and data files that its body runs: its room and what all rooms share.

    Rooms never import each other, so a change in one leaves the other steps' results valid.

    Args:
        pipeline: a compiled pipeline.
    """
    spec = next(yaml.safe_load_all(pipeline.read_text(encoding="utf-8")))
    executors = spec["deploymentSpec"]["executors"]
    versions = {}
    for name, component in spec["components"].items():
        container = executors[component["executorLabel"]].get("container", {})  # an importer has none
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


def _location(location: str) -> str:
    if not location:
        return "none"
    if "://" in location and not location.startswith("file://"):
        return _remote(location)
    path = Path(location.removeprefix("file://"))
    if path.is_dir():
        return "\0".join(f"{file.relative_to(path)} {_content(file)}" for file in _files(path))
    if not path.is_file():
        raise StorageError("there is no such file or folder", where=str(path), remedy="Check the path.")
    return _content(path)


def _files(folder: Path) -> list[Path]:
    """Every file under a folder, sorted; caches and hidden files apart."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _content(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _remote(location: str) -> str:
    from pyarrow.fs import FileSelector, FileType
    from tritower import storage

    store, path = storage.filesystem(location)
    info = store.get_file_info(path)
    found = [info] if info.type == FileType.File else store.get_file_info(FileSelector(path, recursive=True))
    files = sorted(f"{one.path} {one.size} {one.mtime_ns}" for one in found if one.type == FileType.File)
    if not files:
        raise StorageError("nothing is there", where=location, remedy="Check the spelling of the location.")
    return "\n".join(files)
