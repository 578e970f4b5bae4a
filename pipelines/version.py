"""`data_version`: a text that changes when the input or tritower's code does, and only then.

KFP's cache key holds a step's parameters and input locations, not the content behind them. The first step takes this text as a
parameter; every later step depends on an output of it. Locally the code is part of it as well, because a component's
code is not in the compiled YAML; on a cluster the immutable image tag says which code runs.
"""

import functools
import hashlib
from pathlib import Path

import tritower
from tritower.errors import StorageError

_BLOCK_BYTES = 1 << 20


def data_version(*locations: str, with_code: bool = True) -> str:
    """16 hex digits over the content of every location and, by default, tritower's source.

    Args:
        locations: files or folders, local or remote; an empty text stands for an input that is not given. Local files are
            read and hashed; a remote one is known by path, size and time of modification.

    Raises:
        StorageError: a location does not exist.
    """
    digest = hashlib.sha256()
    for location in locations:
        digest.update(_location(location).encode() + b"\0")
    if with_code:
        digest.update(code_version().encode())
    return digest.hexdigest()[:16]


@functools.cache
def code_version(*rooms: str) -> str:
    """The SHA-256 of every source and data file of the installed tritower package, or of some of its folders only."""
    package = Path(tritower.__file__).parent
    return "".join(_tree(package / room) for room in rooms) if rooms else _tree(package)


def _location(location: str) -> str:
    if not location:
        return "none"
    if "://" in location and not location.startswith("file://"):
        return _remote(location)
    path = Path(location.removeprefix("file://"))
    if path.is_dir():
        return _tree(path)
    if not path.is_file():
        raise StorageError("there is no such file or folder", where=str(path), remedy="Check the path.")
    return _content(path)


def _tree(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
            digest.update(f"{path.relative_to(folder)}\0{_content(path)}\0".encode())
    return digest.hexdigest()


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
    return hashlib.sha256("\n".join(files).encode()).hexdigest()
