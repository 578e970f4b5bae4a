"""A journal in a store, which has no append: each record is an object, made by one PUT that is refused where there is one
already (`If-None-Match: *`; Google: `ifGenerationMatch=0`).

A store takes a PUT in some 50 ms, and what comes meanwhile makes up the next record; a follower that has the last record asks
for the object whose name is the next number. Objects older than a minute are merged, 64 at a time, into the first of them,
until it has its full size: else a month's journal would be millions of objects. Readers know records by number, wherever they
stand.
The minute is for a writer that was thought dead: it finds the object of its next record there, and writes no more.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable

from tritower import storage
from tritower.errors import StorageError, TritowerError
from tritower.serving import records, segments
from tritower.serving.segments import WRITER, UnknownOutcome

_log = logging.getLogger(__name__)
_LEASE = "writer.json"
_REMEDY = "Let one process take the events; the others follow its journal."
MERGED_AFTER_S = 60.0
TOGETHER = 64
_MERGE_EVERY_S = 15.0


class Objects:
    """The writer. The lease is renewed by `renew`; older objects are merged aside."""

    grows = False

    def __init__(self, location: storage.Location, lease_s: float, segment_bytes: int) -> None:
        self._location, self._lease_s, self._segment_bytes = location, lease_s, segment_bytes
        self._owner = f"{socket.gethostname()}, process {os.getpid()}, {uuid.uuid4().hex[:8]}"
        self._renewed = self._merged = time.monotonic()
        """When the lease was written: before the request, as its end is counted from then."""
        self._lease_tag = self._patiently()
        self._closing, self._merging = threading.Event(), threading.Thread()

    def last_segment(self, name: str) -> bytes:
        return segments.read(self._location, name)

    def cut(self, name: str, data: bytes, size: int) -> None:
        raise AssertionError("objects are whole or not there")

    def append(self, name: str, block: bytes) -> None:
        if time.monotonic() - self._renewed > self._lease_s:  # it may be another's by now
            self._renew()
        try:
            if storage.swap_small(self._at(name), block):
                return
            failure = None
        except StorageError as error:
            failure = error
        try:
            found = storage.read_small(self._at(name))
        except StorageError as error:
            raise UnknownOutcome(error.problem, where=error.where, remedy=error.remedy) from error
        if found is None and failure:
            raise failure
        if found is None or found[0] != block:  # else a request that was made twice had succeeded
            raise self._lost()

    def renew(self) -> None:
        now = time.monotonic()
        if now - self._renewed >= self._lease_s / 3:
            self._renew()
        if now - self._merged >= _MERGE_EVERY_S and not self._merging.is_alive():
            self._merged = now
            self._merging = threading.Thread(target=self._merge, name="merging", daemon=True)
            self._merging.start()

    def close(self) -> None:
        self._closing.set()
        if self._merging.is_alive():
            self._merging.join()
        storage.swap_small(self._at(_LEASE), self._lease(over=True), tag=self._lease_tag)

    def _merge(self) -> None:
        before = int((time.time() - MERGED_AFTER_S) * 1e6)
        try:
            merge(self._location, taken_before=before, segment_bytes=self._segment_bytes, may=self._holds)
        except (TritowerError, OSError) as error:
            _log.warning("%s: the small segments are not merged: %s", self._location, error)

    def _holds(self) -> bool:
        return not self._closing.is_set() and time.monotonic() - self._renewed < self._lease_s / 2

    def _renew(self) -> None:
        begun = time.monotonic()
        if not storage.swap_small(self._at(_LEASE), self._lease(), tag=self._lease_tag):
            raise self._lost()
        self._lease_tag = (storage.read_small(self._at(_LEASE)) or (b"", ""))[1]
        self._renewed = begun

    def _patiently(self) -> str:
        """Take the lease, waiting for that of a dead writer to end; return its tag."""
        end, first = time.monotonic() + self._lease_s + 1, 0.0
        while True:
            found = storage.read_small(self._at(_LEASE))
            held = json.loads(found[0]) if found else {}
            left_s = held.get("until", 0) - time.time()
            self._renewed = time.monotonic()
            if left_s <= 0 and storage.swap_small(self._at(_LEASE), self._lease(), tag=found[1] if found else ""):
                return (storage.read_small(self._at(_LEASE)) or (b"", ""))[1]
            first = first or held.get("until", 0)
            if time.monotonic() > end or held.get("until", 0) > first:  # it was renewed: its owner lives
                problem = f"another process is at work on it ({WRITER}): {held.get('owner')}"
                raise StorageError(problem, where=str(self._location), remedy=_REMEDY)
            time.sleep(min(max(left_s, 0.05), 0.5))

    def _lease(self, *, over: bool = False) -> bytes:
        until = 0.0 if over else time.time() + self._lease_s
        return json.dumps({"owner": self._owner, "until": until}).encode()

    def _lost(self) -> StorageError:
        return UnknownOutcome("another process has begun to write it", where=str(self._location), remedy=_REMEDY)

    def _at(self, name: str) -> str:
        return segments.at(self._location, name)


def merge(location: storage.Location, *, taken_before: int, segment_bytes: int, may: Callable[[], bool]) -> int:
    """Merge small segments into the first of each run; return how many are gone.

    A run has `TOGETHER` segments, or as many as fill one of `segment_bytes`. The last segment stays, and so do those with a
    record that was taken at `taken_before` (microseconds since 1970) or later. A process that dies on the way leaves segments
    whose records stand in the one before as well; the next merge removes them.

    Args:
        may: asked before anything is written: whether the journal is still ours.

    Raises:
        StorageError: the place cannot be read or written.
    """
    run, total, gone = list[str](), 0, 0
    for name, size in list(segments.sizes(location).items())[:-1]:
        if len(run) > 1 and (len(run) == TOGETHER or total + size > segment_bytes):
            count = _merged(location, run, taken_before, may)
            if not count:
                return gone
            gone, run, total = gone + count, [], 0
        if size >= segment_bytes:
            run, total = [], 0
        else:
            run, total = [*run, name], total + size
    return gone


def _merged(location: storage.Location, run: list[str], taken_before: int, may: Callable[[], bool]) -> int:
    at = [segments.at(location, name) for name in run]
    first = storage.read_small(at[0])
    if first is None:
        return 0
    content, found = first[0], records.frames(first[0])
    for place in at[1:]:
        more = storage.read_small(place)
        frames = records.frames(more[0]) if more else []
        if not more or not frames or not found:
            return 0
        if frames[-1].number <= found[-1].number:  # merged before
            continue
        if frames[0].number != found[-1].number + 1:
            return 0
        content, found = content + more[0][len(records.MAGIC) :], frames
    if found[-1].taken >= taken_before or not may() or not storage.swap_small(at[0], content, tag=first[1]):
        return 0
    for place in at[1:]:
        storage.remove(place)
    return len(run) - 1
