"""How often a client may ask: a bucket of requests each, kept in memory that all workers of a server share.

The table is a file of the workers' folder that each of them maps, or memory of its own where a server is one process. A
client's bucket lies in the set that a hash of its name gives; in a full set the one that was asked for longest ago goes,
which is full again or will be soon. Workers take turns at a set by a lock of the file, which ends with its process.
"""

import contextlib
import fcntl
import hashlib
import ipaddress
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from tritower.errors import of_system

_ENTRY = struct.Struct("<16sdd")
"""A client's digest, the requests left, and when that was: seconds of the system's clock, the same in all processes."""
_WAYS, _SETS = 8, 2_048
_SIZE = _ENTRY.size * _WAYS * _SETS
_EMPTY = bytes(16)


class Rate:
    """A bucket for each client: `burst` at once, `per_s` in the long run. Used by one thread of each process.

    Args:
        per_s: 0 = no limit.
        burst: size of the bucket.
        file: the table that processes share, made where there is none; None = this process is alone.

    Raises:
        StorageError: there is no room for the table.
    """

    def __init__(self, per_s: float, burst: int, file: Path | None = None) -> None:
        self._per_s, self._burst, self._handle = per_s, float(burst), -1
        if file is not None:
            try:
                self._handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                os.posix_fallocate(self._handle, 0, _SIZE)  # a write into a hole of a full disk would end the process
            except OSError as error:
                raise of_system(error, where=str(file), verb="written") from None
        self._table = mmap.mmap(self._handle, _SIZE)

    def wait_s(self, client: str, now: float) -> float:
        """Seconds until the client may ask again; 0 where it may now, which counts as a request.

        Args:
            client: its address.
            now: of `time.monotonic`.
        """
        if not self._per_s:
            return 0.0
        digest = hashlib.blake2b(_name(client), digest_size=16).digest()
        first = int.from_bytes(digest[:8]) % _SETS * _WAYS * _ENTRY.size
        with self._alone(first):
            at, left, since = self._find(digest, first, now)
            left = min(self._burst, left + max(0.0, now - since) * self._per_s)
            granted = left >= 1.0
            _ENTRY.pack_into(self._table, at, digest, left - granted, now)
        return 0.0 if granted else (1.0 - left) / self._per_s

    def _find(self, digest: bytes, first: int, now: float) -> tuple[int, float, float]:
        """Where a client's entry stands or is to stand, and what is in it; a new client's bucket is full."""
        oldest, place = float("inf"), first
        for at in range(first, first + _WAYS * _ENTRY.size, _ENTRY.size):
            name, left, since = _ENTRY.unpack_from(self._table, at)
            if name == digest:
                return at, left, since
            since = float("-inf") if name == _EMPTY else since
            if since < oldest:
                oldest, place = since, at
        return place, self._burst, now

    @contextlib.contextmanager
    def _alone(self, first: int) -> Iterator[None]:
        if self._handle < 0:
            yield
            return
        length = _WAYS * _ENTRY.size
        fcntl.lockf(self._handle, fcntl.LOCK_EX, length, first)
        try:
            yield
        finally:
            fcntl.lockf(self._handle, fcntl.LOCK_UN, length, first)


def _name(client: str) -> bytes:
    """An address as its owner has it: of IPv6 the first 64 bits, since the others are the client's to choose."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client.encode()
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped.packed if address.ipv4_mapped else address.packed[:8]
    return address.packed
