"""Following a journal: what its writer wrote is counted, record by record, by every process that answers.

A state and the journal from that state's time on give the same features bit for bit, however often a process starts again
and whoever follows, because each record is one call of `observe`, and because the journal says where a state begins
(`states.json`):

    up to that record   events of the state's past are left out: impressions up to its last time, clicks that it knows
    after it            every event counts, late ones too

Whoever opens a state first writes down the journal's last record of that moment; all others find it there.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tritower import storage
from tritower.errors import StorageError, TritowerError
from tritower.features.online import EVENTS
from tritower.serving import records, segments
from tritower.serving.reading import Reader, last_record
from tritower.serving.records import Event, Framed

_log = logging.getLogger(__name__)
Observe = Callable[[pa.Table], None]
Counted = Callable[[float], None]
_STATES, _KEPT_STATES = "states.json", 20
_SKEW_US = 3_600_000_000
"""By so much may the clocks of whoever made an event and of the journal's writer differ."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a state of the features knows.

    Attributes:
        identity: its hash; the same for all who open it.
        last_ts: time of its last impression, microseconds since 1970.
        last_requests: the searches of that instant.
        pending: (request, job) of clicks that it knows and that are later.
    """

    identity: str
    last_ts: int = -1
    last_requests: frozenset[str] = frozenset()
    pending: frozenset[tuple[str, str]] = frozenset()

    @staticmethod
    def read(folder: str | Path, identity: str = "") -> "Known":
        """Of a state's folder on this machine. `identity`: its hash, if it is known already."""
        folder_ = Path(folder)
        folder_ = folder_ if (folder_ / "state.json").exists() else folder_ / "state"
        about = storage.read_json(folder_ / "state.json")
        queue = pq.read_table(folder_ / "queue.parquet", columns=["impression", "request_id", "job_id"])
        queue = queue.filter(pc.invert(queue["impression"]))
        return Known(
            identity=identity or _identity(folder_),
            last_ts=int(about["last_ts"]),
            last_requests=frozenset(about["last_requests"]),
            pending=frozenset(zip(queue["request_id"].to_pylist(), queue["job_id"].to_pylist(), strict=True)),
        )

    def lacks(self, event: Event) -> bool:
        """Whether an event that was taken before the state was first opened is none of its past."""
        if event.get("event") == "click":
            at = int(event.get("clicked_at", event["ts"]))
            return at > self.last_ts and (event["request_id"], event["job_id"]) not in self.pending
        ts = int(event["ts"])
        return ts > self.last_ts or (ts == self.last_ts and event["request_id"] not in self.last_requests)


def _identity(folder: Path) -> str:
    from tritower.storage import manifest

    return records.digest(manifest.digest(path) for path in manifest.files(folder).values())


def begins(location: storage.LocationLike, identity: str) -> int:
    """The record up to which events of a state's past are left out; written down by whoever asks first.

    Raises:
        StorageError: it can be neither read nor written.
    """
    at = segments.at(location, _STATES)
    for _ in range(100):
        found = storage.read_small(at)
        states: dict[str, int] = json.loads(found[0]) if found else {}
        if identity in states:
            return states[identity]
        number = last_record(location)
        kept = dict(list(states.items())[-_KEPT_STATES + 1 :]) | {identity: number}
        if storage.swap_small(at, json.dumps(kept, indent=1).encode(), tag=found[1] if found else ""):
            return number
    raise StorageError("other processes keep replacing it", where=at, remedy="Start again.")


@dataclass
class Lag:
    """How far a follower is behind.

    Attributes:
        applied_events, applied_records: counted since it began.
        skipped_events: of the state's past.
        failed_events: that could not be counted.
        missing_records: that the journal does not hold any more.
        last_record: the number of the last record counted.
        behind_s: age of the oldest record that is there and not counted; where the journal cannot be read, time since it could.
    """

    applied_events: int = 0
    applied_records: int = 0
    skipped_events: int = 0
    failed_events: int = 0
    missing_records: int = 0
    last_record: int = 0
    behind_s: float = 0.0


@dataclass
class _Progress:
    lag: Lag = field(default_factory=Lag)
    oldest_taken: int = 0
    read_at: float = field(default_factory=time.time)


class Follower:
    """Feeds the events of a journal to whoever counts them (`OnlineFeatures.observe`, `Ranking.observe`)."""

    def __init__(
        self, location: storage.LocationLike, observe: Observe, known: Known, *, poll_s: float = 0.5,
        wake: threading.Event | None = None, counted: Counted | None = None,
    ) -> None:  # fmt: skip
        """Args:
        location: the journal; one that does not exist yet is waited for.
        observe: counts rows of `EVENTS`.
        known: the state that it counts on from.
        poll_s: seconds between looks.
        wake: set when something has come (`Journal.written`), in the writer's process.
        counted: told, of each record that comes while the thread runs, the seconds from its being taken to its being counted.
        """
        self._observe, self._known, self._poll_s = observe, known, poll_s
        self._wake, self._stopping = wake or threading.Event(), threading.Event()
        self._counted = counted
        self._begins = begins(location, known.identity)
        self._reader = Reader(location, self._start(location))
        self._progress, self._thread = _Progress(), threading.Thread(target=self._run, name="follower", daemon=True)

    def catch_up(self) -> int:
        """Count everything that is there; return the number of events counted.

        Raises:
            StorageError: the journal cannot be read.
            ArtifactError: it is damaged.
        """
        before = self._progress.lag.applied_events
        while found := self._reader.read():
            self._progress.read_at = time.time()
            for frame in found:
                self._progress.oldest_taken = frame.taken
                self._apply(frame)
            self._progress.oldest_taken = 0
        self._progress.read_at = time.time()
        self._progress.lag.missing_records = self._reader.missing
        return self._progress.lag.applied_events - before

    def start(self) -> None:
        """Go on in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the record at work, and end."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def lag(self) -> Lag:
        """How far behind it is now."""
        now, progress = time.time(), self._progress
        oldest = progress.oldest_taken / 1e6 if progress.oldest_taken else now
        silent_s = now - progress.read_at
        progress.lag.behind_s = max(0.0, now - oldest, silent_s if silent_s > 2 * self._poll_s + 1 else 0.0)
        return progress.lag

    def _start(self, location: storage.LocationLike) -> int:
        """The record to begin behind: nothing that was taken long before the state's last impression can be later than it."""
        names, low = segments.names(location), 0
        high = len(names)
        while low < high:
            middle = (low + high) // 2
            head = segments.read(location, names[middle], 0, records.HEAD_BYTES)
            taken = records.taken_first(head)
            if taken and taken < self._known.last_ts - _SKEW_US:
                low = middle + 1
            else:
                high = middle
        return (records.first_number(names[low - 1]) or 1) - 1 if low else 0

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(self._poll_s)
            self._wake.clear()
            try:
                self.catch_up()
            except (TritowerError, OSError) as error:
                _log.warning("%s: the journal cannot be followed: %s", self._reader.location, error)
                self._stopping.wait(min(5.0, 4 * self._poll_s))

    def _apply(self, frame: Framed) -> None:
        lag, events = self._progress.lag, frame.record().events
        if frame.number <= self._begins:
            fresh = [event for event in events if self._known.lacks(event)]
            lag.skipped_events += len(events) - len(fresh)
            events = tuple(fresh)
        if events:
            try:
                self._observe(table(events))
                lag.applied_events += len(events)
            except TritowerError as error:
                _log.error("record %d of %s cannot be counted: %s", frame.number, self._reader.location, error)
                lag.failed_events += len(events)
        lag.applied_records += 1
        lag.last_record = frame.number
        if self._counted and self._thread.is_alive():
            self._counted(max(0.0, time.time() - frame.taken / 1e6))


def table(events: Sequence[Event]) -> pa.Table:
    """Events as rows of `EVENTS`."""
    columns = {column.name: [event.get(column.name) for event in events] for column in EVENTS.columns}
    return pa.table({name: pa.array(values, EVENTS.arrow().field(name).type) for name, values in columns.items()})
