"""What a finished folder holds: the size and SHA-256 of every file, in a hidden file of the folder itself.

`atomic.directory` writes it when the folder is whole; whoever reads the folder calls `check` first. Sizes and names are always
compared. Bytes are hashed, smallest files first, up to `HASHED_BYTES` a folder, so that a check takes seconds however large the
data; what is beyond is known by its size. Hidden files are no data: the manifest leaves them out.

A folder without a manifest (made by hand, copied without its hidden files, or written by an earlier version) is read as it is,
with a warning.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from tritower.errors import ArtifactError, StorageError

MARK = ".tritower"
"""The manifest; also the sign that a folder was written by tritower, which may therefore replace it."""
HASHED_BYTES = 16 << 30
"""Bytes of a folder that a check hashes at most: 10 to 25 seconds on one core."""
_TRIES, _PATIENT_S = 50, 30.0
"""A folder that is replaced under its reader is read again so often, and for so long, at least."""
_VERSION = 1
_AGAIN = "Restore the whole folder from where it was copied, or run the step that writes it again."
_log = logging.getLogger(__name__)
_trusted: ContextVar[Path | None] = ContextVar("trusted", default=None)
T = TypeVar("T")


def files(folder: Path) -> dict[str, Path]:
    """Name below the folder -> path of every file that is not hidden, sorted by name; links to folders are not entered."""
    found: dict[str, Path] = {}
    for place, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = Path(place)
        found |= {(here / name).relative_to(folder).as_posix(): here / name for name in names if not name.startswith(".")}
    return dict(sorted(found.items()))


def digest(path: Path, *, sync: bool = False) -> str:
    """SHA-256 (hex) of a file, read in blocks; with `sync`, its bytes are on the disk when this returns."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if sync:
            os.fsync(file.fileno())
    return found


def write(folder: Path) -> None:
    """Write the manifest of a folder as it is now; every file of it is on the disk when this returns."""
    found = {name: {"bytes": path.stat().st_size, "sha256": digest(path, sync=True)} for name, path in files(folder).items()}
    with (folder / MARK).open("w", encoding="utf-8") as file:
        json.dump({"tritower": _VERSION, "files": found}, file, indent=1, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    for place, _, _ in os.walk(folder):
        sync_folder(Path(place))


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, where its file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read(folder: Path) -> dict[str, dict[str, Any]] | None:
    """File name -> bytes and sha256; None where the folder has no manifest.

    Raises:
        ArtifactError: the manifest is damaged.
        PermissionError: this user may not read it.
    """
    place = folder / MARK
    try:
        text = place.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except PermissionError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"the manifest cannot be read: {error}", where=str(place), remedy=_AGAIN) from None
    if not text:
        return None
    try:
        value = json.loads(text)
        if value["tritower"] != _VERSION:
            raise ValueError(f"its version is {value['tritower']}, this is {_VERSION}")
        found: dict[str, dict[str, Any]] = {
            name: {"bytes": int(one["bytes"]), "sha256": str(one["sha256"])} for name, one in value["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"the manifest is damaged: {error}", where=str(place), remedy=_AGAIN) from None
    return found


def check(*folders: str | Path, shown: str = "") -> None:
    """Compare finished folders with their manifests.

    Args:
        folders: local folders; one that is not there is left to its reader, one without a manifest is warned of.
        shown: what messages call the folder in place of its path.

    Raises:
        ArtifactError: a file is missing, new, cut or changed.
        StorageError: this user may not read a file.
    """
    for folder in map(Path, folders):
        with _readable(folder):
            if folder.is_dir() and not _is_trusted(folder):
                _retried(folder, lambda here: _compare(here, shown or str(here)))


def whole(folder: str | Path, read_it: Callable[[Path], T]) -> T:
    """Check a folder and read it; from the start when another writer put a new folder in its place meanwhile.

    Args:
        read_it: reads the folder; what it raises counts only if the folder stayed the same.
    """

    def both(here: Path) -> T:
        check(here)
        return read_it(here)

    return unmoved(folder, both)


def unmoved(folder: str | Path, read_it: Callable[[Path], T]) -> T:
    """Read a folder that the reader checks itself; from the start when another one was put in its place meanwhile.

    Args:
        read_it: as for `whole`.
    """
    with _readable(Path(folder)):
        return _retried(Path(folder), read_it) if Path(folder).is_dir() else read_it(Path(folder))


@contextlib.contextmanager
def trusted(folder: Path) -> Iterator[None]:
    """While the block runs, `check` and `whole` leave what lies below a folder unread: the caller has compared every byte of it
    with what was written, by a manifest of its own."""
    token = _trusted.set(folder)
    try:
        yield
    finally:
        _trusted.reset(token)


def strangers(folder: Path) -> list[str]:
    """Names of the files of a folder that its manifest does not know; none where it has no manifest."""
    try:
        known = read(folder)
    except ArtifactError:
        known = None
    return [] if known is None else [name for name in files(folder) if name not in known]


def _is_trusted(folder: Path) -> bool:
    above = _trusted.get()
    return above is not None and folder.is_relative_to(above)


def _retried(folder: Path, act: Callable[[Path], T]) -> T:
    until = time.monotonic() + _PATIENT_S
    for tries in itertools.count():
        last = tries >= _TRIES and time.monotonic() >= until
        with _pinned(folder) as is_same:
            try:
                result = act(folder)
            except Exception:  # over the remains of a folder a reader may raise anything
                if last or is_same():
                    raise
            else:
                if last or is_same():
                    return result
    raise AssertionError


@contextlib.contextmanager
def _pinned(folder: Path) -> Iterator[Callable[[], bool]]:
    """Hold a folder open, so that its number is not given to another one, and tell whether its name has meant it all the time.

    Another folder, or a link to one, may have taken its place and given it back: moving either leaves a new time of change, and
    not, as a file that is written into a folder does, of its contents.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    def found() -> list[os.stat_result]:
        """The folder and, where that is one, the link to it; nothing while one is being moved."""
        try:
            return [folder.stat(), folder.lstat()]
        except FileNotFoundError:
            return []

    def is_same() -> bool:
        now = found()
        if not now or not held or not os.path.samestat(os.fstat(handle), now[0]):
            return False
        return not any(_moved(*pair) for pair in zip(held, now, strict=True))

    try:
        held = found()
        yield is_same
    finally:
        os.close(handle)


def _moved(before: os.stat_result, now: os.stat_result) -> bool:
    is_written_into = before.st_mtime_ns != now.st_mtime_ns and stat.S_ISDIR(now.st_mode)  # a link is only ever made anew
    return not os.path.samestat(before, now) or (before.st_ctime_ns != now.st_ctime_ns and not is_written_into)


def _compare(folder: Path, shown: str) -> None:
    known = read(folder)
    if known is None:
        _log.warning("%s has no manifest (%s): its files are read unchecked", shown, MARK)
        return
    there = files(folder)
    if lost := sorted(known.keys() - there.keys()):
        raise ArtifactError("a file is missing", where=f"{shown}/{lost[0]}", remedy=_AGAIN)
    if strange := sorted(there.keys() - known.keys()):
        remedy = "Remove it: a folder that tritower wrote holds its own files only."
        raise ArtifactError("the file is none of the folder's own", where=f"{shown}/{strange[0]}", remedy=remedy)
    sizes = {name: path.stat().st_size for name, path in there.items()}
    for name, size in sizes.items():
        if size != known[name]["bytes"]:
            problem = f"the file has {size:,} bytes, {known[name]['bytes']:,} were written"
            raise ArtifactError(problem, where=f"{shown}/{name}", remedy=_AGAIN)
    for name in _hashed(sizes, shown):
        if digest(there[name]) != known[name]["sha256"]:
            raise ArtifactError("the file's bytes are not those that were written", where=f"{shown}/{name}", remedy=_AGAIN)


def _hashed(sizes: dict[str, int], shown: str) -> Iterator[str]:
    """The names whose bytes are hashed: the smallest, `HASHED_BYTES` in all."""
    total = 0
    for count, name in enumerate(sorted(sizes, key=lambda one: sizes[one])):
        total += sizes[name]
        if total > HASHED_BYTES:
            _log.info("%s: the %d largest of %d files are known by size alone", shown, len(sizes) - count, len(sizes))
            return
        yield name


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Say of whom a right is to be had where a file or folder may not be read."""
    try:
        yield
    except PermissionError as error:
        remedy = "Ask its owner for the right to read it (chmod a+rX, or a group)."
        raise StorageError("this user may not read it", where=str(error.filename or folder), remedy=remedy) from None


def _raise(error: OSError) -> None:
    raise error
