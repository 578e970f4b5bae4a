"""The one writer of a journal: a folder of this machine, which it locks, or objects of a store, for which it holds a lease.

this machine   records are appended to the last segment and put on the disk (fsync). The lock ends with its process.
a store        has no append: each record is an object of its own (`stored.py`).
"""

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from tritower import storage
from tritower.errors import of_system
from tritower.serving.segments import WRITER, UnknownOutcome
from tritower.serving.stored import Objects
from tritower.storage.manifest import sync_folder


class Place(Protocol):
    """What a writer needs."""

    grows: bool
    """Whether a segment takes more records; else each record is the first of one."""

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


def opened(location: storage.LocationLike, *, lease_s: float, sync_s: float, segment_bytes: int = 1 << 20) -> Place:
    """Become the one writer of a journal.

    Args:
        location: where it lies.
        lease_s: seconds after which the lease of a dead writer ends, at a store.
        sync_s: fsync at most this often; 0 = before each acknowledgement. On this machine only.
        segment_bytes: to which small objects are merged, at a store.

    Raises:
        StorageError: another process writes it; the message names it.
    """
    if storage.is_local(location):
        return _Folder(storage.local_path(location), sync_s)
    return Objects(storage.Location.parse(location), lease_s, segment_bytes)


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


class _Folder:
    """A journal on this machine."""

    grows = True

    def __init__(self, folder: Path, sync_s: float) -> None:
        self._folder, self._sync_s, self._synced = folder, sync_s, time.monotonic()
        self._stack, self._handle, self._name, self._size = ExitStack(), -1, "", 0
        self._stack.enter_context(storage.exclusive(folder / "writer", WRITER))

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
