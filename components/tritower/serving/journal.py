"""The journal of events: one process takes them and writes them down, any number follow what it wrote (`tailing.py`).

An event is acknowledged when it is safe: its record is whole on the disk or in the store. What arrives while a record is
being written makes up the next one, so that under load one fsync serves many callers. The same event (request, job, kind)
counts once, also across a restart. A record that a crash has cut was never acknowledged: it is put aside when the journal is
opened again.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tritower import storage
from tritower.config import check
from tritower.errors import ArtifactError, OverloadError, StorageError
from tritower.features.online import EVENTS
from tritower.serving import place, records, segments
from tritower.serving.events import checked
from tritower.serving.records import MAGIC, Event, Framed, Record
from tritower.serving.segments import UnknownOutcome

_log = logging.getLogger(__name__)
_CHUNK = 65_536
_NAMES = EVENTS.names()


@dataclass(frozen=True, kw_only=True)
class JournalConfig:
    """How events are taken."""

    queued_events: int = 20_000
    """Events that may wait for the disk, 1 or more; what comes beyond is refused with 503. At 300 bytes each, 6 MB."""
    record_events: int = 1_000
    """Events of one record, 1 or more: what is counted in one call of `observe`. Events of one call are never parted."""
    sync_s: float = 0.0
    """Journal on this machine: fsync at most this often, in seconds. 0 = before an event is acknowledged. With more, a machine
    that loses its power loses that many seconds; a process that is killed loses nothing."""
    segment_bytes: int = 0
    """Bytes after which a segment is followed by the next; 0 = 64 MiB on this machine, 1 MiB in a store, where each record is a
    segment of its own until it is merged with others."""
    remembered_events: int = 1 << 20
    """The last so many events are known again when they are repeated, 65,536 or more. 8 bytes each."""
    lease_s: float = 15.0
    """Journal in a store: seconds after which a dead writer's lease ends, 1 or more."""

    def __post_init__(self) -> None:
        """Check the knobs."""
        for name in ("queued_events", "record_events"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "of at least 1")
        check(self.sync_s >= 0, "sync_s", self.sync_s, "of at least 0")
        check(self.segment_bytes >= 0, "segment_bytes", self.segment_bytes, "of at least 0")
        check(self.remembered_events >= _CHUNK, "remembered_events", self.remembered_events, f"of at least {_CHUNK:,}")
        check(self.lease_s >= 1, "lease_s", self.lease_s, "of at least 1")


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of the events of one call: `repeated` ones were in the journal already, or twice in the call."""

    taken: int
    repeated: int


@dataclass
class Figures:
    """Counts of events since the journal was opened.

    Attributes:
        received: that came, refused ones included.
        journaled: that are safe.
        repeated: known already.
        refused: for want of room.
        failed: that could not be written.
        waiting: now.
        records: the number of the last record.
        last_taken: its time, microseconds since 1970.
    """

    received: int = 0
    journaled: int = 0
    repeated: int = 0
    refused: int = 0
    failed: int = 0
    waiting: int = 0
    records: int = 0
    last_taken: int = 0


class Journal:
    """The writer. Any number of threads may call `take`."""

    def __init__(self, location: storage.LocationLike, config: JournalConfig | None = None) -> None:
        """Become the journal's writer, made where there is none.

        Raises:
            StorageError: another process writes it, or it cannot be read.
            ArtifactError: it is damaged.
        """
        self.location, self.config, self.figures = location, config or JournalConfig(), Figures()
        self.written = threading.Event()
        """Set after each record, for a follower in the same process."""
        self._seen = _Seen(self.config.remembered_events)
        self._waiting: deque[tuple[list[dict[str, Any]], Future[Receipt]]] = deque()
        self._wake, self._is_closing, self._broken = threading.Condition(), False, ""
        self._segment_bytes = self.config.segment_bytes or (64 << 20 if storage.is_local(location) else 1 << 20)
        knobs, large = self.config, self._segment_bytes
        self._place = place.opened(location, lease_s=knobs.lease_s, sync_s=knobs.sync_s, segment_bytes=large)
        try:
            self._segment, self._size = self._recover()
        except BaseException:
            self._place.close()
            raise
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def take(self, events: Sequence[Mapping[str, Any]], *, timeout_s: float = 30.0) -> Receipt:
        """Write events down; they are safe when this returns.

        Args:
            events: rows of `EVENTS` with times in microseconds since 1970 or ISO 8601. Rows of one search belong into one call.
            timeout_s: how long to wait for the disk.

        Raises:
            DataError: a row lacks a column or holds a value of another type; none of the rows is taken.
            OverloadError: too many events wait already.
            StorageError: they could not be written: none is acknowledged, and they may be sent again.
        """
        rows = [checked(event, number) for number, event in enumerate(events)]
        if not rows:
            return Receipt(taken=0, repeated=0)
        answer: Future[Receipt] = Future()
        with self._wake:
            self.figures.received += len(rows)
            if self._broken or self._is_closing:
                raise StorageError(self._broken or "the journal is closed", where=str(self.location), remedy="Start again.")
            if self.figures.waiting + len(rows) > max(self.config.queued_events, len(rows)):
                self.figures.refused += len(rows)
                problem = f"{self.figures.waiting:,} events wait for the journal"
                raise OverloadError(problem, where=str(self.location), remedy="Send these again in a second.")
            self._waiting.append((rows, answer))
            self.figures.waiting += len(rows)
            self._wake.notify()
        try:
            return answer.result(timeout_s)
        except TimeoutError:
            problem = f"the journal has not been written for {timeout_s:g} s"
            raise StorageError(problem, where=str(self.location), remedy="Send the events again: they count once.") from None

    def close(self) -> None:
        """Write what waits, and let another process write the journal."""
        with self._wake:
            self._is_closing = True
            self._wake.notify()
        self._thread.join()
        self._place.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _recover(self) -> tuple[str, int]:
        """Learn the last record and the events to remember, cut what a crash has left; return the last segment and its size."""
        names = segments.names(self.location)
        if not names:
            return records.segment_name(1), 0
        data = self._place.last_segment(names[-1])
        found = records.frames(data)
        size = found[-1].stop if found else min(len(data), len(MAGIC)) if data[: len(MAGIC)] == MAGIC else 0
        if size < len(data):
            self._cut(names[-1], data, size)
        first = records.first_number(names[-1]) or 1
        self.figures.records = found[-1].number if found else first - 1
        self.figures.last_taken = found[-1].taken if found else 0
        kept, count = [found], sum(len(frame.keys) for frame in found)
        for name in reversed(names[:-1]):
            if count >= self.config.remembered_events and self.figures.last_taken:
                break
            kept.append(sealed(self.location, name))
            count += sum(len(frame.keys) for frame in kept[-1])
            self.figures.last_taken = max(self.figures.last_taken, kept[-1][-1].taken if kept[-1] else 0)
        for frame in (frame for part in reversed(kept) for frame in part):
            self._seen.add(frame.keys)
        return names[-1], size

    def _cut(self, name: str, data: bytes, size: int) -> None:
        _log.warning(
            "%s/%s: the last %d bytes are no whole record, cut by a crash and never acknowledged; they are put aside",
            self.location, name, len(data) - size,
        )  # fmt: skip
        self._place.cut(name, data, size)

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._waiting and not self._is_closing:
                    self._wake.wait(min(1.0, self.config.lease_s / 4))
                calls = self._next()
                if not calls and self._is_closing:
                    return
            try:
                if calls:
                    self._write(calls)
                self._place.renew()
            except OSError as error:
                self._break(error)

    def _next(self) -> list[tuple[list[dict[str, Any]], Future[Receipt]]]:
        """The calls that make up the next record."""
        calls: list[tuple[list[dict[str, Any]], Future[Receipt]]] = []
        count = 0
        while self._waiting and (not calls or count + len(self._waiting[0][0]) <= self.config.record_events):
            calls.append(self._waiting.popleft())
            count += len(calls[-1][0])
        return calls

    def _write(self, calls: list[tuple[list[dict[str, Any]], Future[Receipt]]]) -> None:
        fresh: dict[int, Event] = {}
        receipts = []
        keys = [[records.key(row) for row in rows] for rows, _ in calls]
        known = self._seen.among([key for part in keys for key in part])
        for (rows, _), part in zip(calls, keys, strict=True):
            before = len(fresh)
            for row, key in zip(rows, part, strict=True):
                if key not in known:
                    fresh.setdefault(key, row)
            receipts.append(Receipt(taken=len(fresh) - before, repeated=len(rows) - len(fresh) + before))
        failure: BaseException | None = None
        try:
            if fresh:
                self._commit(fresh)
        except OSError as error:
            failure = error
        count = sum(len(rows) for rows, _ in calls)
        with self._wake:
            self.figures.waiting -= count
            if failure:
                self.figures.failed += count
            else:
                self.figures.journaled += len(fresh)
                self.figures.repeated += count - len(fresh)
        for (_, answer), receipt in zip(calls, receipts, strict=True):
            if failure:
                answer.set_exception(failure)
            else:
                answer.set_result(receipt)
        if isinstance(failure, UnknownOutcome):
            raise failure

    def _commit(self, fresh: dict[int, Event]) -> None:
        number = self.figures.records + 1
        taken = max(time.time_ns() // 1_000, self.figures.last_taken)
        events = tuple(records.concise(event, _NAMES) for event in fresh.values())
        block = Record(number=number, taken=taken, keys=tuple(fresh), events=events).encode()
        if self._size and (not self._place.grows or self._size + len(block) > self._segment_bytes):
            self._segment, self._size = records.segment_name(number), 0
        block = block if self._size else MAGIC + block
        self._place.append(self._segment, block)
        self._size += len(block)
        self.figures.records, self.figures.last_taken = number, taken
        self._seen.add(list(fresh))
        self.written.set()

    def _break(self, error: OSError) -> None:
        """Nobody knows what stands there now: take nothing more until the journal is opened, and read, again."""
        _log.error("%s: no more events are taken until the next start: %s", self.location, error)
        with self._wake:
            self._broken = f"events are not taken any more: {error}"
            calls, self._waiting = list(self._waiting), deque()
            self.figures.waiting = 0
        for _, answer in calls:
            answer.set_exception(StorageError(self._broken, where=str(self.location), remedy="Start again."))


def sealed(location: storage.LocationLike, name: str, *, is_last: bool = False) -> list[Framed]:
    """The records of a segment that is followed by another one, or is the last: that may end in a record that a crash has cut.

    Raises:
        ArtifactError: it is damaged.
    """
    data = segments.read(location, name)
    found = records.frames(data)
    if not is_last and len(data) > (found[-1].stop if found else len(MAGIC)):
        where, after = f"{location}/{name}", found[-1].number if found else "the start"
        remedy = "Restore the segment, or remove it: its events are then missing."
        raise ArtifactError(f"the segment is damaged after record {after}", where=where, remedy=remedy)
    return found


class _Seen:
    """The keys of the last events: sorted pieces of the older ones, and a set of the newest."""

    def __init__(self, limit: int) -> None:
        self._pieces: deque[npt.NDArray[np.uint64]] = deque(maxlen=max(1, limit // _CHUNK))
        self._newest: set[int] = set()

    def add(self, keys: Sequence[int]) -> None:
        """Remember keys; when a piece is full, the oldest piece is forgotten."""
        self._newest.update(keys)
        if len(self._newest) >= _CHUNK:
            self._pieces.append(np.sort(np.fromiter(self._newest, np.uint64, len(self._newest))))
            self._newest = set()

    def among(self, keys: Sequence[int]) -> set[int]:
        """Those of the keys that are remembered."""
        found = self._newest.intersection(keys)
        key_K = np.fromiter(keys, np.uint64, len(keys))
        for piece in self._pieces:
            at = np.minimum(np.searchsorted(piece, key_K), len(piece) - 1)
            found.update(key_K[piece[at] == key_K].tolist())
        return found
