"""Where a journal lies: segments in a folder of this machine, or objects of a store. One process writes, any number read.

this machine   records are appended and put on the disk (fsync). The writer holds a lock that ends with its process.
a store        has no append: the last segment is put again, whole, with what came (If-Match: refused where somebody else has
               written), so segments are small. The writer holds a lease, which it renews.
"""

import contextlib
import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from tritower import storage
from tritower.errors import StorageError, of_system
from tritower.serving import records
from tritower.storage.manifest import sync_folder

_log = logging.getLogger(__name__)
_LEASE = "writer.json"
_PURPOSE = "the writer of the journal"


class Place(Protocol):
    """What a writer needs."""

    def last_segment(self, name: str) -> bytes:
        """The bytes of the segment to go on with; empty where there is none."""

    def cut(self, name: str, data: bytes, size: int) -> None:
        """Keep only the first `size` bytes of a segment, and put the others aside."""

    def append(self, name: str, block: bytes) -> None:
        """Add to a segment, made where there is none; it is safe when this returns, or is as it was.

        Raises:
            StorageError: it could not be written.
        """

    def renew(self) -> None:
        """Say that the writer lives."""

    def close(self) -> None:
        """Let another one write."""


def opened(location: storage.LocationLike, *, lease_s: float, sync_s: float) -> Place:
    """Become the one writer of a journal.

    Args:
        location: where it lies.
        lease_s: seconds after which the lease of a dead writer ends, at a store.
        sync_s: fsync at most this often; 0 = before each acknowledgement. On this machine only.

    Raises:
        StorageError: another process writes it; the message names it.
    """
    if storage.is_local(location):
        return _Folder(storage.local_path(location), sync_s)
    return _Objects(storage.Location.parse(location), lease_s)


@contextlib.contextmanager
def held(location: storage.LocationLike) -> Iterator[None]:
    """Be the one that may write a journal while the block runs.

    Raises:
        StorageError: another process writes it.
    """
    writer = opened(location, lease_s=15.0, sync_s=0.0)
    try:
        yield
    finally:
        writer.close()


def replace(location: storage.LocationLike, name: str, content: bytes) -> None:
    """Write a segment anew, as a whole. Whoever calls this is the writer.

    Raises:
        StorageError: it cannot be written, or somebody else has written it.
    """
    at = f"{str(location).rstrip('/')}/{name}"
    found = storage.read_small(at)
    if not storage.swap_small(at, content, tag=found[1] if found else ""):
        raise StorageError("another process has written it meanwhile", where=at, remedy="Try again.")


def remove(location: storage.LocationLike, name: str) -> None:
    """Remove a segment."""
    if storage.is_local(location):
        (storage.local_path(location) / name).unlink(missing_ok=True)
    else:
        storage.remove(f"{str(location).rstrip('/')}/{name}")


def remove_cut(location: storage.LocationLike) -> None:
    """Remove what crashes have cut."""
    if storage.is_local(location):
        for path in storage.local_path(location).glob("cut-*.bin"):
            path.unlink()


def segments(location: storage.LocationLike) -> list[str]:
    """The names of a journal's segments in order; none where there is no journal."""
    if storage.is_local(location):
        folder = storage.local_path(location)
        found = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    else:
        found = [name.rpartition("/")[2] for name in storage.names(location)]
    return sorted(name for name in found if records.first_number(name) is not None)


def read_from(location: storage.LocationLike, name: str, position: int = 0, size: int | None = None) -> bytes | None:
    """The bytes of a segment from a position on, all or the first `size`; None where there is no such segment."""
    from pyarrow.fs import FileType

    store, path = storage.filesystem(location)
    with storage.reading(location):
        info = store.get_file_info(f"{path}/{name}")
        if info.type != FileType.File:
            return None
        if info.size <= position:
            return b""
        with store.open_input_file(f"{path}/{name}") as file:
            file.seek(position)
            return bytes(file.read(size))


class _Folder:
    """A journal on this machine."""

    def __init__(self, folder: Path, sync_s: float) -> None:
        self._folder, self._sync_s, self._synced = folder, sync_s, time.monotonic()
        self._stack, self._handle, self._name, self._size = ExitStack(), -1, "", 0
        self._stack.enter_context(storage.exclusive(folder / "writer", _PURPOSE))

    def last_segment(self, name: str) -> bytes:
        path = self._folder / name
        return path.read_bytes() if path.exists() else b""

    def cut(self, name: str, data: bytes, size: int) -> None:
        with storage.atomic_file(self._folder / f"cut-{name}-{size}.bin") as aside:
            aside.write_bytes(data[size:])
        with (self._folder / name).open("r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())

    def append(self, name: str, block: bytes) -> None:
        try:
            self._turn_to(name)
            written = 0
            try:
                while written < len(block):
                    written += os.write(self._handle, block[written:])
            except OSError:
                os.ftruncate(self._handle, self._size)  # the part of a record would hide those that come after it
                raise
        except OSError as error:
            raise of_system(error, where=str(self._folder / name), verb="written") from error
        if time.monotonic() - self._synced >= self._sync_s:
            self._sync()
        self._size += len(block)

    def _turn_to(self, name: str) -> None:
        if name == self._name:
            return
        self._leave()
        path = self._folder / name
        is_new = not path.exists()
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        self._name, self._size = name, os.fstat(self._handle).st_size
        if is_new:
            sync_folder(self._folder)

    def _sync(self) -> None:
        """After a failed fsync nobody knows what is on the disk, nor does a second one tell: see decision 0030."""
        try:
            os.fsync(self._handle)
        except OSError as error:
            raise UnknownOutcome("the disk did not take what was written", where=str(self._folder)) from error
        self._synced = time.monotonic()

    def _leave(self) -> None:
        if self._handle >= 0:
            self._sync()
            os.close(self._handle)
            self._handle, self._name = -1, ""

    def renew(self) -> None:
        if self._handle >= 0 and self._sync_s and time.monotonic() - self._synced >= self._sync_s:
            self._sync()

    def close(self) -> None:
        with self._stack:
            self._leave()


class UnknownOutcome(StorageError):
    """Whether what was written is there will be known when the journal is opened again."""


class _Objects:
    """A journal in a store."""

    def __init__(self, location: storage.Location, lease_s: float) -> None:
        self._location, self._lease_s = location, lease_s
        self._name, self._content, self._tag = "", b"", ""
        self._owner = f"{socket.gethostname()}, process {os.getpid()}, {uuid.uuid4().hex[:8]}"
        self._lease_tag = self._patiently()
        self._renewed = time.monotonic()

    def last_segment(self, name: str) -> bytes:
        found = storage.read_small(self._at(name))
        self._name, (self._content, self._tag) = name, found or (b"", "")
        return self._content

    def cut(self, name: str, data: bytes, size: int) -> None:
        raise AssertionError("objects are whole or not there")

    def append(self, name: str, block: bytes) -> None:
        if name != self._name:
            self._name, self._content, self._tag = name, b"", ""
        content = self._content + block
        try:
            is_ours = storage.swap_small(self._at(name), content, tag=self._tag)
        except StorageError as error:
            raise self._outcome(content, error) from error
        found = storage.read_small(self._at(name))
        if not is_ours and (found is None or found[0] != content):  # a request that was made twice has succeeded before
            raise self._lost()
        if found is None:
            raise self._lost()
        self._content, self._tag = found

    def _outcome(self, content: bytes, error: StorageError) -> StorageError:
        """What a failed PUT has left: the object as it was, or nobody knows."""
        try:
            found = storage.read_small(self._at(self._name))
        except StorageError:
            return UnknownOutcome(error.problem, where=error.where, remedy=error.remedy)
        if (found or (b"", ""))[0] == self._content:
            return error
        return UnknownOutcome(error.problem, where=error.where, remedy=error.remedy)

    def renew(self) -> None:
        if time.monotonic() - self._renewed < self._lease_s / 3:
            return
        if not storage.swap_small(self._at(_LEASE), self._lease(), tag=self._lease_tag):
            raise self._lost()
        self._lease_tag = (storage.read_small(self._at(_LEASE)) or (b"", ""))[1]
        self._renewed = time.monotonic()

    def close(self) -> None:
        storage.swap_small(self._at(_LEASE), self._lease(over=True), tag=self._lease_tag)

    def _patiently(self) -> str:
        """Take the lease, waiting for that of a dead writer to end; return its tag."""
        end, first = time.monotonic() + self._lease_s + 1, 0.0
        while True:
            found = storage.read_small(self._at(_LEASE))
            held = json.loads(found[0]) if found else {}
            left_s = held.get("until", 0) - time.time()
            if left_s <= 0 and storage.swap_small(self._at(_LEASE), self._lease(), tag=found[1] if found else ""):
                return (storage.read_small(self._at(_LEASE)) or (b"", ""))[1]
            first = first or held.get("until", 0)
            if time.monotonic() > end or held.get("until", 0) > first:  # it was renewed: its owner lives
                problem = f"another process is at work on it ({_PURPOSE}): {held.get('owner')}"
                remedy = "Let one process take the events; the others follow its journal."
                raise StorageError(problem, where=str(self._location), remedy=remedy)
            time.sleep(min(max(left_s, 0.05), 0.5))

    def _lease(self, *, over: bool = False) -> bytes:
        until = 0.0 if over else time.time() + self._lease_s
        return json.dumps({"owner": self._owner, "until": until}).encode()

    def _lost(self) -> StorageError:
        remedy = "Let one process take the events; the others follow its journal."
        return UnknownOutcome("another process has begun to write it", where=str(self._location), remedy=remedy)

    def _at(self, name: str) -> str:
        return f"{str(self._location).rstrip('/')}/{name}"
