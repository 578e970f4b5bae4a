"""Folders and files that take their name when they are whole: nothing half-written ever stands under it.

What is being written lies beside its place, in a hidden folder `.<name>.<id>.partial`, which the writing process holds by a
lock (flock). The system drops the lock when the process dies, however it dies, so the next writer of that place knows what is
left of the dead and removes it. Several writers of one place do not disturb each other: the last one wins, as a whole.

An old folder is replaced by exchanging the two names in one step (renameat2; Linux with ext4, xfs, btrfs or tmpfs): readers see
the old one or the new one. Where that cannot be done (NFS, some network and user-space file systems, macOS), the old one is
moved aside first: for an instant nothing is there, and a kill in that instant leaves the old one as `.<name>.<id>.old`.

A symbolic link is followed: what it points to is replaced, the link stays.
"""

import contextlib
import ctypes
import errno
import fcntl
import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tritower.errors import StorageError, of_system
from tritower.storage import manifest
from tritower.storage.manifest import MARK

_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM, errno.EXDEV)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_TRIES = 1_000
_renameat2: Any = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


@contextlib.contextmanager
def directory(path: str | Path) -> Iterator[Path]:
    """Yield a fresh directory that takes the name `path` when the block ends without an error.

    Its manifest is written at the end (see `manifest.py`); one that was copied in with the files stays, and the copier checks
    it. Files and folders get the modes that the umask gives. On an error the directory is removed and `path` stays as it was.
    An existing `path` is replaced if it is empty or was made by this function and holds nothing else since; anybody else's
    files are left alone.

    Raises:
        StorageError: `path` holds other files, the disk is full or the place cannot be written.
    """
    final = Path(os.path.realpath(path))
    with errors(final):
        _check_replaceable(final)
        with partial(final) as place:
            yield place
            _set_modes(place)
            if not (place / MARK).exists() or not (place / MARK).stat().st_size:
                manifest.write(place)
            _take_name(place, final)
            manifest.sync_folder(final.parent)


@contextlib.contextmanager
def file(path: str | Path) -> Iterator[Path]:
    """Yield the name of a file that takes the name `path` when the block ends without an error, its bytes on the disk."""
    final = Path(os.path.realpath(path))
    with errors(final), partial(final) as place:
        temporary = place / final.name
        yield temporary
        _set_modes(place)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(final)
        manifest.sync_folder(final.parent)


@contextlib.contextmanager
def partial(final: Path) -> Iterator[Path]:
    """A hidden folder beside `final`, held by this process and removed at the end unless it was renamed."""
    final.parent.mkdir(parents=True, exist_ok=True)
    stem = os.fsdecode(os.fsencode(final.name)[:120])
    for left in final.parent.glob(f".{glob.escape(stem)}.*.partial"):
        _remove_if_dead(left)
    while True:
        place = final.with_name(f".{stem}.{uuid.uuid4().hex[:8]}.partial")
        place.mkdir()
        with _held(place) as mine:
            if not mine:  # another writer took it for a dead one's before it was locked
                continue
            try:
                (place / MARK).touch()
                yield place
            finally:
                shutil.rmtree(place, ignore_errors=True)
            return


@contextlib.contextmanager
def exclusive(folder: Path, purpose: str) -> Iterator[Path]:
    """Keep a folder, made where there is none, to this process while the block runs; one left empty goes.

    Raises:
        StorageError: another process, which lives, has it.
    """
    for _ in range(_TRIES):
        with errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with _held(folder) as mine:
            if mine:
                try:
                    yield folder
                finally:
                    with contextlib.suppress(OSError):  # it holds something, or is gone
                        folder.rmdir()
                return
            if folder.exists() and _is_held(folder):
                remedy = "Wait until it has ended, or name another place."
                raise StorageError(f"another process is at work on it ({purpose})", where=str(folder), remedy=remedy)
    raise StorageError("the folder comes and goes", where=str(folder), remedy="Name another place.")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process has this folder, and keep it while the block runs."""
    with _held(folder, wait=True):
        yield


def swap(new: Path, final: Path) -> None:
    """Give `new` (a file or folder) the name `final`; what had it is `new` afterwards, or nothing."""
    try:
        if exchange(new, final):
            return
        aside = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.old")
        final.rename(aside)
        new.rename(final)
        aside.rename(new)
    except FileNotFoundError:
        new.rename(final)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system cannot.

    Raises:
        OSError: one of them does not exist, or may not be renamed.
    """
    if _renameat2 is None:
        return False
    if _renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))


@contextlib.contextmanager
def errors(path: Path) -> Iterator[None]:
    """What the system says of a place that cannot be written, as an error of ours that names it."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        named = str(error.filename or error)  # pyarrow names the file in its text only
        is_ours = str(path.parent) in named or "/" not in named
        raise of_system(error, where=str(path), verb="written" if is_ours else "opened") from error


def _take_name(place: Path, final: Path) -> None:
    """Rename a finished folder; an old one is then `place`, which its caller removes."""
    for _ in range(_TRIES):
        _check_replaceable(final)
        try:
            place.rename(final)  # also onto an empty folder
            return
        except OSError as error:
            if error.errno not in _OCCUPIED:
                raise
        try:
            if not exchange(place, final):
                _move_aside(place, final)
            else:
                _check_replaced(place, final)
            return
        except FileNotFoundError:
            continue  # another writer was moving the old one
        except OSError as error:
            if error.errno not in _OCCUPIED:
                raise
    raise StorageError("other processes keep replacing it", where=str(final), remedy="Let one process write there.")


def _check_replaced(old: Path, final: Path) -> None:
    """Give `final` back to what was exchanged for ours if it was somebody's files, which came in the last instant."""
    with _held(old, wait=True) as mine:  # it looks dead to other writers: one may be removing it
        if mine and (refusal := _refusal(old, final)):
            exchange(old, final)
            raise refusal


def _move_aside(place: Path, final: Path) -> None:
    aside = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.old")
    final.rename(aside)
    place.rename(final)
    for left in final.parent.glob(f".{glob.escape(final.name)}.*.old"):
        shutil.rmtree(left, ignore_errors=True)


def _check_replaceable(final: Path) -> None:
    if refusal := _refusal(final, final):
        raise refusal


def _refusal(folder: Path, final: Path) -> StorageError | None:
    """Why `folder`, known as `final`, may not be replaced; None where it may."""
    try:
        if not folder.is_dir():
            what = "there is a file in the folder's place" if folder.exists() else ""
        elif not (folder / MARK).exists():
            what = "the folder holds files that tritower did not write" if any(folder.iterdir()) else ""
        else:
            strange = manifest.strangers(folder)
            what = f"the folder holds files that tritower did not write ({strange[0]})" if strange else ""
    except FileNotFoundError:
        return None
    return StorageError(what, where=str(final), remedy="Name another place, or move what is there.") if what else None


def _set_modes(place: Path) -> None:
    """Give every file and folder the mode that the umask gives: some libraries write files that only their owner may read."""
    mode = place.stat().st_mode
    for here, folders, names in os.walk(place):
        for name in (*folders, *names):
            one = Path(here) / name
            if not one.is_symlink():
                one.chmod(mode & (0o7777 if name in folders else 0o666))


@contextlib.contextmanager
def _held(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Lock a folder while the block runs; False where another has it, or where it is gone meanwhile."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _lock(handle, wait=wait) is not False and _is_at(handle, folder)
    finally:
        os.close(handle)


def _lock(handle: int, *, wait: bool = False) -> bool | None:
    """Whether the lock was to be had; None where the file system has no locks: then nothing is ever taken for dead."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_held(folder: Path) -> bool:
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        return _lock(handle) is False
    finally:
        os.close(handle)


def _is_at(handle: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), folder.stat())
    except FileNotFoundError:
        return False


def _remove_if_dead(left: Path) -> None:
    try:
        handle = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        # A folder of somebody else's, exchanged for ours this very instant, has no mark.
        if _lock(handle) and _is_at(handle, left) and ((left / MARK).exists() or not any(left.iterdir())):
            shutil.rmtree(left, ignore_errors=True)
    except OSError:
        return
    finally:
        os.close(handle)
